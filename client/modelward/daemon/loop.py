"""The resident process: waits, has checks made, obeys signals, tells systemd and the log.

One thread and one place where it waits, `_turn`. A sign of life is given there and nowhere else:
a loop that is stuck gives none, and systemd starts the daemon anew.
"""

import random
import signal
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from modelward import config as configuration
from modelward.daemon import words
from modelward.daemon.attempt import Job
from modelward.daemon.log import Level, Log
from modelward.daemon.notify import Notifier
from modelward.daemon.schedule import Schedule
from modelward.daemon.serving import Serving
from modelward.daemon.signals import Signals
from modelward.daemon.worker import Worker
from modelward.errors import Busy, ExitCode, ModelwardError, Unavailable
from modelward.install import fsops, scanned
from modelward.install.boot import boot_id

LOCK = "run.lock"
SLICE = 60.0  # most seconds of one wait: clocks are set, machines wake up
GRACE = 60.0  # seconds that a check has to end at a safe point, and then to die
SERVE_AGAIN = 30.0  # seconds before serving neighbours is tried again
TICK = 1.0  # seconds: the end of a trial is noted to the second
LOCK_POLL = 0.5  # seconds between two looks at another daemon's lock


def since_boot() -> float:
    """Return seconds that no one can set, and that run on while the machine is suspended."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


@dataclass
class Daemon:
    """Checks for updates until it is told to stop.

    Attributes:
        state: The state directory.
        load: Reads the settings, merged from file, environment and flags.
        log: What it says.
        notifier: Whom it tells how things are.
        start: Starts a check.
        clock: Seconds since boot.
        now: Returns local time.
        chance: Returns random numbers from 0 to 1.
        grace: Seconds that a check has to end when it is told to.
    """

    state: Path
    load: Callable[[], Mapping[str, Any]]
    log: Log
    notifier: Notifier
    start: Callable[[Job], Worker] = Worker.start
    clock: Callable[[], float] = since_boot
    now: Callable[[], datetime] = lambda: datetime.now().astimezone()
    chance: Callable[[], float] = random.random
    grace: float = GRACE
    _signals: Signals = field(default_factory=Signals)
    _settings: Mapping[str, Any] = field(init=False)
    _schedule: Schedule = field(init=False)
    _stopping: bool = False
    _due: float = 0.0  # when the next check is, in seconds since boot
    _over: bool = False  # the last check went well and left a trial whose time is over
    _wanted: bool = False  # somebody asked for a check now
    _running: bool = False  # as the one daemon of this device
    _serving: Serving | None = None
    _serve_at: float = 0.0  # when it may be started again
    _alive: bool = True  # False once something hangs that only a restart may mend
    _mends: int = 0  # checks in a row that did
    _mend_at: float = 0.0  # when one may again, in seconds since boot
    _verified: float = float("-inf")  # when everything was read last, in seconds since boot

    def run(self, *, wait: bool = False) -> ExitCode:
        """Run until SIGTERM or SIGINT.

        Args:
            wait: Wait for another daemon on the same state directory to end.

        Raises:
            UsageError: The configuration makes no sense.
            Unavailable: Another daemon runs.
        """
        with self._signals:
            self._read_settings()
            waiting = self._wait_for_other if wait else fsops.never
            try:
                with fsops.lock(self.state / LOCK, "runs as this device's daemon", waiting):
                    self._run()
            except Busy as error:
                if not self._stopping:
                    error.gate = None  # no update has begun
                    error.advice = "stop that one, or wait for it to end with --wait"
                    raise
        return ExitCode.DONE

    def once(self) -> ExitCode:
        """Make the check that would be made now, and end.

        Raises:
            UsageError: The configuration makes no sense.
        """
        with self._signals:
            self._read_settings()
            code = ExitCode(self._check()["exit_code"])
            found = self._verify_if_due()
            return code or found

    def _run(self) -> None:
        self._running = True
        self.notifier.ready()
        self.log(Level.NOTICE, "started", f"watches over {self.state}")
        # What is on trial after a start of the device is judged at once, and goes back if it must.
        first = 0.0 if self._is_on_trial() else self._schedule.first(self.chance())
        self._due = self.clock() + first
        try:
            while not self._stopping:
                self._idle()
                if not self._stopping:
                    self._check_and_plan()
                    self._verify_if_due()
        finally:
            self.notifier.stopping()
            self._stop_serving()
        self.log(Level.NOTICE, "stopped", "stopped; what is installed stays as it is")

    def _is_on_trial(self) -> bool:
        from modelward.install.journal import JournalStore  # noqa: PLC0415 - once in a lifetime

        try:
            return JournalStore(self.state).load().trial is not None
        except Unavailable:  # which the first check tells of
            return True

    def _idle(self) -> None:
        """Wait until a check is due or wanted."""
        at = self.now() + timedelta(seconds=max(0.0, self._due - self.clock()))
        self.notifier.status(f"next check at {at:%H:%M:%S}")
        while not self._stopping and not self._is_due():
            self._turn(self._due - self.clock())

    def _is_due(self) -> bool:
        return self._wanted or self._due <= self.clock()

    def _check_and_plan(self) -> None:
        """Have a check made; say when the next one is."""
        self._wanted = False
        pause = self._pause_after(self._check())
        self._due = self.clock() + pause

    def _check(self) -> Mapping[str, Any]:
        """Have a check made; return how it ended."""
        only_check = not self._schedule.may_change(self.now())
        self.notifier.status("checking" + (" only: no maintenance window" if only_check else ""))
        may_mend = self.clock() >= self._mend_at
        result, mended = self._attended(Job(self.state, self._settings, only_check, may_mend))
        self._tell_result(result, only_check=only_check)
        if may_mend:
            self._note_mending(mended=mended)
        return result

    def _verify_if_due(self) -> ExitCode:
        """Have everything read again, if it was not for long; return how that ended.

        After a check, and never instead of one: an update may be what a device needs most. A check
        that falls due meanwhile has it paused.
        """
        every, now = self._schedule.settings.verify, self.clock()
        known = min(now - self._verified, scanned.age(self.state, boot_id(), now))
        if every is None or known < every or self._stopping:
            return ExitCode.DONE
        self.notifier.status("verifying what is kept")
        may_mend = now >= self._mend_at
        result, mended = self._attended(Job(self.state, self._settings, mend=may_mend, verify=True))
        level, message = words.of_verified(result)
        self.log(level, "verified", message, **_fields(result))
        if mended:
            self._note_mending(mended=mended)
        code = ExitCode(result["exit_code"])
        if code is not ExitCode.UNAVAILABLE:  # even if it could not be noted
            self._verified = now
        return code

    def _note_mending(self, *, mended: bool) -> None:
        """Let each check in a row that mends be followed by twice as long a pause without.

        However it ended: a disk may go on damaging what was mended.
        """
        self._mends = self._mends + 1 if mended else 0
        if self._mends:
            pause = replace(self._schedule, failures=self._mends).delay(self.chance())
            self._mend_at = self.clock() + pause

    def _attended(self, job: Job) -> tuple[Mapping[str, Any], bool]:
        """Have a job done; return how it ended, and whether it mended what is damaged, or tried."""
        try:
            worker = self.start(job)
        except OSError as error:  # no memory or no process to be had: not for ever, it is hoped
            reason = f"the check could not be started: {error.strerror}"
            return Unavailable(reason, "see what takes this device's memory").to_dict(), False
        mended = self._attend(worker, yields=job.verify and self._running)
        worker.close()
        return worker.outcome(), mended

    def _pause_after(self, result: Mapping[str, Any]) -> float:
        """Return the seconds from the end of a check to the next one."""
        done = result["exit_code"] == ExitCode.DONE
        later = _number(result.get("opens_in"))  # nothing failed: it is not time to fetch
        fine = done or later is not None
        self._schedule = self._schedule.succeeded() if fine else self._schedule.failed()
        wait = self._schedule.delay(self.chance(), _number(result.get("retry_after")))
        if result["outcome"] == "available":  # and the window was shut
            opening = self._schedule.opening(self.now(), self.chance())
            wait = wait if opening is None else min(wait, opening)
        if later is not None:
            wait = min(wait, later + self._schedule.settings.jitter * self.chance())
        until = result.get("trial_until")
        left = (datetime.fromisoformat(until) - self.now()).total_seconds() if until else 0.0
        over = until is not None and left <= 0 and done
        # The check after its time is over confirms it. If that one did not, it waits to be mended.
        if left > 0 or (over and not self._over):
            wait = min(wait, max(left, 0.0) + TICK)
        self._over = over
        return wait

    def _attend(self, worker: Worker, *, yields: bool) -> bool:
        """Listen to a job until it ends; end it if it must be; return whether it mends.

        Args:
            worker: Does the job.
            yields: Pause it for each check that falls due meanwhile.
        """
        heard = time.monotonic()  # which, unlike the clock, stands still while suspended
        told: float | None = None
        killed: float | None = None
        mended = False
        while not worker.ended():
            may_pause = yields and told is None and not worker.pausing
            self._turn(self._due - self.clock() if may_pause else SLICE, worker)
            now = time.monotonic()
            if worker.moved():
                heard = now
            for event in worker.events():
                heard = now
                mended |= event.get("event") == "repairing"
                self._tell_event(event)
            stuck = now - heard > self._schedule.settings.stuck
            if told is None and (stuck or self._stopping):
                if stuck:
                    self.log(
                        Level.ERROR,
                        "stuck",
                        f"the check has not moved for {now - heard:.0f} seconds: ending it",
                    )
                told = now
                worker.stop()
            elif told is not None and killed is None and now - told > self.grace:
                killed = now
                worker.kill()
            elif killed is not None and now - killed > self.grace and self._alive:
                self._alive = False
                self.log(Level.ERROR, "stuck", "the check cannot even be killed: is the disk dead?")
            elif told is None and yields and self._is_due() and self._has_paused(worker):
                self._check_and_plan()
                worker.resume()
                heard = time.monotonic()
        for event in worker.events():
            mended |= event.get("event") == "repairing"
            self._tell_event(event)
        return mended

    def _has_paused(self, worker: Worker) -> bool:
        """Tell whether a job has paused; ask it to, if it was not asked before."""
        if not worker.pausing:
            worker.pause()
        return worker.paused()

    def _keep_serving(self) -> None:
        """See to it that neighbours are served, if they are to be."""
        code = self._serving.ended() if self._serving is not None else None
        if code is not None:
            self._serving = None
            self._serve_at = self.clock() + SERVE_AGAIN
            self.log(Level.ERROR, "serve", f"serving neighbours ended with exit code {code}")
        wanted = self._schedule.settings.serve and not self._stopping
        if wanted and self._serving is None and self.clock() >= self._serve_at:
            try:
                self._serving = Serving.start(Job(self.state, self._settings))
                self.log(Level.INFO, "serve", "serves neighbours")
            except OSError as error:  # no memory or no process to be had, for now
                self._serve_at = self.clock() + SERVE_AGAIN
                reason = f"serving neighbours could not be started: {error.strerror}"
                self.log(Level.ERROR, "serve", reason)

    def _stop_serving(self) -> None:
        if self._serving is not None:
            self._serving.stop(self.grace)
            self._serving = None

    def _turn(self, seconds: float, worker: Worker | None = None) -> None:
        """Wait for whatever comes first, and give a sign of life."""
        if self._alive:
            self.notifier.alive()
        if self._running:
            self._keep_serving()
        most = min(seconds, SLICE, (self.notifier.watchdog or SLICE) / 2)
        if worker is not None:
            # Somebody must notice when a check is stuck or will not end.
            most = min(most, self._schedule.settings.stuck, self.grace)
        files = [worker.output] if worker is not None and not worker.silent else []
        for number in self._signals.wait(most, files):
            if number in (signal.SIGTERM, signal.SIGINT):
                self._stopping = True
            elif number == signal.SIGUSR1:
                self._wanted = True
            elif number == signal.SIGHUP:
                self._reload()

    def _read_settings(self) -> None:
        settings = self.load()
        run = configuration.from_settings(self.state, settings).run
        self._settings = settings
        self._schedule = Schedule(run)

    def _reload(self) -> None:
        """Read the configuration again; one that makes no sense changes nothing."""
        self.notifier.reloading()
        failures = self._schedule.failures
        try:
            self._read_settings()
            self._schedule = replace(self._schedule, failures=failures)
            self._stop_serving()  # what is served, and where, may have changed
            # The new settings may want to look elsewhere, or sooner.
            self._due = min(self._due, self.clock() + self._schedule.first(self.chance()))
            self.log(Level.NOTICE, "reloaded", "read the configuration again")
        except ModelwardError as error:
            self.log(
                Level.ERROR,
                "reload-failed",
                f"the configuration was not taken over, the old one still holds: {error.reason}",
            )
        self.notifier.ready()

    def _wait_for_other(self, holder: str) -> bool:
        if not self._wanted:
            self._wanted = True  # say it once; and once it is our turn, check at once
            self.log(
                Level.NOTICE,
                "waiting",
                f"waits for process {holder}, which runs as this device's daemon",
                holder=holder,
            )
            self.notifier.status(f"waiting for process {holder}")
        self._turn(LOCK_POLL)
        return not self._stopping

    def _tell_event(self, event: Mapping[str, Any]) -> None:
        told = words.of_event(event)
        if told is not None:
            level, message = told
            self.notifier.status(message)
            self.log(level, event["event"], message, **_fields(event))

    def _tell_result(self, result: Mapping[str, Any], *, only_check: bool) -> None:
        level, message = words.of_result(result, only_check=only_check)
        self.log(level, "checked", message, **_fields(result))


def _fields(told: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in told.items() if name != "event"}


def _number(value: object) -> float | None:
    return float(value) if isinstance(value, int | float) else None
