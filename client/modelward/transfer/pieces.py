"""What a blob is cut into to be fetched: pieces, each with its digests where there is an index.

Pieces are made one after the other, as the transfer moves along: a file's size costs no memory.
"""

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from modelward.formats.chunks import MAX_CHUNK, Chunk

PIECE = MAX_CHUNK  # bytes: no larger than a chunk; as many are lost at most, by each connection
HALF = PIECE // 2  # bytes of a piece, so that one is received while another is written


class Extent(NamedTuple):
    """A part of a file, from `start` to `stop`, exclusive.

    Attributes:
        start: Offset in bytes.
        stop: Offset in bytes.
        is_here: Whether its bytes are on disk already, as far as is known.
        chunks: The chunks that it consists of; none without an index.
    """

    start: int
    stop: int
    is_here: bool
    chunks: tuple[Chunk, ...] = ()


def plain(length: int, here: Sequence[tuple[int, int]], most: int = PIECE) -> Iterator[Extent]:
    """Cut a file of which there is no index.

    Args:
        length: Its length.
        here: What is on disk already, as (start, stop), in order and apart.
        most: Bytes of a piece.
    """
    position = 0
    for start, stop in [*here, (length, length)]:
        while position < start:
            end = min(start, (position // most + 1) * most)
            yield Extent(position, end, is_here=False)
            position = end
        while position < stop:  # small enough to be read in one go
            end = min(stop, (position // most + 1) * most)
            yield Extent(position, end, is_here=True)
            position = end


def indexed(
    chunks: Iterable[Chunk], here: Sequence[tuple[int, int]], most: int = PIECE
) -> Iterator[Extent]:
    """Cut a file along its chunks; those next to each other go together, up to `most` bytes."""
    remaining = iter([*here, (1 << 62, 1 << 62)])
    start, stop = next(remaining)
    group: list[Chunk] = []
    group_is_here = False
    for chunk in chunks:
        end = chunk.offset + chunk.length
        while stop < end:
            start, stop = next(remaining)
        is_here = start <= chunk.offset
        if group and (group_is_here != is_here or end - group[0].offset > most):
            yield _extent(group, is_here=group_is_here)
            group = []
        group.append(chunk)
        group_is_here = is_here
    if group:
        yield _extent(group, is_here=group_is_here)


def _extent(group: list[Chunk], *, is_here: bool) -> Extent:
    return Extent(group[0].offset, group[-1].offset + group[-1].length, is_here, tuple(group))


@dataclass(eq=False, slots=True)
class Attempt:
    """One connection's bytes of a piece, so far. A later connection may go on from there.

    Attributes:
        buffer: Where they lie, from its first byte on.
        filled: How many there are.
        givers: The numbers of the sources that gave them.
    """

    buffer: memoryview
    filled: int = 0
    givers: frozenset[int] = frozenset()


@dataclass(eq=False, slots=True)
class Piece:
    """A piece on its way.

    Attributes:
        extent: Which part of the file it is.
        owner: The connection that fetches it; None if nobody does.
        rival: Another one that fetches it too, because the owner is slow.
        data: Its bytes so far, where nobody is at it; all its bytes, once it arrived.
        begun: When its owner began to receive it; 0 if it did not yet.
        alone: Whether it must come from one source as a whole, so that blame is clear.
        arrived: All bytes are here, in memory or on disk, and match its chunks if there are any.
        written: They are on disk.
        hashed: They are part of the file's digest.
    """

    extent: Extent
    owner: int | None = None
    rival: int | None = None
    data: Attempt | None = None
    begun: float = 0.0
    alone: bool = False
    arrived: bool = False
    written: bool = False
    hashed: bool = False

    @property
    def length(self) -> int:
        """Bytes."""
        return self.extent.stop - self.extent.start


def matches(extent: Extent, data: memoryview) -> bool:
    """Tell whether bytes are the chunks that an extent consists of; true without an index."""
    for chunk in extent.chunks:
        at = chunk.offset - extent.start
        if hashlib.sha256(data[at : at + chunk.length]).digest() != chunk.digest:
            return False
    return True
