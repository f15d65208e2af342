"""One check, told as it goes, in a process of its own: what it loads and leaks ends with it.

The resident daemon starts `python -m modelward.daemon.attempt` with a job on standard input, as a
JSON line, and reads events from standard output, a JSON line each. Standard input stays open: when
it closes, the daemon is gone, and nothing more is begun. The daemon's death ends it, too.
"""

import contextlib
import json
import os
import select
import signal
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from modelward import config as configuration
from modelward.config import Config
from modelward.daemon.mend import mend
from modelward.errors import ExitCode, Gate, ModelwardError, Unavailable
from modelward.formats import strict
from modelward.install import leash

if TYPE_CHECKING:
    from modelward.device import Device

Event = Mapping[str, Any]
Tell = Callable[[Event], None]
HEARTBEAT = 5.0  # seconds between two signs of progress, unless `stuck` in [run] is short
LOCK_PATIENCE = 60.0  # seconds to wait for an update that somebody else runs
LOCK_POLL = 0.2  # seconds between two looks at the lock
LOW = 10  # a tenth of a busy core: others go first, but it does come to its end


@dataclass(frozen=True)
class Job:
    """What to do.

    Attributes:
        state: The state directory.
        settings: The settings that count, merged from file, environment and flags.
        only_check: Decide, and change nothing.
        mend: Mend first what an alarm is pending about.
        verify: Look for no update, but read again everything that is kept.
    """

    state: Path
    settings: Mapping[str, Any]
    only_check: bool = False
    mend: bool = False
    verify: bool = False

    @classmethod
    def parse(cls, line: str) -> "Job":
        """Parse the line that `to_line` returns."""
        data = json.loads(line)
        flags = (data["only_check"], data["mend"], data["verify"])
        return cls(Path(data["state"]), data["settings"], *flags)

    def to_line(self) -> str:
        """Return the job as one line."""
        return json.dumps(
            {
                "state": str(self.state),
                "settings": dict(self.settings),
                "only_check": self.only_check,
                "mend": self.mend,
                "verify": self.verify,
            }
        )

    @property
    def config(self) -> Config:
        """The configuration."""
        return configuration.from_settings(self.state, self.settings)


class Watch:
    """Tells what an update does, and ends it at a point where that leaves nothing half done.

    Attributes:
        tell: Is given each event.
        heartbeat: Seconds between two events about the same download, or the same hashing.

    Args:
        tell: See there.
        told_to_stop: Tells whether to end.
        clock: Monotonic seconds.
        sleep: Waits so many seconds.
    """

    def __init__(
        self,
        tell: Tell,
        told_to_stop: Callable[[], bool] = lambda: False,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.tell = tell
        self.heartbeat = HEARTBEAT
        self._told_to_stop = told_to_stop
        self._clock = clock
        self._sleep = sleep
        self._waiting_since: float | None = None
        self._moved = float("-inf")

    def passed(self, gate: Gate, detail: str) -> None:
        """Tell which gate was passed.

        Raises:
            Unavailable: It is to end, and nothing has been changed yet.
        """
        self.tell(
            {"event": "gate", "gate": gate.label, "gate_number": gate.number, "detail": detail}
        )
        if gate.number < Gate.INSTALL.number:
            self._check_stop()

    def fetching(self, received: int, total: int, source: str) -> None:
        """Tell how much has arrived, now and then.

        Raises:
            Unavailable: It is to end.
        """
        told = {"event": "fetching", "received": received, "total": total, "source": source}
        self._moving(told)

    def hashing(self, done: int, total: int) -> None:
        """Tell how much has been hashed, now and then.

        Raises:
            Unavailable: It is to end.
        """
        self._moving({"event": "hashing", "done": done, "total": total})

    def keep_waiting(self, holder: str) -> bool:
        """Wait a moment for another updater: somebody may be at the device. Not for ever."""
        now = self._clock()
        if self._waiting_since is None:
            self._waiting_since = now
            self.tell({"event": "waiting", "holder": holder})
        if self._told_to_stop() or now - self._waiting_since >= LOCK_PATIENCE:
            return False
        self._sleep(LOCK_POLL)
        return True

    def _moving(self, event: Event) -> None:
        self._check_stop()
        now = self._clock()
        if now - self._moved >= self.heartbeat:
            self._moved = now
            self.tell(event)

    def _check_stop(self) -> None:
        if self._told_to_stop():
            raise Unavailable("it was told to stop", "what has arrived is kept for the next check")


def run(job: Job, watch: Watch) -> dict[str, Any]:
    """Make one check; return how it ended, as `modelward update --json` prints it.

    If everything is to be read again, return what was found: see `modelward.daemon.verify`.
    """
    try:
        config = job.config
        watch.heartbeat = min(HEARTBEAT, config.run.stuck / 4)
        if job.verify:
            return _verify(config, watch, may_mend=job.mend)
        if job.mend:
            mend(config, watch, watch.tell)
        if _nothing_new(config):
            return {"outcome": "unchanged", "exit_code": 0, "changes": [], "fetched": 0}
        return _update(config, watch, only_check=job.only_check)
    except ModelwardError as error:
        return error.to_dict()
    except OSError as error:
        return ModelwardError(str(error), "check permissions and free space").to_dict()


def _verify(config: Config, watch: Watch, *, may_mend: bool) -> dict[str, Any]:
    from modelward.daemon import verify  # noqa: PLC0415 - loads all that proves a release

    return verify.verify(config, watch, watch.tell, mend=may_mend)


def _nothing_new(config: Config) -> bool:
    from modelward import fastpath, settings  # noqa: PLC0415 - a check without news needs little

    asked = settings.asked(config.fingerprint, ())

    def fetch_unless(url: str, limit: int, sha256: str) -> bytes | None:
        from modelward.transfer.http import Http  # noqa: PLC0415

        with Http.of(config.transfer) as http:
            return http.fetch_unless(url, limit, sha256)

    return fastpath.nothing_new(config.state, asked, datetime.now(UTC), fetch_unless) is not None


def _update(config: Config, watch: Watch, *, only_check: bool) -> dict[str, Any]:
    from modelward import update  # noqa: PLC0415 - loads TUF's library and more
    from modelward.device import Device  # noqa: PLC0415
    from modelward.install import last  # noqa: PLC0415

    device = Device(config)
    try:
        if only_check:
            _judge_trial(device, watch)
        outcome = update.update(
            device,
            (),
            watch,
            only_check=only_check,
            keep_waiting=watch.keep_waiting,
            windows=config.run.windows,
        )
        result = outcome.to_dict(only_check=only_check)
    except ModelwardError as error:
        result = error.to_dict()
        if isinstance(error, Unavailable):
            result["retry_after"] = error.again
    if not only_check:
        with contextlib.suppress(OSError):  # the note must not hide what it is about
            last.write(config.state, device.clock(), result)
    until = device.trials.until(device.clock())
    return result | {"trial_until": strict.rfc3339(until) if until else None}


def _judge_trial(device: "Device", watch: Watch) -> None:
    """Judge what is on trial outside of maintenance windows, too: going back must not wait."""
    from modelward import activate, report  # noqa: PLC0415
    from modelward.install import fsops  # noqa: PLC0415

    lock = device.config.state / "lock"
    with report.rollbacks(device), fsops.lock(lock, keep_waiting=watch.keep_waiting):
        activate.recover(device, watch)


def main() -> int:
    """Do the job on standard input; end at the next safe point on SIGTERM or when it closes.

    When the daemon dies it ends at once, as by `Worker.kill`: and with it what it had started.
    """
    leash.die_with(os.getppid(), signal.SIGKILL)  # had the daemon died before: input is closed
    told = False

    def note(_number: int, _frame: object) -> None:
        nonlocal told
        told = True

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, note)
    line = sys.stdin.readline()
    if not line:
        return int(ExitCode.ERROR)  # the daemon was gone before it could say what to do
    job = Job.parse(line)
    if job.verify:
        with contextlib.suppress(OSError):  # the hardened unit forbids it: then it only rests
            os.nice(LOW)  # which goes for the disk, too: ioprio_set(2)

    def told_to_stop() -> bool:
        return told or bool(select.select([sys.stdin], [], [], 0)[0])

    result = run(job, Watch(_print, told_to_stop))
    _print({"event": "end", **result})
    return int(result["exit_code"])


def _print(event: Event) -> None:
    try:
        sys.stdout.write(json.dumps(event) + "\n")
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


if __name__ == "__main__":
    sys.exit(main())
