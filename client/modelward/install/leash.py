"""Runs one command that ends, with whatever it started, when whoever asked for it is gone.

A program of its own, started by path: `python -I -S leash.py PID COMMAND...`, the leader of a
session. The kernel tells it when its parent has died (PR_SET_PDEATHSIG), even of SIGKILL; then it
ends its whole process group. A command that leaves that group, by `setsid`, gets away.
"""

import ctypes
import os
import signal
import sys
from collections.abc import Sequence

UNSTARTED = b"modelward-leash: errno "  # on standard error, before the number
_PR_SET_PDEATHSIG = 1
_CANNOT_RUN = 127  # as a shell says it


def die_with(parent: int, number: signal.Signals) -> bool:
    """Have the kernel send this process a signal when its parent dies.

    Args:
        parent: The parent's process id, as it was when it started this process.
        number: The signal.

    Returns:
        Whether the parent is still there: if not, no signal will come.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(
        _PR_SET_PDEATHSIG, *(ctypes.c_ulong(argument) for argument in (number.value, 0, 0, 0))
    )
    return os.getppid() == parent


def arguments(command: Sequence[str]) -> list[str]:
    """Return what to run so that a command ends with this process."""
    return [sys.executable, "-I", "-S", __file__, str(os.getpid()), *command]


def main(parent: str, *command: str) -> int:
    """Run a command; return its exit status, or end by the signal that it ended by."""
    signal.signal(signal.SIGTERM, lambda *_: os.killpg(0, signal.SIGKILL))
    if not die_with(int(parent), signal.SIGTERM):
        return _CANNOT_RUN
    try:
        child = os.posix_spawnp(
            command[0],
            command,
            os.environ,
            setsigdef=(signal.SIGTERM, signal.SIGPIPE, signal.SIGXFSZ),  # as Python found them
        )
    except OSError as error:
        sys.stderr.buffer.write(UNSTARTED + b"%d\n" % (error.errno or 0))
        return _CANNOT_RUN
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if code < 0:
        if -code not in (signal.SIGKILL, signal.SIGSTOP):
            signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    return code


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
