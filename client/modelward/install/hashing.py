"""Hashing open files: as fast as SHA-256 is, and one core each for as many as there are."""

import hashlib
import os
from collections.abc import Callable, Sequence

Progress = Callable[[int, int], object]  # told how many bytes of how many are hashed

READ = 1 << 20  # bytes
_ALONE = 4 << 20  # bytes: less is hashed sooner than a thread is started


def digests(descriptors: Sequence[int]) -> list[str]:
    """Return the SHA-256 digest of each open file, in their order."""
    workers = min(len(descriptors), len(os.sched_getaffinity(0)))
    if workers < 2 or sum(os.fstat(each).st_size for each in descriptors) < _ALONE:  # noqa: PLR2004
        return [sha256_of(each) for each in descriptors]
    from concurrent.futures import ThreadPoolExecutor  # noqa: PLC0415 - loads slowly

    with ThreadPoolExecutor(workers) as pool:
        return list(pool.map(sha256_of, descriptors))


def sha256_of(descriptor: int, progress: Callable[[int], object] | None = None) -> str:
    """Return the digest of an open file from its start to its end.

    Args:
        descriptor: The file.
        progress: Told of bytes as they are hashed.
    """
    digest = hashlib.sha256()
    block = memoryview(bytearray(READ))  # filled again and again: a fresh one costs as much as SHA
    offset = 0
    while count := os.preadv(descriptor, [block], offset):
        digest.update(block[:count])
        offset += count
        if progress:
            progress(count)
    return digest.hexdigest()
