"""Gate 10: fetch blobs, hashed while they arrive, never a byte more than they should have."""

import hashlib
from collections.abc import Callable, Iterator
from typing import Protocol

from modelward.errors import Gate, Refused, TooLong, Unavailable
from modelward.formats.release import Blob

Progress = Callable[[int], None]  # called with the number of bytes that just arrived


class Stream(Protocol):
    """Streams a document of at most `limit` bytes, block by block."""

    def stream(self, url: str, limit: int) -> Iterator[memoryview]:
        """Yield blocks; see `modelward.transfer.http.Http.stream`."""
        ...


def fetch(
    stream: Stream, url: str, blob: Blob, progress: Progress | None = None
) -> Iterator[memoryview]:
    """Yield a blob's blocks as they arrive. The last check is made after the last block.

    The caller must not use what it wrote unless this ends without an error.

    Raises:
        Refused: The bytes are not the blob (attack row 11).
        Unavailable: The server did not deliver.
    """
    digest = hashlib.sha256()
    received = 0
    try:
        for block in stream.stream(url, blob.length):
            digest.update(block)
            received += len(block)
            if progress:
                progress(len(block))
            yield block
    except TooLong as error:
        raise _wrong(url, f"more than {blob.length} bytes") from error
    except Unavailable as error:
        error.gate = error.gate or Gate.FETCH
        error.advice = error.advice or "try again: what arrived whole is kept and not fetched twice"
        raise
    if received != blob.length:
        raise _wrong(url, f"{received} bytes instead of {blob.length}")
    if digest.hexdigest() != blob.sha256:
        raise _wrong(url, "other content than its name says")


def fetch_small(stream: Stream, url: str, blob: Blob) -> bytes:
    """Return a small blob's bytes, verified.

    Raises:
        Refused: The bytes are not the blob.
        Unavailable: The server did not deliver.
    """
    return b"".join(bytes(block) for block in fetch(stream, url, blob))


def _wrong(url: str, what: str) -> Refused:
    return Refused(
        Gate.FETCH,
        f"{url} delivered {what}",
        "that server is broken or hostile: use another mirror",
    )
