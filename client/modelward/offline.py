"""An update or a repair from a stick: the same gates by the same code, and no network at all."""

from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import datetime
from pathlib import Path

from modelward.bring import Watch
from modelward.device import Device
from modelward.errors import Gate, ModelwardError, Refused, Unavailable
from modelward.formats import strict
from modelward.install import fsops
from modelward.install.hashing import Progress
from modelward.repair import Repaired, repair
from modelward.transfer.medium import Medium, open_medium
from modelward.transfer.sources import Sources
from modelward.update import Outcome, update

_TIMESTAMP = "metadata/timestamp.json"
_TIMESTAMP_CAP = 16_384  # bytes


def bring(  # noqa: PLR0913 - as `modelward.update.update`, and where from
    device: Device,
    path: Path,
    models: Sequence[str],
    watch: Watch,
    *,
    only_check: bool = False,
    keep_waiting: Callable[[str], bool] = fsops.never,
) -> Outcome:
    """Bring a device up to date from a bundle.

    Args:
        device: The device.
        path: The bundle: a directory, or a tar archive.
        models: The models to update; empty for those that the device is configured for and the
            bundle has.
        watch: Is told what happens.
        only_check: Stop after gate 9: decide everything, install nothing.
        keep_waiting: Whether to wait for another updater; see `fsops.lock`.

    Raises:
        Refused: A gate said no. Nothing was changed.
        Unavailable: Something is not in the bundle, or cannot be read. Nothing was changed.
        UsageError: There is no bundle.
    """
    medium = open_medium(path)
    asked = models or _wanted(device, medium)
    with Sources([medium]) as sources:
        try:
            return update(
                device,
                asked,
                watch,
                only_check=only_check,
                keep_waiting=keep_waiting,
                sources=sources,
            )
        except ModelwardError as error:
            error.advice = _advice(error, medium, device, asked) or error.advice
            raise


def mend(
    device: Device, path: Path, models: Sequence[str], progress: Progress, watch: Watch
) -> Repaired:
    """Mend what is damaged from a bundle; see `modelward.repair.repair`.

    Args:
        device: The device.
        path: The bundle: a directory, or a tar archive.
        models: The models to examine; empty for all of them, and everything else that is kept.
        progress: Told of the bytes that are hashed.
        watch: Is told what is fetched.

    Raises:
        Refused: What is installed cannot be read, and not be told from what else is here.
        Unavailable: An update runs.
        UsageError: There is no bundle, or a model is not installed.
    """
    with Sources([open_medium(path)]) as sources:
        return repair(device, models, progress, watch, sources)


def _wanted(device: Device, medium: Medium) -> Sequence[str]:
    """Return the models to ask for: a bundle may have been made for a part of them only."""
    if medium.index is None:
        return ()
    offered = [model for model, _ in medium.index.models]
    return [model for model in offered if model in (device.config.models or offered)]


def _advice(error: ModelwardError, medium: Medium, device: Device, models: Sequence[str]) -> str:
    """Return what to do about an error that has its reason in what lies on the stick."""
    if error.gate not in (Gate.CLOCK, Gate.METADATA):
        return ""
    if isinstance(error, Unavailable):
        return _advice_if_for_others(medium, device, models)
    if not isinstance(error, Refused):
        return ""
    export = f"`modelward-repo export --channel {device.config.channel}`"
    stated = _stated(medium)
    floor = device.floors.load().timestamp
    if stated is not None and floor is not None and stated[0] < floor.version:
        return (
            f"the bundle has timestamp {stated[0]}, and this device has seen {floor.version}: it "
            f"is older than what came here since; make it anew with {export}"
        )
    if stated is not None and stated[1] <= device.clock():
        return (
            f"the bundle could be imported until {strict.rfc3339(stated[1])}: make it anew with "
            f"`modelward-repo refresh`, then {export}; if it is new, set this device's clock"
        )
    return ""


def _advice_if_for_others(medium: Medium, device: Device, models: Sequence[str]) -> str:
    """Return what to do about a bundle that was not made for this device: copied anew, it fails."""
    if medium.index is None:
        return ""
    made_for, channel = medium.index.channel, device.config.channel
    if made_for != channel:
        return (
            f"this bundle is for channel {made_for}, and this device follows {channel}: export "
            f"with `--channel {channel}`"
        )
    offered = [model for model, _ in medium.index.models]
    lacking = [model for model in models or device.config.models if model not in offered]
    if lacking:
        wanted = " ".join(f"--model {model}" for model in lacking)
        return (
            f"this bundle has {', '.join(offered) or 'no model'}, and not {', '.join(lacking)}: "
            f"export with `{wanted}`, or all models"
        )
    return ""


def _stated(medium: Medium) -> tuple[int, datetime] | None:
    """Return version and expiry of the timestamp as it says itself: for advice, not decisions."""
    with suppress(ModelwardError):
        data = medium.fetch(_TIMESTAMP, _TIMESTAMP_CAP)
        value = strict.load("timestamp.json", data, _TIMESTAMP_CAP)
        signed = strict.Fields("timestamp.json", value).fields("signed")
        return signed.integer("version"), signed.time("expires")
    return None
