r"""A chunk index: what a file consists of, piece by piece, so that a piece can be had alone.

It saves bytes and finds the source that lies; it is never what a file is verified by. Only the
release's role vouches for it, so the whole file's SHA-256 is always computed as well.

Binary, one spelling for every index, all integers big-endian::

    "modelward/chunks/1\n"   19 bytes
    length of the file        8
    SHA-256 of the file      32
    number of chunks          4
    for each chunk, in order:
      length                  4, from 1 to 1 MiB
      SHA-256                32
"""

import struct
from array import array
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

from modelward.errors import FormatError

DOCUMENT = "chunk index"
SCHEMA = b"modelward/chunks/1\n"
CAP = 4 << 20  # bytes: more than 100,000 chunks
MAX_CHUNK = 1 << 20  # bytes: the most that a lying source can waste
_HEAD = struct.Struct(">19sQ32sI")
_ENTRY = struct.Struct(">I32s")
MAX_CHUNKS = (CAP - _HEAD.size) // _ENTRY.size


class Chunk(NamedTuple):
    """One piece of a file.

    Attributes:
        offset: Where it begins, in bytes.
        length: Bytes.
        digest: Its SHA-256, 32 bytes.
    """

    offset: int
    length: int
    digest: bytes


@dataclass(frozen=True)
class ChunkIndex:
    """What a file consists of. Chunks are taken out of the table when asked for: it may be long.

    Attributes:
        sha256: Digest of the whole file, 64 hex digits.
        length: Bytes of the whole file.
        table: The entries, as the document has them.
    """

    sha256: str
    length: int
    table: bytes

    @classmethod
    def of(cls, sha256: str, length: int, pieces: Iterable[tuple[int, bytes]]) -> "ChunkIndex":
        """Return the index of a file.

        Args:
            sha256: The file's digest.
            length: The file's length.
            pieces: Length and digest of each chunk, in order.

        Raises:
            FormatError: The pieces do not make up the file, or are too many.
        """
        table = b"".join(_ENTRY.pack(*piece) for piece in pieces)
        return cls.parse(cls(sha256, length, table).to_bytes())

    @classmethod
    def parse(cls, data: bytes) -> "ChunkIndex":
        """Parse a chunk index.

        Raises:
            FormatError: The document breaks the format.
        """
        if len(data) > CAP:
            raise _wrong("", f"{len(data)} bytes long, at most {CAP} are allowed")
        if len(data) < _HEAD.size:
            raise _wrong("", "is cut short")
        schema, length, digest, count = _HEAD.unpack_from(data)
        if schema != SCHEMA:
            raise _wrong("schema", "is not that of a chunk index")
        table = data[_HEAD.size :]
        if len(table) != count * _ENTRY.size:
            raise _wrong("chunks", f"must be {count} of {_ENTRY.size} bytes, not {len(table)}")
        total = 0
        for place, (size, _) in enumerate(_ENTRY.iter_unpack(table)):
            if not 0 < size <= MAX_CHUNK:
                raise _wrong(
                    f"chunks[{place}].length", f"must be from 1 to {MAX_CHUNK}, not {size}"
                )
            total += size
        if total != length:
            raise _wrong("length", f"is {length}, but the chunks have {total} bytes")
        return cls(digest.hex(), length, table)

    def to_bytes(self) -> bytes:
        """Return the document."""
        return _HEAD.pack(SCHEMA, self.length, bytes.fromhex(self.sha256), len(self)) + self.table

    def __len__(self) -> int:
        return len(self.table) // _ENTRY.size

    def __getitem__(self, place: int) -> Chunk:
        if not 0 <= place < len(self):
            raise IndexError(place)
        length, digest = _ENTRY.unpack_from(self.table, place * _ENTRY.size)
        return Chunk(self._offsets[place], length, digest)

    def __iter__(self) -> Iterator[Chunk]:
        offset = 0
        for length, digest in _ENTRY.iter_unpack(self.table):
            yield Chunk(offset, length, digest)
            offset += length

    @cached_property
    def _offsets(self) -> "array[int]":
        return array("Q", (chunk.offset for chunk in self))


def _wrong(field: str, problem: str) -> FormatError:
    return FormatError(DOCUMENT, field, problem)
