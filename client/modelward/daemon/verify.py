"""Now and then everything is read again: what was changed must be found where nobody looks.

A program of another user keeps its alarm to itself, one in another language raises none, and
what is kept to fall back to is opened by nobody (attack row 29).
"""

import contextlib
import signal
import time
from collections.abc import Callable, Mapping
from typing import Any

from modelward import alarm, scan
from modelward.config import Config
from modelward.daemon import mend as mending
from modelward.daemon.mend import Watch
from modelward.device import Device
from modelward.errors import ExitCode
from modelward.install import fsops, scanned
from modelward.scan import Damage

LONGEST = 0.05  # seconds: a slow card reads a MiB in less


class Rest:
    """Rests for as long as work took since: half of the disk and of a core stay for others.

    Not for longer than `LONGEST`: who had to wait that long has let others go first already.

    Args:
        clock: Monotonic seconds.
        sleep: Waits so many seconds.
    """

    def __init__(
        self,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._clock = clock
        self._sleep = sleep
        self._since = clock()

    def __call__(self) -> None:
        """Rest."""
        self._sleep(min(self._clock() - self._since, LONGEST))
        self._since = self._clock()


def verify(
    config: Config,
    watch: Watch,
    tell: Callable[[Mapping[str, Any]], None],
    *,
    mend: bool,
    rest: Rest | None = None,
) -> dict[str, Any]:
    """Do what `modelward verify` does, out of everybody's way; return how it ended.

    Args:
        config: The device's configuration.
        watch: Is told what happens.
        tell: Is given the events of `modelward.daemon.mend.mend`.
        mend: Whether to mend what is found damaged.
        rest: Rests after each piece that is hashed.

    Raises:
        Refused: What is installed cannot be read.
        Unavailable: An update runs; or it is told to stop.
    """
    device = Device(config)
    since_boot = time.clock_gettime(time.CLOCK_BOOTTIME)
    rest = rest or Rest()

    def hashing(done: int, total: int) -> None:
        watch.hashing(done, total)
        rest()

    found = scan.scan(device, (), hashing)
    if found.damage:
        # From here on nobody else may change anything: it cannot be paused (`Worker.pause`).
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTSTP})
        # No lock was held, to keep nobody waiting. What an update moved meanwhile is no damage.
        with fsops.lock(config.state / "lock", keep_waiting=watch.keep_waiting):
            found = scan.scan(device, (), watch.hashing)
            alarm.raise_about(device, found)
    with contextlib.suppress(OSError):  # then it is done again sooner than it need be
        scanned.write(config.state, device.boot(), since_boot)
    damaged = [_text(damage) for damage in found.damage]
    done = mending.mend(config, watch, tell, damaged) if damaged and mend else not damaged
    return found.to_dict() | {"exit_code": int(ExitCode.DONE if done else ExitCode.REFUSED)}


def _text(damage: Damage) -> str:
    of = f"{damage.model} {damage.slot.version}: " if damage.slot else ""
    return f"{of}{damage.path}: {damage.problem}"
