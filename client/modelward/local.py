"""What whoever stands before a device tells it: go back, stay, go on, make room. No network."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime

from modelward import fastpath, intact, restore
from modelward.device import Device
from modelward.errors import Gate, Refused, RolledBack, Unavailable, UsageError
from modelward.formats.floors import TimeFloor
from modelward.formats.installed import Installed, Slot
from modelward.install import fsops, space
from modelward.install.hashing import Progress
from modelward.trust import clock

_ROLLED_BACK = "it was rolled back by hand"
_PINNED = "it was pinned by hand"


@dataclass(frozen=True)
class Move:
    """One model that runs another release now.

    Attributes:
        model: The model.
        before: The version that ran.
        after: The version that runs; None if there was none before.
        revoked: Whether that is revoked: it runs as nothing else is here, and is not held.
    """

    model: str
    before: str
    after: str | None
    revoked: bool = False


@dataclass(frozen=True)
class Garbage:
    """What is not needed.

    Attributes:
        paths: What it is, relative to the state directory.
        freed: Bytes on disk that removing it frees.
    """

    paths: tuple[str, ...]
    freed: int


def roll_back(device: Device, models: Sequence[str], progress: Progress) -> tuple[Move, ...]:
    """Go back to the releases before, and stay there until somebody unpins.

    What is on trial goes back whole, all of its models at once: to what is revoked, too, if nothing
    else is here, as a trial that fails does.

    Args:
        device: The device.
        models: Models to take back; empty for all that can be.
        progress: Told of the bytes that are hashed.

    Raises:
        UsageError: There is nothing to go back to, or models that stay need what would go.
        Refused: What would run is not as it was approved. Of what a trial goes back to, that is
            asked when it is opened.
    """
    with _held(device) as now:
        installed = device.slots.installed()
        _check_installed(installed, models)
        on_trial = device.trials.on_trial()
        revoked: Collection[str] = ()
        if on_trial and (not models or set(models) & set(on_trial)):
            revoked = device.trials.revoked_to_go_back_to()
            after = device.trials.roll_back(_ROLLED_BACK, now, pin=True)
        else:
            slots = _slots_before(installed, models)
            _check_components(device, installed.with_releases(slots))
            for model, slot in slots.items():
                _check_intact(device, model, slot, progress)
            after = device.trials.go_back(slots, _ROLLED_BACK)
        fastpath.forget(device.config.state)
        return tuple(_moves(installed, after, revoked))


def pin(device: Device, models: Sequence[str]) -> dict[str, str]:
    """Let models stay at what they run, whatever a channel offers; not if it is revoked.

    Returns:
        Their versions.
    """
    with _held(device):
        installed = device.slots.installed()
        _check_installed(installed, models)
        slots = device.trials.pin(models or list(installed.active), _PINNED)
        return {model: slot.version for model, slot in slots.items()}


def unpin(device: Device, models: Sequence[str]) -> tuple[str, ...]:
    """Let models be updated again.

    Returns:
        Those that were pinned.

    Raises:
        UsageError: One of them was not pinned.
    """
    with _held(device):
        pins = device.trials.journal.pins
        for model in models:
            if model not in pins:
                raise UsageError(f"{model} is not pinned", "see `modelward status`")
        chosen = tuple(models or pins)
        device.trials.unpin(chosen)
        fastpath.forget(device.config.state)
        return chosen


def confirm(device: Device, progress: Progress) -> dict[str, str]:
    """Say that what is on trial is healthy, before its soak is over.

    Args:
        device: The device.
        progress: Told of the bytes that are hashed.

    Returns:
        The versions that are confirmed.

    Raises:
        UsageError: Nothing is on trial.
        Refused: It was changed since it was installed.
    """
    with _held(device):
        on_trial = device.trials.on_trial()
        if not on_trial:
            raise UsageError("nothing is on trial", "see `modelward status`")
        for problem in intact.changed(device, on_trial, progress).values():
            raise Refused(Gate.INSTALL, problem, intact.ADVICE)
        device.trials.commit()
        return {model: slot.version for model, slot in on_trial.items()}


def collect(device: Device, *, dry_run: bool) -> Garbage:
    """Remove what is not needed: interrupted downloads, releases that nothing falls back to.

    Args:
        device: The device.
        dry_run: Remove nothing, only tell.
    """
    if dry_run:
        return _garbage(device)
    with _held(device):
        found = _garbage(device)
        device.trials.collect()
        return found


@contextmanager
def _held(device: Device) -> Iterator[datetime]:
    """Hold the device's lock, with whatever was interrupted finished or undone."""
    with _reporting(device), fsops.lock(device.config.state / "lock"):
        restore.notes(device, restore.TO_GO_BACK)
        now = clock.trusted(device.clock(), _time_floor(device))
        recovered = device.trials.recover(now)
        if recovered.rolled_back:
            fastpath.forget(device.config.state)
            raise RolledBack(recovered.rolled_back, "see `modelward status`")
        yield now


@contextmanager
def _reporting(device: Device) -> Iterator[None]:
    """As `report.rollbacks`, which loads TUF's library and is seldom needed."""
    try:
        yield
    except RolledBack as error:
        from modelward import report  # noqa: PLC0415

        report.went_back(device, error, send=False)
        raise


def _time_floor(device: Device) -> TimeFloor | None:
    """Return what time it is at least; unknown must not keep anybody from going back."""
    with suppress(Unavailable):
        return device.floors.load().time
    return None


def _check_installed(installed: Installed, models: Sequence[str]) -> None:
    for model in models:
        if model not in installed.active:
            raise UsageError(f"no model {model!r} is installed", "see `modelward status`")


def _slots_before(installed: Installed, models: Sequence[str]) -> Mapping[str, Slot]:
    for model in models:
        if model not in installed.previous:
            raise UsageError(
                f"{model} has nothing to go back to", "the first release of a model is kept alone"
            )
    found = {model: installed.previous[model] for model in models or installed.previous}
    if not found:
        raise UsageError("there is nothing to go back to", "see `modelward status`")
    return found


def _check_components(device: Device, following: Installed) -> None:
    """Refuse to part a model from the very release of another that it was approved with."""
    for model, slot in following.active.items():
        release, _ = device.slots.release(model, slot)
        for component, version in release.requires.components:
            there = following.active.get(component)
            if there is not None and there.version != version:
                raise UsageError(
                    f"{model} {slot.version} needs {component} {version}, which would become "
                    f"{there.version}",
                    f"name both: modelward rollback {model} {component}",
                )


def _check_intact(device: Device, model: str, slot: Slot, progress: Progress) -> None:
    for path, problem in device.slots.problems(model, slot, progress=progress):
        raise Refused(
            Gate.INSTALL,
            f"{model} {slot.version}, which is kept to fall back to: {path}: {problem}",
            "it is not switched to; see `modelward verify`",
        )


def _moves(before: Installed, after: Installed, revoked: Collection[str]) -> Iterator[Move]:
    for model, slot in before.active.items():
        now = after.active.get(model)
        if now != slot:
            yield Move(model, slot.version, now.version if now else None, model in revoked)


def _garbage(device: Device) -> Garbage:
    paths = device.trials.garbage()
    state = device.config.state
    return Garbage(tuple(str(path.relative_to(state)) for path in paths), space.freed(paths))
