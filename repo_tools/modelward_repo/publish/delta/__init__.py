"""Smaller ways to a new file: from one that devices have already, or by compression alone.

`encode` makes one patch by one method; `modelward.transfer.patch` applies it. Which of them are
worth publishing is for `modelward_repo.publish.prepare` to say.
"""

import os
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from modelward.transfer.patch import TENSOR_DELTA, ZSTD, ZSTD_PATCH
from modelward.transfer.patch.tensor_delta import memory_needed
from modelward_repo.publish.delta import tensor_delta, whole
from modelward_repo.publish.delta.files import File, opened

Progress = Callable[[int], None]  # called with the number of bytes of the new file just coded

MEMORY_CAP = 64 << 20  # bytes: what a device allows by default


@dataclass(frozen=True)
class Candidate:
    """A patch that was made.

    Attributes:
        method: How it is applied.
        uses_base: Whether the base is needed.
        path: The patch.
        length: Its bytes.
        memory: Bytes of memory that applying it takes.
    """

    method: str
    uses_base: bool
    path: Path
    length: int
    memory: int


def encode(  # noqa: PLR0913 - two files, a method, a place
    method: str,
    base: Path | None,
    target: Path,
    destination: Path,
    *,
    threads: int | None = None,
    progress: Progress | None = None,
) -> Candidate:
    """Make a patch.

    Args:
        method: One of `modelward.transfer.patch.METHODS`.
        base: The file that devices have; None for a patch that needs none.
        target: The new file.
        destination: Where to write the patch.
        threads: How many threads compress; by default one a processor.
        progress: Told how far it is.

    Raises:
        ValueError: The method does not go with what was given, or cannot code these files.
        OSError: A file could not be read or written.
    """
    if (method == ZSTD and base) or (method == ZSTD_PATCH and not base):
        raise ValueError(f"{method} {'takes no' if base else 'needs a'} base")
    threads = threads or os.cpu_count() or 1
    with ExitStack() as stack:
        old: File | None = stack.enter_context(opened(base)) if base else None
        new = stack.enter_context(opened(target))
        out = stack.enter_context(destination.open("wb"))
        if method == TENSOR_DELTA:
            memory = memory_needed(tensor_delta.encode(old, new, out, threads, progress))
        elif method in (ZSTD, ZSTD_PATCH):
            memory = whole.encode(old, new, out, threads, progress)
        else:
            raise ValueError(f"there is no method {method!r}")
        length = out.tell()
    return Candidate(method, base is not None, destination, length, memory)
