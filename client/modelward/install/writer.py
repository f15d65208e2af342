"""Bulk bytes to disk: any part of a preallocated file, past the page cache where that works.

Writing through the page cache is the slowest part of a transfer on a small machine. So data lies in
page-aligned memory and is written with O_DIRECT; heads and tails that do not fill a page, and file
systems that cannot do it, go through the cache, a bounded piece at a time.
"""

import errno
import mmap
import os
from pathlib import Path

from modelward.install import syscalls

PAGE = mmap.PAGESIZE
WRITE = 256 << 10  # bytes per write to the page cache
_UNABLE = (errno.EINVAL, errno.ENOTSUP, errno.ENOSYS, errno.EPERM)  # of a file system that cannot


def buffers(count: int, size: int) -> list[memoryview]:
    """Return page-aligned buffers, each with room for `size` bytes at any offset in a page."""
    each = -(-size // PAGE) * PAGE + PAGE
    memory = memoryview(mmap.mmap(-1, count * each))
    return [memory[place : place + each] for place in range(0, count * each, each)]


def place(buffer: memoryview, offset: int, length: int) -> memoryview:
    """Return where in a buffer bytes have to lie that are written at `offset`, to be fast."""
    start = offset % PAGE
    return buffer[start : start + length]


class Writer:
    """Writes one file of known length, anywhere in it and in any order.

    Args:
        path: The file; made if it is not there, else kept as it is.
        length: Bytes it will have. They are reserved where the file system can.
        direct: Whether to try to go past the page cache.

    Raises:
        OSError: There is no room for it, or it cannot be opened.
    """

    def __init__(self, path: Path, length: int, *, direct: bool = True) -> None:
        if path.is_file() and not path.is_symlink():
            self._file = syscalls.reopen(path)
        else:
            self._file = syscalls.create(path, 0o600)
        self._direct = self._read = -1
        try:
            self._read = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
            if direct:
                self._direct = _open_direct(path)
            status = os.fstat(self._file)
            # In memory, to reserve is to fill with zeros: as long as writing, and for nothing.
            on_disk = os.major(status.st_dev) != 0
            if on_disk and length and status.st_size != length:
                _reserve(self._file, length)
            syscalls.truncate(self._file, length)
        except BaseException:
            self.close()
            raise

    @property
    def is_direct(self) -> bool:
        """Whether writes go past the page cache."""
        return self._direct >= 0

    def write(self, offset: int, data: memoryview) -> None:
        """Write bytes at an offset; fast if `place` said where they are to lie in memory."""
        head = min(-offset % PAGE, len(data))
        body = (len(data) - head) // PAGE * PAGE if self.is_direct else 0
        if body:
            self._write_direct(offset + head, data[head : head + body])
        self._write_cached(offset, data[:head])
        self._write_cached(offset + head + body, data[head + body :])

    def read(self, offset: int, buffer: memoryview) -> None:
        """Fill a buffer from an offset.

        Raises:
            OSError: It cannot be read, or the file is shorter.
        """
        while buffer:
            count = os.preadv(self._read, [buffer], offset)
            if not count:
                raise OSError(errno.EIO, "the file is shorter than it was")
            offset, buffer = offset + count, buffer[count:]

    def sync(self) -> None:
        """Make what was written durable."""
        syscalls.sync(self._file)

    def close(self) -> None:
        """Close the file."""
        for descriptor in (self._file, self._direct, self._read):
            if descriptor >= 0:
                os.close(descriptor)
        self._file = self._direct = self._read = -1

    def _write_direct(self, offset: int, data: memoryview) -> None:
        while data:
            try:
                count = syscalls.write_at(self._direct, data, offset)
            except OSError as error:
                if error.errno not in _UNABLE:
                    raise
                count = -1
            if count <= 0 or count % PAGE:
                # It opens with O_DIRECT, yet cannot; or wants larger pages than these.
                os.close(self._direct)
                self._direct = -1
                self._write_cached(offset, data)
                return
            offset, data = offset + count, data[count:]

    def _write_cached(self, offset: int, data: memoryview) -> None:
        while data:
            count = syscalls.write_at(self._file, data[:WRITE], offset)
            offset, data = offset + count, data[count:]


def _open_direct(path: Path) -> int:
    try:
        return syscalls.open_direct(path)
    except OSError as error:
        if error.errno not in _UNABLE:
            raise
        return -1


def _reserve(descriptor: int, length: int) -> None:
    try:
        syscalls.reserve(descriptor, length)
    except OSError as error:
        if error.errno not in _UNABLE:
            raise
