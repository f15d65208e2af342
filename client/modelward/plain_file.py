"""Small files, read whole: never waited for, and never without an end.

Where a file is expected, somebody may have put a pipe, which nobody ever writes to, or `/dev/zero`.
A stranger's stick may have a device whose opening alone does harm: a watchdog begins to count.
"""

import errno
import os
import stat
from pathlib import Path

_BLOCK = 1 << 16  # bytes
_FLAGS = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC


class NotRegularError(OSError):
    """What is there is not a regular file."""


def read(path: Path, cap: int, *, piped: bool = False) -> bytes:
    """Return a small file's content. Links are followed: it is where one was told to look.

    Args:
        path: The file.
        cap: Bytes that it may have.
        piped: Whether it may as well be a pipe, whose writer is waited for: a person named it.

    Raises:
        OSError: It cannot be opened, is something else, or is longer.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | (0 if piped else os.O_NONBLOCK))
    try:
        if not piped:
            check(descriptor)
        return content(descriptor, cap)
    except OSError as error:
        error.filename = str(path)
        raise
    finally:
        os.close(descriptor)


def check(descriptor: int) -> None:
    """Require that a regular file was opened.

    Raises:
        NotRegularError: It is something else.
    """
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        raise NotRegularError(errno.EINVAL, "is not a regular file")


def open_of_stranger(name: str, folder: int) -> int:
    """Open a file that a stranger may have put there, and nothing but a regular file: no device.

    Args:
        name: Its name. A link is not followed.
        folder: The open folder that it is in.

    Returns:
        A descriptor to read from it.

    Raises:
        NotRegularError: It is something else, a link for example. It was not opened.
        OSError: There is none, or it cannot be opened.
    """
    found = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder)
    try:
        check(found)
        try:
            return os.open(f"/proc/self/fd/{found}", _FLAGS)
        except FileNotFoundError:  # there is no /proc: by name, under which it may be another now
            descriptor = os.open(name, _FLAGS | os.O_NOFOLLOW, dir_fd=folder)
    finally:
        os.close(found)
    try:
        check(descriptor)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def content(descriptor: int, cap: int) -> bytes:
    """Return all of an open file, taking no more memory than it needs: most are small.

    Raises:
        OSError: It cannot be read, or is longer than `cap` bytes.
    """
    data = bytearray()
    while block := os.read(descriptor, min(_BLOCK, cap + 1 - len(data))):
        data += block
        if len(data) > cap:
            raise OSError(errno.EFBIG, f"is longer than {cap} bytes")
    return bytes(data)
