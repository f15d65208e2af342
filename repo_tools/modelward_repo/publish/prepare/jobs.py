"""One piece of work on one file, or on two: done once, kept by the digests of what it was done to.

A job runs in a process of its own where that pays. It makes its result aside, checks it, and lets
it appear in the cache in one rename: killed at any moment, nothing half-done is ever found.
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path

from modelward.errors import Gate, Refused
from modelward.formats.release import Blob
from modelward.transfer import patch
from modelward_repo.publish import delta
from modelward_repo.publish.cache import Cache, Made, index_name
from modelward_repo.publish.delta.files import opened
from modelward_repo.publish.delta.tensors import tensors_of
from modelward_repo.publish.prepare import chunking, gguf
from modelward_repo.publish.prepare.chunking import Advance

READ = 1 << 20


class Kind(StrEnum):
    """What a job makes: the chunk index, or a patch by one of the methods of `delta`."""

    CHUNKS = f"chunks/{chunking.ALGORITHM}"
    TENSOR_DELTA = patch.TENSOR_DELTA
    ZSTD_PATCH = patch.ZSTD_PATCH
    ZSTD = patch.ZSTD


@dataclass(frozen=True)
class Source:
    """A file to work on.

    Attributes:
        path: Where it lies on this machine.
        blob: What it must be.
    """

    path: Path
    blob: Blob


@dataclass(frozen=True)
class Job:
    """What to make of what.

    Attributes:
        kind: What to make.
        target: The new file.
        base: The file that devices have, for a patch that needs one.
        label: What to call the new file, for people.
    """

    kind: Kind
    target: Source
    base: Source | None = None
    label: str = ""

    @property
    def name(self) -> str:
        """What the result is kept under."""
        kind = self.kind.replace("/", "-")
        base = f"{self.base.blob.sha256}." if self.base else ""
        return f"{kind}.{base}{self.target.blob.sha256}"

    @property
    def contents(self) -> frozenset[str]:
        """What all that it makes is kept under: the result, and the result's own chunk index."""
        return frozenset((self.name, index_name(self.name)))

    @property
    def work(self) -> int:
        """Bytes to go through."""
        return self.target.blob.length


def run(job: Job, cache: Cache, threads: int, advance: Advance) -> None:
    """Do a job and keep its result.

    Args:
        job: What to do.
        cache: Where to keep the result.
        threads: How many threads may compress.
        advance: Told how many more bytes of `Job.work` are done.

    Raises:
        Refused: A file is not what it was when it was hashed.
        OSError: A file could not be read or written.
    """
    aside = cache.aside()
    try:
        if job.kind is Kind.CHUNKS:
            made = _index(job.target, aside, advance)
        else:
            made = _patch(job, aside, threads, advance)
            if made.blob is not None:
                made = replace(made, chunks=_keep_index(aside, cache, index_name(job.name)))
        if made.blob is not None:
            aside.replace(cache.content(job.name))
        cache.keep(job.name, made)
    finally:
        aside.unlink(missing_ok=True)


def _index(target: Source, aside: Path, advance: Advance) -> Made:
    with target.path.open("rb") as file:
        starts = gguf.starts(file)
    if not starts:
        with opened(target.path) as seen:
            starts = [tensor.start for tensor in tensors_of(seen)]
    index = chunking.index_of(target.path, starts, advance)
    if index is None:
        return Made(None)
    if (index.sha256, index.length) != (target.blob.sha256, target.blob.length):
        raise _changed(target)
    data = index.to_bytes()
    aside.write_bytes(data)
    return Made(Blob(hashlib.sha256(data).hexdigest(), len(data)))


def _patch(job: Job, aside: Path, threads: int, advance: Advance) -> Made:
    base = job.base.path if job.base else None
    try:
        made = delta.encode(
            job.kind, base, job.target.path, aside, threads=threads, progress=advance
        )
    except ValueError:  # this method cannot code these files
        return Made(None)
    if made.length >= job.target.blob.length or made.memory > delta.MEMORY_CAP:
        return Made(None)
    _check(job, aside, made.memory)
    return Made(_blob(aside), made.memory)


def _keep_index(patch: Path, cache: Cache, name: str) -> Blob | None:
    """Keep a patch's own chunk index, so that devices can tell who lies about a part of it."""
    index = chunking.even_index_of(patch)
    if index is None:
        return None
    aside = cache.aside()
    aside.write_bytes(index.to_bytes())
    blob = _blob(aside)
    aside.replace(cache.content(name))
    return blob


def _check(job: Job, aside: Path, memory: int) -> None:
    """Apply a patch as a device does: what an encoder got wrong must not be published."""
    digest = hashlib.sha256()
    length = job.target.blob.length
    with aside.open("rb") as file:
        blocks = (memoryview(block) for block in iter(lambda: file.read(READ), b""))
        if job.base:
            with job.base.path.open("rb") as base:
                patch.apply(job.kind, base.fileno(), blocks, digest.update, length, memory)
        else:
            patch.apply(job.kind, None, blocks, digest.update, length, memory)
    if digest.hexdigest() != job.target.blob.sha256:
        raise _changed(job.target)


def _blob(path: Path) -> Blob:
    with path.open("rb") as file:
        return Blob(hashlib.file_digest(file, "sha256").hexdigest(), path.stat().st_size)


def _changed(source: Source) -> Refused:
    return Refused(
        Gate.RELEASE,
        f"{source.path} was changed while it was being published",
        "let nothing else write there, then publish again",
    )


Run = Callable[[Job, Cache, int, Advance], None]
