"""Small files, read whole: never waited for, and never without an end.

Where a file is expected, somebody may have put a pipe, which nobody ever writes to, or `/dev/zero`.
"""

import errno
import os
import stat
from pathlib import Path

_BLOCK = 1 << 16  # bytes


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
        OSError: It is something else.
    """
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        raise OSError(errno.EINVAL, "is not a regular file")


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
