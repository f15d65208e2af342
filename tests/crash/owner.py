"""Acting as the owner of a device's files, without what lets root pass over their modes.

A daemon that is not root's must get over a kill, too: what it has made read-only, it cannot open to
write. Root's other powers stay: to mount, to trace, to become nobody.
"""

import contextlib
import ctypes
import os
from collections.abc import Iterator

OVERRIDES = 1 << 1 | 1 << 2 | 1 << 3  # CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH, CAP_FOWNER
VERSION = 0x20080522  # _LINUX_CAPABILITY_VERSION_3

_libc = ctypes.CDLL(None, use_errno=True)


@contextlib.contextmanager
def as_owner() -> Iterator[None]:
    """Do without them in this thread, and in those that it starts."""
    before = _capabilities()
    _set((before[0] & ~OVERRIDES, *before[1:]))
    try:
        yield
    finally:
        _set(before)


def _capabilities() -> tuple[int, ...]:
    data = (ctypes.c_uint32 * 6)()
    _check(_libc.capget((ctypes.c_uint32 * 2)(VERSION, 0), data))
    return tuple(data)


def _set(sets: tuple[int, ...]) -> None:
    _check(_libc.capset((ctypes.c_uint32 * 2)(VERSION, 0), (ctypes.c_uint32 * 6)(*sets)))


def _check(result: int) -> None:
    if result:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
