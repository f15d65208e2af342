"""Gate 10: bring blobs into the store, hashed while they arrive and cut at their length."""

import hashlib
from collections.abc import Callable, Iterable, Iterator
from typing import Protocol

from modelward.errors import Refused, Unavailable
from modelward.formats.chunks import ChunkIndex
from modelward.formats.release import Blob
from modelward.transfer.sources import Sources, Standing, at_fetch, wrong

BLOCK = 1 << 20  # bytes
Progress = Callable[[int], None]  # called with the number of bytes that just arrived


class Shelf(Protocol):
    """Where blobs are kept; see `modelward.install.store.Store`."""

    def add(self, blob: Blob, blocks: Iterable[memoryview]) -> None:
        """Keep a blob, if `blocks` ends without an error."""
        ...


def fetch_small(sources: Sources, blob: Blob) -> bytes:
    """Return a small blob's bytes, verified.

    Raises:
        Refused: The bytes are not the blob.
        Unavailable: No source delivered.
    """
    return sources.fetch_blob(blob)


def fetch_blob(
    sources: Sources,
    blob: Blob,
    store: Shelf,
    index: ChunkIndex | None = None,  # noqa: ARG001 - in the next commit
    progress: Progress | None = None,
) -> None:
    """Bring one blob into the store. Its whole digest is always verified.

    Args:
        sources: Where from.
        blob: What.
        store: Where to.
        index: Its chunks, in order and without gaps, if there is an index. Only tells which source
            delivered what was wrong; it is never believed.
        progress: Told of bytes as they arrive.

    Raises:
        Refused: Sources delivered something else, and no other the right bytes (attack row 11).
        Unavailable: No source delivered.
    """
    problem: Unavailable | None = None
    for standing in sources.for_blobs():
        try:
            store.add(blob, _verified(standing, blob, progress or _ignore))
        except Refused as error:
            sources.ban(standing, error)
        except Unavailable as error:
            sources.failed(standing)
            problem = problem or at_fetch(error)
        else:
            return
    raise problem or sources.nobody_left()


def _verified(standing: Standing, blob: Blob, progress: Progress) -> Iterator[memoryview]:
    digest = hashlib.sha256()
    buffer = memoryview(bytearray(BLOCK))
    reader = standing.source.open(blob, 0, blob.length)
    try:
        while count := reader.readinto(buffer):
            digest.update(buffer[:count])
            progress(count)
            yield buffer[:count]
    finally:
        reader.close()
    if digest.hexdigest() != blob.sha256:
        raise wrong(standing.source.name, "other content than its name says")


def _ignore(_count: int) -> None:
    pass
