"""Where the tensors of a GGUF file begin: a walk over its header that skips what it holds.

https://github.com/ggml-org/ggml/blob/master/docs/gguf.md, versions 2 and 3, little-endian.
"""

import struct
from typing import BinaryIO

_MAGIC = b"GGUF"
_VERSIONS = (2, 3)
_ALIGNMENT_KEY = b"general.alignment"
_ALIGNMENT = 32
_SIZES = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}
_UINT32, _STRING, _ARRAY = 4, 8, 9
_MOST_DIMENSIONS = 8
_MOST_ITEMS = 1 << 24  # values, array elements, tensors: a header that claims more is none
_MOST_NESTING = 4


class _NotGgufError(Exception):
    pass


def starts(file: BinaryIO) -> list[int]:
    """Return where the tensors' data begin, in ascending order; none if it is not a GGUF file.

    Args:
        file: The file.
    """
    try:
        return _Header(file).starts()
    except (_NotGgufError, struct.error, OverflowError):
        return []


class _Header:
    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._items = 0
        self._end = file.seek(0, 2)
        file.seek(0)

    def starts(self) -> list[int]:
        if self._file.read(4) != _MAGIC or self._number("I") not in _VERSIONS:
            raise _NotGgufError
        tensors, values = self._number("Q"), self._number("Q")
        alignment = _ALIGNMENT
        for _ in range(values):
            self._count(1)
            key, kind = self._string(), self._number("I")
            if key == _ALIGNMENT_KEY and kind == _UINT32:
                alignment = self._number("I")
            else:
                self._skip(kind, _MOST_NESTING)
        offsets = []
        for _ in range(tensors):
            self._count(1)
            self._string()
            dimensions = self._number("I")
            if dimensions > _MOST_DIMENSIONS:
                raise _NotGgufError
            self._pass_over(8 * dimensions + 4)  # the shape, the type
            offsets.append(self._number("Q"))
        if alignment <= 0:
            raise _NotGgufError
        data = -(-self._file.tell() // alignment) * alignment
        return sorted({data + offset for offset in offsets})

    def _skip(self, kind: int, nesting: int) -> None:
        """Skip a value."""
        if kind == _STRING:
            self._string()
        elif kind == _ARRAY and nesting:
            inner, count = self._number("I"), self._number("Q")
            if inner in _SIZES:
                self._pass_over(count * _SIZES[inner])
                return
            self._count(count)
            for _ in range(count):
                self._skip(inner, nesting - 1)
        elif kind in _SIZES:
            self._pass_over(_SIZES[kind])
        else:
            raise _NotGgufError

    def _count(self, more: int) -> None:
        self._items += more
        if self._items > _MOST_ITEMS:
            raise _NotGgufError

    def _string(self) -> bytes:
        length = self._number("Q")
        if length > len(_ALIGNMENT_KEY):
            self._pass_over(length)
            return b""
        return self._file.read(length)

    def _pass_over(self, length: int) -> None:
        if length > self._end - self._file.tell():
            raise _NotGgufError
        self._file.seek(length, 1)

    def _number(self, code: str) -> int:
        data = self._file.read(struct.calcsize(code))
        return int(struct.unpack(f"<{code}", data)[0])
