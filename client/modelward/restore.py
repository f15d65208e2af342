"""Finding out again what ran, when the note of it was lost: each slot proves what it is."""

import contextlib
import hashlib
from collections.abc import Iterator
from pathlib import Path

from modelward import explain
from modelward.device import Device
from modelward.errors import FormatError, Refused
from modelward.formats import release as releases
from modelward.formats.installed import Installed, Slot
from modelward.formats.names import check_name
from modelward.formats.release import Release
from modelward.install import fsops
from modelward.install.opened import Folder
from modelward.scan import Damage, Part, installed_on


def generation(device: Device) -> tuple[Damage, ...]:
    """Make what is installed readable again, if it is not.

    Args:
        device: The device, whose lock the caller holds.

    Returns:
        What was damaged; nothing if nothing was.

    Raises:
        Refused: It cannot be told what ran.
    """
    try:
        installed_on(device)
    except Refused as error:
        problem = error
    else:
        return ()
    found = {model: sorted(slots, key=_counter) for model, slots in _proven(device).items()}
    if not found:
        raise problem
    active = {model: _active(device, model, slots) for model, slots in found.items()}
    previous = {
        model: older[-1]
        for model, slots in found.items()
        if (older := [slot for slot in slots if slot.counter < active[model].counter])
    }
    numbers = [int(path.name) for path in _generations(device) if path.name.isdecimal()]
    switch_to(device, Installed(max(numbers, default=0) + 1, active, previous))
    return (Damage(Part.GENERATION, "current", problem.reason),)


def switch_to(device: Device, installed: Installed) -> None:
    """Make a generation and switch to it."""
    device.slots.prepare(installed)
    current = device.config.state / "current"
    if not current.is_symlink():
        fsops.remove(current)
    device.slots.switch(installed.number)


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
    for path in sorted((device.config.state / "slots").glob("*/*")):
        model = path.parent.name
        with contextlib.suppress(OSError, FormatError, Refused, ValueError):
            check_name(model)
            with Folder(path) as folder:
                document = folder.read("release.json", releases.CAP)
            release = Release.parse(document)
            digest = hashlib.sha256(document).hexdigest()
            slot = Slot(release.version, release.counter, digest)
            if (release.model, slot.name) == (model, path.name):
                explain.proof(device, model, slot)
                found.setdefault(model, []).append(slot)
    return found


def _generations(device: Device) -> Iterator[Path]:
    """Yield what is kept of generations, the newest first."""
    folder = device.config.state / "generations"
    numbers = [path for path in folder.glob("*") if path.name.isdecimal()]
    yield from sorted(numbers, key=lambda path: int(path.name), reverse=True)


def _counter(slot: Slot) -> int:
    return slot.counter
