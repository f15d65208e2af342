"""A blob from a server that knows no ranges: all of it in one answer, from its first byte.

For every part such a server would send all that comes before it, too. So it is asked once, for the
whole file, and what is on disk already is passed over in what it sends, rather than asked around.
"""

import hashlib
from collections.abc import Callable

from modelward.errors import Unavailable
from modelward.formats.release import Blob
from modelward.transfer import pieces
from modelward.transfer.pieces import PIECE
from modelward.transfer.shelf import Partial
from modelward.transfer.sources import Reader, Source, Sources, Standing


def bring(  # noqa: PLR0913, PLR0917 - see `modelward.transfer.fetch.fetch_blob`
    sources: Sources,
    standing: Standing,
    blob: Blob,
    partial: Partial,
    progress: Callable[[int], None],
    go_on: Callable[[], None],
) -> bool:
    """Bring a blob whole, and tell whether it is the blob.

    All of it is hashed as it comes from this one source; what is on disk is kept where it is the
    same. So if it is not the blob, it is clear who lies.

    Args:
        sources: All sources.
        standing: The one to bring it from.
        blob: What.
        partial: Where to.
        progress: Told of all bytes as they arrive, needed or not.
        go_on: Called for every piece, and while the source is waited for; may raise to stop. What
            arrived is kept.

    Raises:
        Refused: The source is provably wrong about the blob's length.
        Unavailable: It did not deliver.
        OSError: It cannot be written.
    """
    patience, failures = sources.patience, 0
    while True:
        began = sources.clock()
        try:
            is_it = _bring(standing.source, blob, partial, progress, go_on)
        except Unavailable as error:
            sources.failed(standing, error)
            failures += 1
            if error.again is None or failures >= patience.tries or sources.is_out(standing):
                raise
            sources.pause(patience.before_try(failures, error.again), go_on)
        else:
            sources.delivered(standing, blob.length, sources.clock() - began)
            return is_it


def _bring(
    source: Source,
    blob: Blob,
    partial: Partial,
    progress: Callable[[int], None],
    go_on: Callable[[], None],
) -> bool:
    digest = hashlib.sha256()
    coming, kept = partial.buffers(2, PIECE)
    reader = source.open(blob, 0, blob.length)
    try:
        for start, stop, is_here, _ in pieces.plain(blob.length, partial.extents):
            go_on()
            view = partial.place(coming, start, stop - start)
            _fill(view, reader, source.name, progress)
            digest.update(view)
            there = partial.place(kept, start, stop - start)
            if not is_here or not partial.read(start, there) or there != view:
                partial.write(start, view)
    finally:
        reader.close()
    return digest.hexdigest() == blob.sha256


def _fill(view: memoryview, reader: Reader, name: str, progress: Callable[[int], None]) -> None:
    filled = 0
    while filled < len(view):
        count = reader.readinto(view[filled:])
        if not count:
            raise Unavailable(f"{name} ended early")
        filled += count
        progress(count)
