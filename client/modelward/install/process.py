"""Runs one process to its end: bounded in time and in what is kept of its output."""

import fcntl
import os
import selectors
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import IO

from modelward.install import leash

BLOCK = 1 << 16  # bytes
NAP = 0.1  # seconds between looks at a process, where the kernel does not say that it ended
LAST_WORDS = 200  # characters of output that an error quotes


@dataclass(frozen=True)
class Ended:
    """How a process ended.

    Attributes:
        code: Its exit status; negative for the signal that killed it, as in `subprocess`.
        output: The beginning of its standard output.
        errors: The beginning of its standard error.
        in_time: Whether it ended by itself.
    """

    code: int
    output: bytes
    errors: bytes
    in_time: bool

    def says(self) -> str:
        """Return how it ended, and the last line that it printed, for people."""
        how = f"exit status {self.code}" if self.code >= 0 else f"killed by {_signal(-self.code)}"
        lines = (self.output + b"\n" + self.errors).decode("utf-8", "replace").split("\n")
        last = next((line.strip() for line in reversed(lines) if line.strip()), "")
        return f"{how}: {last[:LAST_WORDS]}" if last else how


def run_leashed(command: Sequence[str], environment: Mapping[str, str], timeout: float) -> Ended:
    """Run a command as `run` does; it dies, with whatever it started, when this process does, too.

    For one that does not see to that itself.

    Raises:
        OSError: It cannot be started.
    """
    ended = run(leash.arguments(command), environment, timeout)
    number = ended.errors.removeprefix(leash.UNSTARTED).strip()
    if ended.errors.startswith(leash.UNSTARTED) and number.isdigit():
        raise OSError(int(number), os.strerror(int(number)))
    return ended


def run(  # noqa: PLR0913 - what to run, and every bound it runs under
    arguments: Sequence[str],
    environment: Mapping[str, str],
    timeout: float,
    *,
    stdin: bytes = b"",
    keep: int = BLOCK,
    descriptors: Sequence[int] = (),
) -> Ended:
    """Run a process in a session of its own; whatever it started dies with it.

    Args:
        arguments: The program and its arguments.
        environment: Its whole environment.
        timeout: Seconds after which it is killed.
        stdin: What it can read.
        keep: Most bytes to keep of each of its outputs; the rest is read and thrown away.
        descriptors: Open files it is given besides.

    Raises:
        OSError: It cannot be started.
    """
    deadline = time.monotonic() + timeout
    with subprocess.Popen(
        arguments,
        env=environment,
        cwd="/",
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        bufsize=0,
        pass_fds=descriptors,
        start_new_session=True,
    ) as process:
        try:
            kept, in_time = _converse(process, stdin, keep, deadline)
        finally:
            # A process that ended may have left others behind, which hold its pipes open.
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
        return Ended(process.wait(), kept[0], kept[1], in_time)


def _converse(
    process: subprocess.Popen[bytes], stdin: bytes, keep: int, deadline: float
) -> tuple[tuple[bytes, bytes], bool]:
    """Feed and hear a process until it ends, or until the deadline."""
    outputs = (_pipe(process.stdout), _pipe(process.stderr))
    kept: dict[IO[bytes], bytearray] = {pipe: bytearray() for pipe in outputs}
    with selectors.DefaultSelector() as selector:
        for pipe in outputs:
            os.set_blocking(pipe.fileno(), False)
            selector.register(pipe, selectors.EVENT_READ)
        giving = _pipe(process.stdin)
        os.set_blocking(giving.fileno(), False)
        selector.register(giving, selectors.EVENT_WRITE)
        rest = memoryview(stdin)
        while (left := deadline - time.monotonic()) > 0:
            ended = _has_ended(process.pid)  # asked first: what it wrote before is still read
            ready = selector.select(0 if ended else min(left, NAP))
            for pipe in outputs:
                if any(key.fileobj is pipe for key, _ in ready) and not _hear(
                    pipe, kept[pipe], keep
                ):
                    selector.unregister(pipe)
            if ended:  # what it left behind may speak for ever
                return (bytes(kept[outputs[0]]), bytes(kept[outputs[1]])), True
            if any(key.fileobj is giving for key, _ in ready):
                rest = _give(giving, rest)
                if not rest:
                    selector.unregister(giving)
                    giving.close()
    return (bytes(kept[outputs[0]]), bytes(kept[outputs[1]])), False


def _has_ended(pid: int) -> bool:
    """Tell whether a child has ended, but leave it to be waited for: its number stays its own."""
    return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None


def _give(pipe: IO[bytes], rest: memoryview) -> memoryview:
    """Write what a pipe takes now; return what is left, nothing once nobody reads it."""
    try:
        return rest[os.write(pipe.fileno(), rest[:BLOCK]) :]
    except BlockingIOError:
        return rest
    except BrokenPipeError:
        return rest[:0]


def _hear(pipe: IO[bytes], kept: bytearray, keep: int) -> bool:
    """Read what a pipe has now, and keep the first bytes; tell whether more may come."""
    try:
        # All that it holds: where pages are larger than 4 KiB, that is more than `BLOCK`.
        block = os.read(pipe.fileno(), fcntl.fcntl(pipe, fcntl.F_GETPIPE_SZ))
    except BlockingIOError:
        return True
    kept += block[: keep - len(kept)]
    return bool(block)


def _pipe(pipe: IO[bytes] | None) -> IO[bytes]:
    if pipe is None:
        raise ValueError("the process was started without this pipe")
    return pipe


def _signal(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
