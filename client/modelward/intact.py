"""Is what is here still what was approved? Asked before a parser sees it and before it counts.

What is wrong with what ran becomes an alarm, which the daemon mends; what never ran is dropped, to
be fetched anew. Neither is a verdict about the release.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from modelward.device import Device
from modelward.errors import FormatError, Gate, Refused
from modelward.formats import policy as policies
from modelward.formats.installed import Slot
from modelward.formats.policy import ModelPolicy
from modelward.formats.release import Release, ReleaseFile
from modelward.formats.seal import Look
from modelward.formats.tampering import Tampering
from modelward.install.hashing import Progress
from modelward.install.opened import Folder, problem_of
from modelward.install.store import Store
from modelward.trust.model_format import Reader

ADVICE = "run `modelward verify --repair`"


def changed(device: Device, slots: Mapping[str, Slot], progress: Progress) -> dict[str, str]:
    """Hash all files of slots again, and raise the alarm about each that was changed.

    Args:
        device: The device, whose lock the caller holds.
        slots: The slots by model.
        progress: Told of the bytes that are hashed, of those of each slot.

    Returns:
        By model, what was changed of it, for people.
    """
    found = {}
    for model, slot in slots.items():
        problem = _problem(device, model, slot, progress)
        if problem:
            _raise_alarm(device, model, slot, problem, progress)
            found[model] = f"{model} {slot.version} was changed after it was installed: {problem}"
    return found


@contextmanager
def reader(store: Store, release: Release, file: ReleaseFile) -> Iterator[Reader]:
    """Open a file to look into it; drop it if what is wrong with it is not the publisher's doing.

    It may have been here already, and have rotted since. That is asked only where it was found
    wrong: what is staged is hashed anyway.

    Args:
        store: Where it is.
        release: Whose file it is.
        file: Which.

    Raises:
        Refused: It was not what had been approved, and was dropped.
    """
    try:
        with store.reader(file) as opened:
            yield opened
    except (FormatError, OSError) as error:
        problem = "is not the file that was approved"
        if isinstance(error, OSError):
            problem = problem_of(error)
        if store.is_intact(file.blob):
            raise
        store.remove(file.blob.sha256)
        raise _dropped(release.model, release.version, file.path, problem) from error


def check_staged(
    device: Device,
    staged: Mapping[str, Slot],
    kept: Mapping[str, Slot],
    proven: Mapping[str, Look],
    progress: Progress,
) -> None:
    """Hash what is about to run: blobs that were here already may have rotted or been changed.

    Those that gate 10 has just hashed, and that nobody touched since, are not hashed twice.

    Args:
        device: The device, whose lock the caller holds.
        staged: New slots by model. One that is not as approved is dropped, with its bad blob.
        kept: Slots by model that ran here before.
        proven: What files looked like when they were hashed, by digest.
        progress: Told of the bytes that are hashed, of those of each slot.

    Raises:
        Refused: Something is not what was approved.
    """
    for model, slot in staged.items():
        for path, problem in device.slots.problems(model, slot, proven, progress):
            device.slots.discard(model, slot)
            raise _dropped(model, slot.version, path, problem)
    # What is kept proves by its own documents what it is: it is not dropped, but to be mended.
    for problem in changed(device, kept, progress).values():
        raise Refused(Gate.INSTALL, problem, ADVICE)


def policy_of(device: Device, model: str, slot: Slot) -> ModelPolicy:
    """Return the policy that was kept with a release.

    Raises:
        Refused: It cannot be read any more.
    """
    try:
        return _read_policy(device, model, slot)
    except (OSError, FormatError) as error:
        reason = f"{model} {slot.version}: {_unreadable(error)}"
        raise Refused(Gate.INSTALL, reason, ADVICE) from error


def _dropped(model: str, version: str, path: str, problem: str) -> Refused:
    return Refused(
        Gate.INSTALL,
        f"{model} {version}: {path}: {problem}",
        "the damaged file was dropped: try again to fetch it anew",
    )


def _read_policy(device: Device, model: str, slot: Slot) -> ModelPolicy:
    with Folder(device.slots.directory(model, slot)) as folder:
        return ModelPolicy.parse(folder.read("policy.json", policies.CAP))


def _unreadable(error: OSError | FormatError) -> str:
    if isinstance(error, FormatError):
        return f"policy.json cannot be read: {error.reason}"
    return f"policy.json {problem_of(error)}"


def _problem(device: Device, model: str, slot: Slot, progress: Progress) -> str | None:
    """Return the first thing that is wrong with a slot, or None."""
    try:
        _read_policy(device, model, slot)
        for path, problem in device.slots.problems(model, slot, progress=progress):
            return f"{path}: {problem}"
    except (OSError, FormatError) as error:
        return _unreadable(error)
    except Refused as error:
        if isinstance(error.__cause__, OSError):
            problem_of(error.__cause__)
        return error.reason
    return None


def _raise_alarm(device: Device, model: str, slot: Slot, problem: str, progress: Progress) -> None:
    installed = device.slots.installed()
    kept = (installed.active.get(model), installed.previous.get(model))
    others = (each for each in kept if each and each != slot)
    served = next((each for each in others if not _problem(device, model, each, progress)), None)
    version = served.version if served else None
    now = device.clock().replace(microsecond=0)
    device.alarms.keep(Tampering(model, slot.version, slot.sha256, problem, now, version))
