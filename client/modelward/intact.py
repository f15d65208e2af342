"""Is what is on trial still what was approved? Asked before a parser sees it and before it counts.

What is wrong with it becomes an alarm, which the daemon mends, and no verdict about the release.
"""

from collections.abc import Mapping

from modelward.device import Device
from modelward.errors import FormatError, Gate, Refused
from modelward.formats import policy as policies
from modelward.formats.installed import Slot
from modelward.formats.policy import ModelPolicy
from modelward.formats.tampering import Tampering
from modelward.install.hashing import Progress
from modelward.install.opened import Folder, problem_of

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
