"""Reads a file here and there, never outside it and never much of it at once."""

import struct
from collections.abc import Callable
from math import prod

from modelward.errors import FormatError

BLOCK = 1 << 16
MOST = 1 << 23  # bytes of one read: no header may need more
MAX_DIMENSIONS = 64


class Reader:
    """A file's bytes, by offset.

    Args:
        name: What to call the file in errors.
        size: Its length in bytes.
        read_at: Returns that many bytes from an offset, such as `os.pread` of an open file.
    """

    def __init__(self, name: str, size: int, read_at: Callable[[int, int], bytes]) -> None:
        self.name = name
        self.size = size
        self._read_at = read_at
        self._start = 0
        self._block = b""

    def wrong(self, part: str, problem: str) -> FormatError:
        """Return, for the caller to raise, an error about a part of the file."""
        return FormatError(self.name, part, problem)

    def read(self, offset: int, length: int, part: str) -> bytes:
        """Return bytes that the file must have.

        Raises:
            FormatError: They lie outside the file, or are more than any header needs.
        """
        self.inside(offset, length, part)
        if length > MOST:
            raise self.wrong(part, f"is {length} bytes long, at most {MOST} are allowed")
        start = offset - self._start
        if start >= 0 and start + length <= len(self._block):
            return self._block[start : start + length]
        if length > BLOCK // 2:
            return self._exactly(offset, length)
        self._block = self._exactly(offset, min(BLOCK, self.size - offset))
        self._start = offset
        return self._block[:length]

    def window(self, offset: int) -> tuple[bytes, int]:
        """Return the block that is at hand around an offset inside the file, and where it begins.

        It has at least the next 32 bytes, unless the file ends before.
        """
        if not self._start <= offset < self._start + len(self._block) - 32:
            self._block = self._exactly(offset, min(BLOCK, self.size - offset))
            self._start = offset
        return self._block, self._start

    def inside(self, offset: int, length: int, part: str) -> None:
        """Refuse a part that does not lie inside the file."""
        if offset < 0 or length < 0 or offset + length > self.size:
            raise self.wrong(
                part, f"claims bytes {offset} to {offset + length} of a file of {self.size} bytes"
            )

    def number(self, kind: str, offset: int, part: str) -> int:
        """Return an integer.

        Args:
            kind: Its byte order and type, as `struct` writes it, such as ``<Q``.
            offset: Where it is.
            part: What to call it in errors.
        """
        found: int = struct.unpack(kind, self.read(offset, struct.calcsize(kind), part))[0]
        return found

    def _exactly(self, offset: int, length: int) -> bytes:
        data = self._read_at(offset, length)
        if len(data) != length:
            raise self.wrong("", f"ends at byte {offset + len(data)}, not at {self.size}")
        return data


def count_elements(reader: Reader, shape: list[int], part: str) -> int:
    """Return how many elements a tensor of a shape has.

    Raises:
        FormatError: More than the file could hold even of bits, or too many dimensions.
    """
    if len(shape) > MAX_DIMENSIONS:
        raise reader.wrong(part, f"has {len(shape)} dimensions")
    if any(length < 0 for length in shape):
        raise reader.wrong(part, "has a negative dimension")
    # Without this, a product of many large numbers is itself an attack.
    if any(length > reader.size * 8 for length in shape) and 0 not in shape:
        raise reader.wrong(part, "has more elements than the file has bits")
    elements = prod(shape)
    if elements > reader.size * 8:
        raise reader.wrong(part, "has more elements than the file has bits")
    return elements
