"""Finding out again what ran, when the note of it was lost: each slot proves what it is."""

import contextlib
import os
import stat
from collections.abc import Collection, Iterator
from pathlib import Path

from modelward import proof
from modelward.device import Device
from modelward.errors import Gate, Refused, Unavailable
from modelward.formats.installed import Installed, Slot
from modelward.install import fsops
from modelward.install.slots import of_this_process

TO_GO_BACK = ("generations", "slots")  # folders that even that takes
_FOLDERS = (*TO_GO_BACK, "store", "tuf")  # those that an update takes, and those that it does not
_MEND = "run `modelward verify --repair`"
_MOST = 64 << 20  # bytes: no metadata has as much
_SPARE = ("store/.partial", "tuf/root_history", "evidence", "reports", "targets", "alarms", "seals")
_HAD_AGAIN = ("store", "store/.partial", "tuf", "tuf/root_history", "targets", "seals")


def folders(
    device: Device, needed: Collection[str] = _FOLDERS, *, mend: bool = False
) -> dict[str, str]:
    """Set aside what stands where a folder of the state directory belongs: files, lost folders.

    A folder that the disk has lost, and whose content can be had again, is removed: should it only
    have been lost for a moment, it would take its room for good. `evidence` is left as it is: gate
    4 goes on only where it can be read.

    Args:
        device: The device, whose lock the caller holds.
        needed: The folders that must be there, if there ever were any.
        mend: Whether to set aside even what runs, if the disk has lost the folder that it is in.

    Returns:
        What was wrong, by path inside the state directory.

    Raises:
        Refused: There is a link that leads to no folder: what it led to may only be away.
        Unavailable: The disk has lost a folder that is not to be set aside.
    """
    found = {}
    for name in (*_FOLDERS, *_SPARE):
        place, problem = device.config.state / name, None
        lost = fsops.lost(place)
        if lost is not None:
            problem = _without_lost(place, name, lost, needed, mend=mend)
        elif os.path.lexists(place) and not place.is_dir():
            problem = _without_other(place, name, needed)
        if problem:
            found[name] = problem
    return found


def _without_lost(
    place: Path, name: str, lost: OSError, needed: Collection[str], *, mend: bool
) -> str | None:
    """Have a folder that the disk has lost out of the way, where that may be; tell what was."""
    is_here = os.path.lexists(place) and not place.is_symlink() and not os.path.ismount(place)
    problem = f"{place} cannot be read: {lost.strerror}"
    if name in _FOLDERS:
        if name not in needed:
            return None
        if not is_here:
            advice = "try again; if it stays so, the disk that it is on is failing"
            raise Unavailable(problem, advice, Gate.RECOVER) from lost
        if name in TO_GO_BACK and not mend:
            advice = f"try again; if it stays so, {_MEND}"
            raise Unavailable(problem, advice, Gate.RECOVER) from lost
    elif name == "evidence" or not is_here:
        return None
    if name in _HAD_AGAIN:
        fsops.remove(place)
        return f"{problem}; it is made anew"
    return f"{problem}; it is {fsops.set_aside(place).name} now"


def _without_other(place: Path, name: str, needed: Collection[str]) -> str | None:
    """Have what is no folder out of the way, where that may be; tell what was."""
    if place.is_symlink() and name in _FOLDERS:
        if name not in needed:
            return None
        raise Refused(
            Gate.RECOVER,
            f"{place} is a link to {place.readlink()}, where no folder is",
            f"mount what it leads to, or remove the link and {_MEND}",
        )
    return f"{place} was no folder, and is {fsops.set_aside(place).name} now"


def notes(
    device: Device, needed: Collection[str] = _FOLDERS, *, mend: bool = False
) -> dict[str, str]:
    """Make the notes of what runs, and of what a trial goes back to, readable again.

    What they lie in comes first: see `folders`.

    Args:
        device: The device, whose lock the caller holds.
        needed: As for `folders`.
        mend: Likewise.

    Returns:
        What was wrong, by path inside the state directory.

    Raises:
        Refused: It cannot be told what ran, or this process cannot read it now.
        Unavailable: As for `folders`.
    """
    found = {
        **folders(device, needed, mend=mend),
        **metadata(device),
        "current": current(device),
        **good(device),
    }
    return {path: problem for path, problem in found.items() if problem}


def metadata(device: Device) -> dict[str, str]:
    """Remove what nobody could read to its end, such as a pipe, from where TUF's client will look.

    The next refresh fetches it anew. Whatever else is wrong there TUF's client gets over by itself.
    """
    state, found = device.config.state, {}
    paths: list[Path] = []
    with contextlib.suppress(OSError):  # on another disk, which is dead; see `folders`
        paths += (*(state / "tuf").glob("*.json"), *(state / "tuf/root_history").glob("*.json"))
    for path in paths:
        with contextlib.suppress(OSError):  # a link to nothing
            status = path.stat()
            kind = stat.S_IFMT(status.st_mode)
            if kind not in (stat.S_IFREG, stat.S_IFDIR) or status.st_size > _MOST:
                fsops.remove(path)
                name = str(path.relative_to(state))
                found[name] = f"{path} was no metadata, and was removed"
    return found


def good(device: Device) -> dict[str, str]:
    """Write the note of what an open trial goes back to anew, if it cannot be read: as `notes`."""
    trial = device.trials.journal.trial
    if trial is None:
        return {}
    try:
        device.slots.generation(trial.good)
    except Refused as error:
        if of_this_process(error):  # nothing is lost, and nothing is to be written over
            raise
        newer = device.slots.installed()
        with contextlib.suppress(Refused):  # what is about to be switched to knows it better
            newer = device.slots.generation(trial.generation)
        device.slots.renew(_before(device, trial.good, newer))
        return {f"generations/{trial.good}": error.reason}
    return {}


def _before(device: Device, number: int, newer: Installed) -> Installed:
    """Return what ran before a trial: that which its links still lead to, else by the floors.

    A release above its floor is on trial: before it ran what its successor falls back to.
    """
    active, previous = dict(newer.active), dict(newer.previous)
    place = device.config.state / "generations" / str(number)
    confirmed = device.floors.load().releases
    proven = _proven(device)
    for model, slot in newer.active.items():
        fallback = newer.previous.get(model)
        here = [*([fallback] if fallback else ()), *sorted(proven.get(model, ()), key=_counter)]
        linked = None
        with contextlib.suppress(OSError):
            name = (place / model).readlink().parent.name
            linked = next((each for each in (slot, *here) if each.name == name), None)
        floor = confirmed.get(model, -1)
        if linked == slot or (linked is None and slot.counter <= floor):
            continue  # not on trial
        del active[model]
        previous.pop(model, None)
        # What is revoked is gone back to if nothing else is here, but not fallen back to.
        good = linked or fallback or next((s for s in here[::-1] if s.counter <= floor), None)
        if good is not None:
            active[model] = good
            older = [each for each in here if each.counter < good.counter]
            if older:
                previous[model] = max(older, key=_counter)
    return Installed(number, active, previous)


def current(device: Device) -> str | None:
    """Make what is installed readable again, if it is not.

    If only the pointer to a generation is gone, it is put back; else what ran is told from the
    slots.

    Args:
        device: The device, whose lock the caller holds.

    Returns:
        What was wrong; None if nothing was.

    Raises:
        Refused: It cannot be told what ran, or this process cannot read it now.
    """
    try:
        device.trials.installed()
    except Refused as error:
        if of_this_process(error):  # nothing is lost, and nothing is to be written over
            raise
        problem = error
    else:
        return None
    if not _put_back(device):
        _tell_from_slots(device, problem)
    return problem.reason


def _put_back(device: Device) -> bool:
    """Point at the generation that ran last, if only the pointer is lost."""
    if (device.config.state / "current").is_symlink():
        return False
    for number in device.slots.last():
        with contextlib.suppress(Refused):
            if device.slots.generation(number).number == number:
                device.slots.switch(number)
                return True
    return False


def _tell_from_slots(device: Device, problem: Refused) -> None:
    found = {model: sorted(slots, key=_counter) for model, slots in _proven(device).items()}
    if not found:
        raise problem
    active = {model: _active(device, model, slots) for model, slots in found.items()}
    previous = {
        model: older[-1]
        for model, slots in found.items()
        if (older := [slot for slot in slots if slot.counter < active[model].counter])
    }
    trial = device.trials.journal.trial
    known = (trial.good, trial.generation) if trial else ()  # it must not be taken for one of these
    number = max(*device.slots.generations(), *known, 0, 0) + 1
    device.slots.prepare(Installed(number, active, previous))
    device.slots.switch(number)


def _active(device: Device, model: str, slots: list[Slot]) -> Slot:
    """Return which of several slots ran: that which a link still leads to, else the newest.

    A release above the floor was on trial, and is not taken for one that works.
    """
    for place in (device.config.state / "current", *_generations(device)):
        with contextlib.suppress(OSError):
            name = (place / model).readlink().parent.name
            linked = [slot for slot in slots if slot.name == name]
            if linked:
                return linked[0]
    floor = device.floors.load().releases.get(model, 0)
    confirmed = [slot for slot in slots if slot.counter <= floor]
    return (confirmed or slots)[-1]


def _proven(device: Device) -> dict[str, list[Slot]]:
    """Return the slots whose own documents prove what they are, by model."""
    found: dict[str, list[Slot]] = {}
    for model, slot in device.slots.here():
        with contextlib.suppress(Refused):
            proof.of(device, model, slot)
            found.setdefault(model, []).append(slot)
    return found


def _generations(device: Device) -> Iterator[Path]:
    """Yield what is kept of generations, the newest first."""
    for number in device.slots.generations():
        yield device.config.state / "generations" / str(number)


def _counter(slot: Slot) -> int:
    return slot.counter
