"""Noticing that another version of a model has become current: one system call a look.

`current/MODEL` leads through two links to the folder of the files that run. An update, a rollback
and a repair lead it to another folder; nothing else does.
"""

import time
from collections.abc import Callable, Mapping
from pathlib import Path

INTERVAL = 1.0  # seconds between two looks

# File system, inode and last change of the folder that runs, if any does. An inode alone may be
# that of a release which is long gone.
Place = tuple[int, int, int] | None


def place(state: Path, name: str) -> Place:
    """Return which folder runs under a model's name."""
    try:
        status = (state / "current" / name).stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino, status.st_ctime_ns


def wait(
    state: Path,
    seen: Mapping[str, Place],
    timeout: float | None,
    pause: Callable[[float], object] = time.sleep,
) -> bool:
    """Wait until another folder runs than the one that was seen, of any of some models.

    Args:
        state: The state directory.
        seen: What ran before, from `place`, by model.
        timeout: Most seconds to wait; None for as long as it takes.
        pause: Waits so many seconds; one that returns true ends the wait.

    Returns:
        Whether another one runs now.
    """
    until = None if timeout is None else time.monotonic() + timeout
    while all(place(state, name) == before for name, before in seen.items()):
        left = INTERVAL if until is None else min(INTERVAL, until - time.monotonic())
        if left <= 0 or pause(left):
            return False
    return True
