"""What an alarm is pending about is mended, before anything new is looked for (attack row 29)."""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from modelward.errors import FormatError, Gate, ModelwardError, Refused

if TYPE_CHECKING:
    from modelward.config import Config
    from modelward.repair import Repaired


class Watch(Protocol):
    """Is told what happens; see `modelward.daemon.attempt.Watch`."""

    def passed(self, gate: Gate, detail: str) -> None:
        """Note that a gate was passed."""
        ...

    def fetching(self, received: int, total: int, source: str) -> None:
        """Note what arrives."""
        ...

    def hashing(self, done: int, total: int) -> None:
        """Note what is hashed."""
        ...

    def keep_waiting(self, holder: str) -> bool:
        """Wait a moment for another updater."""
        ...


def mend(
    config: "Config",
    watch: Watch,
    tell: Callable[[Mapping[str, Any]], None],
    damage: Sequence[str] = (),
) -> bool:
    """Do what `modelward verify --repair` does, if an alarm about what is installed is pending.

    So, too, if the note of what is installed cannot be read: nobody can raise an alarm then.
    An alarm is reported first. It ends only if everything is found intact afterwards.

    Args:
        config: The device's configuration.
        watch: Is told what happens.
        tell: Is given the events ``repairing``, then ``repaired`` or ``repair-failed``.
        damage: What was found damaged besides: of some things there are no alarms.

    Returns:
        Whether nothing is damaged now.
    """
    alarms = list(_alarms(config)) or list(damage)
    if not alarms:
        return True
    from modelward import repair, report  # noqa: PLC0415 - loads TUF's library and more
    from modelward.device import Device  # noqa: PLC0415

    whole = False
    device = Device(config)
    tell({"event": "repairing", "alarms": alarms})
    report.tell(device, None)
    try:
        done = repair.repair(device, (), watch.hashing, watch, keep_waiting=watch.keep_waiting)
    except ModelwardError as error:
        tell({"event": "repair-failed", **error.to_dict()})
    except OSError as error:
        failed = ModelwardError(str(error), "check permissions and free space")
        tell({"event": "repair-failed", **failed.to_dict()})
    else:
        tell(_told(done))
        whole = not done.remaining
    report.tell(device, None)
    return whole


def _alarms(config: "Config") -> Iterator[str]:
    from modelward.formats.installed import CAP, DOCUMENT, Installed  # noqa: PLC0415 - as below
    from modelward.install.alarms import AlarmStore  # noqa: PLC0415 - the daemon does without
    from modelward.install.opened import Folder  # noqa: PLC0415

    for alarm in AlarmStore(config.state, os.environ).pending():
        yield alarm.to_text()
    try:
        with Folder(config.state / "current") as folder:
            Installed.parse(folder.read(DOCUMENT, CAP))
    except (OSError, FormatError):
        yield from _unreadable(config)


def _unreadable(config: "Config") -> Iterator[str]:
    """Tell why what is installed cannot be read: nothing is wrong if nothing ever was."""
    from modelward.device import Device  # noqa: PLC0415

    try:
        Device(config).trials.installed()
    except Refused as error:
        yield f"what is installed cannot be read: {error.reason}"


def _told(done: "Repaired") -> dict[str, Any]:
    result = {
        "event": "repair-failed" if done.remaining else "repaired",
        "mended": [damage.to_dict() for damage in done.mended],
        "fetched": done.fetched,
    }
    if done.remaining:
        damage, why = done.remaining[0]
        result["reason"] = f"{damage.path}: {damage.problem}: {why}"
        result["problems"] = [damage.to_dict() | {"why": why} for damage, why in done.remaining]
    return result
