"""Files as the encoder reads them: a part at a time, never whole."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

BLOCK = 1 << 20  # bytes


@dataclass(frozen=True)
class File:
    """An open file.

    Attributes:
        descriptor: Open for reading.
        length: Bytes.
    """

    descriptor: int
    length: int

    def read(self, offset: int, length: int) -> bytes:
        """Return so many bytes, or fewer where the file ends."""
        length = min(length, max(0, self.length - offset))
        data = b""
        while len(data) < length:
            more = os.pread(self.descriptor, length - len(data), offset + len(data))
            if not more:
                raise OSError("a file became shorter while it was read")
            data += more
        return data

    def blocks(self, start: int, end: int) -> Iterator[bytes]:
        """Yield a part of the file in blocks of 1 MiB."""
        for offset in range(start, end, BLOCK):
            yield self.read(offset, min(BLOCK, end - offset))


@contextmanager
def opened(path: Path) -> Iterator[File]:
    """Open a file for as long as the context lasts."""
    with path.open("rb", buffering=0) as file:
        yield File(file.fileno(), os.fstat(file.fileno()).st_size)


NOTHING = File(-1, 0)
