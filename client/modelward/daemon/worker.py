"""A check in a child process: started, listened to, and ended when it must be."""

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Self

from modelward.daemon.attempt import Event, Job
from modelward.errors import ExitCode, Unavailable

MAX_LINE = 4 << 20  # bytes: a longer line than any event is not believed
MOVED = 1 << 20  # bytes to or from a disk: what the kernel does for a swapped page or two is less
_OURS = ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID")  # not the child's to use


@dataclass
class Worker:
    """A running child.

    Attributes:
        process: It.
        result: How the check ended, once it has said so.
        silent: Whether it has closed its output: nothing more will come from there.
        told: Whether it was asked to end.
        pausing: Whether it was asked to pause, and not yet to go on.
    """

    process: subprocess.Popen[bytes]
    result: dict[str, Any] | None = None
    silent: bool = False
    told: bool = False
    pausing: bool = False
    _moved: int = field(default=0, repr=False)
    _rest: bytes = field(default=b"", repr=False)

    @classmethod
    def start(cls, job: Job) -> Self:
        """Start a check.

        The child leads a process group; what it starts in others, to try a model, ends when it
        does (`modelward.install.leash`, `modelward.install.confine`). Its code is not looked for in
        the working directory (`-P`).
        """
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "modelward.daemon.attempt"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environment(),
            process_group=0,
        )
        worker = cls(process)
        os.set_blocking(worker.output.fileno(), False)
        with contextlib.suppress(BrokenPipeError):  # it died at once; its end will tell
            pipe = _there(process.stdin)
            pipe.write(job.to_line().encode() + b"\n")
            pipe.flush()
        return worker

    @property
    def output(self) -> IO[bytes]:
        """What it writes to: readable when there is an event, or when it has ended."""
        return _there(self.process.stdout)

    def events(self) -> Iterator[Event]:
        """Yield the events that have come; keep the one that says how it ended."""
        while not self.silent:
            try:
                data = os.read(self.output.fileno(), 65_536)
            except BlockingIOError:
                return
            *lines, self._rest = (self._rest + data).split(b"\n")
            for line in lines:
                event = _parse(line)
                if event.get("event") == "end":
                    self.result = event
                elif event:
                    yield event
            if not data or len(self._rest) > MAX_LINE:
                self.silent = True
                return

    def moved(self) -> bool:
        """Tell whether it has moved bytes to or from a disk since this last said so.

        A system call may take hours over one large file, and says nothing until it is done. What
        the kernel does for a process is counted as that process's (proc_pid_io(5)).
        """
        try:
            text = Path(f"/proc/{self.process.pid}/io").read_text("ascii")
        except OSError:  # it has ended, or this kernel does not count
            return False
        counts = dict(line.split(": ") for line in text.splitlines())
        moved = int(counts["read_bytes"]) + int(counts["write_bytes"])
        if moved < self._moved + MOVED:
            return False
        self._moved = moved
        return True

    def ended(self) -> bool:
        """Tell whether it has ended; what it said before can still be read."""
        return self.process.poll() is not None

    def outcome(self) -> dict[str, Any]:
        """Return how it ended: as it said itself or, if it could not, as its exit tells."""
        code = self.process.returncode
        if self.result is not None and self.result.get("exit_code") == code:
            return self.result
        if self.told and code == -signal.SIGTERM:  # before it could say so itself
            return Unavailable("it was told to stop before it had begun").to_dict()
        how = f"by signal {-code}" if code is not None and code < 0 else f"with exit code {code}"
        return {
            "outcome": "error",
            "exit_code": int(ExitCode.ERROR),
            "reason": f"the process that made the check ended {how} and did not say why",
            "advice": "see its messages above; the next check finishes or undoes what it had begun",
        }

    def stop(self) -> None:
        """Ask it to end at the next safe point."""
        self.told = True
        self._send(signal.SIGTERM)

    def pause(self) -> None:
        """Ask it to pause as soon as others may do what it does not: it keeps what it has done."""
        self.pausing = True
        self._send(signal.SIGTSTP)

    def paused(self) -> bool:
        """Tell whether it has paused. SIGCHLD comes when it does."""
        with contextlib.suppress(ChildProcessError):
            how = os.WSTOPPED | os.WNOHANG | os.WNOWAIT
            return os.waitid(os.P_PID, self.process.pid, how) is not None
        return False

    def resume(self) -> None:
        """Have it go on."""
        self.pausing = False
        self._send(signal.SIGCONT)

    def _send(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError):
            self.process.send_signal(number)

    def kill(self) -> None:
        """End it and whatever it started: an update survives that at any moment."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)

    def close(self) -> None:
        """Let go of its pipes."""
        for pipe in (self.process.stdin, self.process.stdout):
            with contextlib.suppress(BrokenPipeError):
                _there(pipe).close()


def environment() -> dict[str, str]:
    """Return the environment of a child: without what systemd said to this process alone."""
    return {name: value for name, value in os.environ.items() if name not in _OURS}


def _parse(line: bytes) -> dict[str, Any]:
    with contextlib.suppress(ValueError, RecursionError):
        event = json.loads(line)
        if isinstance(event, dict):
            return event
    return {}


def _there(pipe: IO[bytes] | None) -> IO[bytes]:
    if pipe is None:
        raise ValueError("the child was started without pipes")
    return pipe
