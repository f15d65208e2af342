"""Whether a write to a file leaves a trace: what a file system notes, and what it does not.

A page that is mapped and dirty is written to again without any system call or fault, so nothing
moves. Once its content is on disk the next write to it makes a fault, at which these file systems
note the time. Memory has no disk: tmpfs notes no such write. An overlay notes what the file system
of its upper layer does.
"""

import os

from modelward.install import overlay

# ext2, ext3 and ext4; XFS; btrfs: those that the tests have tried.
_NOTING = (0xEF53, 0x58465342, 0x9123683E)
_STATUS = 256  # bytes: more than the C library's struct statfs has anywhere


def make_writes_show(descriptor: int) -> bool:
    """Let every write to an open file from now on move its ctime.

    Returns:
        Whether that can be had here.
    """
    try:
        os.fsync(descriptor)
        kind = _type_of(descriptor)
        if kind != overlay.MAGIC:
            return kind in _NOTING
        # An overlay may have been told to sync nothing (`volatile`): its layer does.
        upper = overlay.open_upper(descriptor)
        if upper is None:
            return False
        try:
            os.fsync(upper)
            return _type_of(upper) in _NOTING
        finally:
            os.close(upper)
    except OSError:
        return False


def _type_of(descriptor: int) -> int:
    """Return the number that the kernel has for a file system's kind (statfs(2))."""
    import ctypes  # noqa: PLC0415 - seldom needed

    library = ctypes.CDLL(None, use_errno=True)
    call = getattr(library, "fstatfs64", None) or library.fstatfs
    status = ctypes.create_string_buffer(_STATUS)
    if call(descriptor, status):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return ctypes.c_long.from_buffer(status).value  # its first field
