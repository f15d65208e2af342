"""Commands as people run them: at a terminal, answering prompts."""

import contextlib
import fcntl
import os
import pty
import select
import signal
import struct
import sys
import termios
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path


@dataclass
class Session:
    """What happened at a terminal.

    Attributes:
        code: Exit code.
        shown: Everything that was on the screen.
        seen: What any other process could read meanwhile: the command line, the environment.
    """

    code: int = -1
    shown: str = ""
    seen: set[bytes] = field(default_factory=set)


def at_terminal(
    args: Sequence[object], answers: Sequence[str] = (), env: dict[str, str] | None = None
) -> Session:
    """Run a command at a terminal of its own, answering its prompts one after the other."""
    child, terminal = pty.fork()
    if not child:
        command = [sys.executable, "-m", "modelward_repo", *map(str, args)]
        os.execve(sys.executable, command, {**os.environ, **(env or {})})
    session, shown, left = Session(), b"", list(answers)
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        for name in ("cmdline", "environ"):
            with contextlib.suppress(OSError):  # it has just ended
                session.seen.add(Path(f"/proc/{child}/{name}").read_bytes())
        if not select.select([terminal], [], [], 0.05)[0]:
            continue
        try:
            piece = os.read(terminal, 4096)
        except OSError:  # the terminal is gone with its last user
            break
        if not piece:
            break
        shown += piece
        if shown.endswith(b": ") and left:
            os.write(terminal, left.pop(0).encode() + b"\n")
            shown += b"\n"
    _, status = os.waitpid(child, 0)
    os.close(terminal)
    session.code, session.shown = os.waitstatus_to_exitcode(status), shown.decode()
    return session


def converse(
    command: Sequence[str],
    answer: Callable[[str], str | None],
    cwd: Path,
    env: Mapping[str, str],
    patience: float = 60,
) -> Session:
    """Run a program at a terminal of its own, answering whatever it asks.

    Args:
        command: The program and its arguments.
        answer: Told what was shown since the last answer; returns what to type, or None.
        cwd: Where to run it.
        env: Its environment, all of it.
        patience: Seconds after which it is ended.
    """
    child, terminal = pty.fork()
    if not child:
        os.chdir(cwd)
        os.execvpe(command[0], list(command), dict(env))
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 50, 120, 0, 0))
    session, shown, since = Session(), b"", 0
    deadline = time.monotonic() + patience
    while time.monotonic() < deadline:
        if not select.select([terminal], [], [], 0.5)[0]:
            continue
        try:
            piece = os.read(terminal, 65536)
        except OSError:  # the terminal is gone with its last user
            break
        if not piece:
            break
        shown += piece
        typed = answer(shown[since:].decode(errors="replace"))
        if typed is not None:
            os.write(terminal, typed.encode() + b"\n")
            shown += b"\n"
            since = len(shown)
    else:
        os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    os.close(terminal)
    session.code, session.shown = os.waitstatus_to_exitcode(status), shown.decode(errors="replace")
    return session
