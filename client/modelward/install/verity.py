"""fs-verity: the kernel itself checks a file against a hash tree, at every read, for good.

Where a file system has it (ext4, f2fs, btrfs, with the feature turned on), a file that was enabled
can never be written again, and every block that is read is checked. What remains to be known of
it is one short digest.
"""

import fcntl
import struct
from collections.abc import Callable

_MEASURE = 0xC0046686  # FS_IOC_MEASURE_VERITY
_HEADER = struct.Struct("=HH")  # algorithm, bytes of the digest
_MOST = 64  # bytes of a digest
_ALGORITHMS = {1: "sha256", 2: "sha512"}

Ioctl = Callable[[int, int, bytearray], object]


def measure(descriptor: int, ioctl: Ioctl = fcntl.ioctl) -> str | None:
    """Return the digest by which the kernel checks an open file.

    Args:
        descriptor: The file.
        ioctl: Asks the kernel.

    Returns:
        Algorithm and digest; None if the kernel does not check this file.
    """
    answer = bytearray(_HEADER.pack(0, _MOST) + bytes(_MOST))
    try:
        ioctl(descriptor, _MEASURE, answer)
    except OSError:
        return None  # no such feature in this kernel or file system, or not enabled for the file
    algorithm, size = _HEADER.unpack_from(answer)
    if algorithm not in _ALGORITHMS or not 0 < size <= _MOST:
        return None
    return f"{_ALGORITHMS[algorithm]}:{answer[_HEADER.size : _HEADER.size + size].hex()}"
