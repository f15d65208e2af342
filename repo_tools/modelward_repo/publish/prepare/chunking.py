"""Cutting a file into chunks so that most of them are the same in its next version.

Where tensors are known, chunks begin with them: a tensor that moves stays the same chunks.
Anywhere else boundaries follow the content. Devices need to know neither: they compare digests.
"""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import BinaryIO

from pyfastcdc import FastCDC

from modelward.formats.chunks import MAX_CHUNK, MAX_CHUNKS, ChunkIndex

ALGORITHM = 2  # rises when the same file would be cut differently
LEAST_FILE = 128 << 10  # bytes: below, one request for all is as good
TARGET = 64 << 10  # bytes of a chunk, unless the file is so long that its index would be, too
MOST_TARGET = MAX_CHUNK // 4  # FastCDC's longest chunk is four times its target
ENOUGH = 24 << 10  # chunks, more being made longer instead: neighbours give no index above 1 MiB
SMALL = 4  # parts shorter than this part of the target are joined

Advance = Callable[[int], None]
"""Told how many more bytes are done."""


def index_of(path: Path, starts: Sequence[int], advance: Advance) -> ChunkIndex | None:
    """Return the chunk index of a file; None if it is too short for one, or too long.

    Args:
        path: The file.
        starts: Where its parts begin, in ascending order; none if it has no structure.
        advance: Told how many more bytes are done.
    """
    length = path.stat().st_size
    if length < LEAST_FILE:
        return None
    target = target_for(length)
    whole = hashlib.sha256()
    entries = []
    with path.open("rb", buffering=0) as file:
        pieces = _by_parts(file, starts, length, target) if starts else _by_content(file, target)
        for piece in pieces:
            whole.update(piece)
            entries.append((len(piece), hashlib.sha256(piece).digest()))
            if len(entries) > MAX_CHUNKS:
                return None
            advance(len(piece))
    return ChunkIndex.of(whole.hexdigest(), sum(size for size, _ in entries), entries)


def even_index_of(path: Path) -> ChunkIndex | None:
    """Return the chunk index of a patch; None if it is too short for one, or too long.

    It only tells which source lies: no other file has these chunks, so they are as long as may be.
    """
    length = path.stat().st_size
    if not MAX_CHUNK < length <= MAX_CHUNK * MAX_CHUNKS:
        return None
    whole = hashlib.sha256()
    entries = []
    with path.open("rb", buffering=0) as file:
        for start in range(0, length, MAX_CHUNK):
            piece = _read(file, min(MAX_CHUNK, length - start))
            whole.update(piece)
            entries.append((len(piece), hashlib.sha256(piece).digest()))
    return ChunkIndex.of(whole.hexdigest(), length, entries)


def target_for(length: int) -> int:
    """Return how long the chunks of a file should be."""
    target = TARGET
    while length > target * ENOUGH and target < MOST_TARGET:
        target *= 2
    return target


def _by_content(file: BinaryIO, target: int) -> Iterator[memoryview]:
    for chunk in FastCDC(target).cut_stream(file):
        yield chunk.data


def _by_parts(
    file: BinaryIO, starts: Sequence[int], length: int, target: int
) -> Iterator[memoryview]:
    for size in lengths(starts, length, target):
        yield memoryview(_read(file, size))


def lengths(starts: Sequence[int], length: int, target: int) -> Iterator[int]:
    """Yield the lengths of the chunks of a file whose parts begin at `starts`.

    A long part is cut from its start on; short ones between two long ones are joined.
    """
    small = target // SMALL
    bounds = [0, *(start for start in starts if 0 < start < length), length]
    waiting = 0  # where the short parts begin that are not in a chunk yet
    for start, end in pairwise(bounds):
        if end - start >= small:
            yield from _cut(start - waiting, target)
            yield from _cut(end - start, target)
            waiting = end
        elif end - waiting >= small:
            yield end - waiting
            waiting = end
    yield from _cut(length - waiting, target)


def _cut(length: int, target: int) -> Iterator[int]:
    while length > 0:
        # No crumb at the end: the last but one takes it along.
        size = length if length < target + target // SMALL else target
        yield size
        length -= size


def _read(file: BinaryIO, size: int) -> bytes:
    data = b""
    while len(data) < size:
        more = file.read(size - len(data))
        if not more:
            raise OSError("the file became shorter while it was read")
        data += more
    return data
