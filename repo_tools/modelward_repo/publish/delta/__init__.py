"""Smaller ways to a new file: from one that devices have already, or by compression alone.

`choose` tries what can be tried for a pair of files and says which is smallest; `encode` makes one
patch by one method. What is made here, `modelward.transfer.patch` applies.
"""

import os
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from modelward.transfer.patch import TENSOR_DELTA, ZSTD, ZSTD_PATCH
from modelward.transfer.patch.tensor_delta import memory_needed
from modelward_repo.publish.delta import tensor_delta, whole
from modelward_repo.publish.delta.files import File, opened

Progress = Callable[[int], None]  # called with the number of bytes of the new file just coded

MARGIN = 0.10  # of the smallest way without a base: what a patch must save to be published
WHOLE_MARGIN = 0.02  # of the file: what compression alone must save
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


@dataclass(frozen=True)
class Choice:
    """What was tried for a pair of files.

    Attributes:
        patch: The patch from the base that is worth publishing, or None.
        whole: The file compressed without a base, if that is worth publishing, or None.
        tried: All that was made.
    """

    patch: Candidate | None
    whole: Candidate | None
    tried: tuple[Candidate, ...]


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


def choose(  # noqa: PLR0913 - two files, a place, what a device can do
    base: Path | None,
    target: Path,
    folder: Path,
    *,
    memory_cap: int = MEMORY_CAP,
    ranges: int | None = None,
    threads: int | None = None,
    progress: Progress | None = None,
) -> Choice:
    """Try the ways to a new file and say which are worth publishing.

    Args:
        base: A file that devices have; None to try only what needs none.
        target: The new file.
        folder: An existing directory for what is made; the caller empties it.
        memory_cap: Bytes of memory that devices allow; what needs more is not tried.
        ranges: Bytes of the chunks that differ from the base's, if a chunk index tells.
        threads: How many threads compress; by default one a processor.
        progress: Told how far it is; what is tried counts once each.

    Raises:
        OSError: A file could not be read or written.
    """
    length = target.stat().st_size
    tried = []
    for number, (method, old) in enumerate(_ways(base, target, memory_cap)):
        path = folder / f"{number}.patch"
        try:
            tried.append(encode(method, old, target, path, threads=threads, progress=progress))
        except ValueError:  # too many parts for a head: not this way
            path.unlink(missing_ok=True)
    fitting = [candidate for candidate in tried if candidate.memory <= memory_cap]
    alone = _smallest(candidate for candidate in fitting if not candidate.uses_base)
    if alone and alone.length > length * (1 - WHOLE_MARGIN):
        alone = None
    best = _smallest(candidate for candidate in fitting if candidate.uses_base)
    without = alone.length if alone else length
    if best and (
        best.length > without * (1 - MARGIN) or best.length >= (ranges or best.length + 1)
    ):
        best = None
    return Choice(best, alone, tuple(tried))


def _ways(base: Path | None, target: Path, memory_cap: int) -> Iterable[tuple[str, Path | None]]:
    yield TENSOR_DELTA, None
    yield ZSTD, None
    if base is not None:
        yield TENSOR_DELTA, base
        # The base and a window over both must be in memory.
        sizes = base.stat().st_size, target.stat().st_size
        if whole.memory_for_patch(*sizes) <= memory_cap:
            yield ZSTD_PATCH, base


def _smallest(candidates: Iterable[Candidate]) -> Candidate | None:
    return min(candidates, key=lambda candidate: candidate.length, default=None)
