"""What makes a release cheap to fetch: chunk indexes, patches, compressed copies.

For every file of a release: what it consists of, what it is compressed, and what it takes to make
it from each file that devices are likely to have. Everything is made once, kept in a cache by the
digests of what it was made of, and published only where it saves a set margin.
"""

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from modelward.formats.chunks import ChunkIndex
from modelward.formats.release import Blob, Patch, Release, ReleaseFile
from modelward_repo.publish import delta
from modelward_repo.publish.blobs import blob_path
from modelward_repo.publish.cache import Cache, index_name
from modelward_repo.publish.delta.whole import memory_for_patch
from modelward_repo.publish.prepare import choice, chunking, pool
from modelward_repo.publish.prepare.choice import Margins
from modelward_repo.publish.prepare.jobs import Job, Kind, Source
from modelward_repo.publish.prepare.pool import Watch
from modelward_repo.publish.prepare.routes import read_index
from modelward_repo.storage import Storage

LEAST_FILE = 4 << 10  # bytes: what is shorter is fetched whole
RELEASES = 3  # how many of the last releases devices are likely to have


@dataclass(frozen=True)
class Options:
    """How to prepare.

    Attributes:
        cache: What was found out before.
        margins: What a way must save to be published.
        deltas: Whether to make patches from earlier releases.
        releases: From how many.
        bases: Further releases to start from: model and version.
        processes: How many at once; None for as many as there are processors, at least two.
    """

    cache: Cache
    margins: Margins = field(default_factory=Margins)
    deltas: bool = True
    releases: int = RELEASES
    bases: tuple[tuple[str, str], ...] = ()
    processes: int | None = None


@dataclass(frozen=True)
class Prepared:
    """What was made.

    Attributes:
        files: The release's files, with their chunk indexes.
        patches: Cheaper ways to them.
        contents: What has to be in the repository before the release is, by where it lies now.
    """

    files: tuple[ReleaseFile, ...]
    patches: tuple[Patch, ...] = ()
    contents: Mapping[Blob, str] = field(default_factory=dict)


class Preparer:
    """Prepares one release.

    Args:
        storage: The repository.
        options: How to.
        watch: Is told how it goes on.
    """

    def __init__(self, storage: Storage, options: Options, watch: Watch) -> None:
        self._storage = storage
        self._options = options
        self._cache = options.cache
        self._watch = watch

    def prepare(
        self, directory: Path, files: Sequence[ReleaseFile], bases: Sequence[Release]
    ) -> Prepared:
        """Make, or find again, whatever makes files cheaper to fetch.

        Args:
            directory: Where the files lie.
            files: The files, hashed.
            bases: The releases that devices are likely to have.

        Raises:
            Refused: A file is not what it was when it was hashed.
            OSError: A file could not be read or written.
        """
        self._cache.sweep()
        bases = bases if self._options.deltas else ()
        published = _Published(self._storage, bases)
        jobs = {
            job.name: job for job in self._jobs(directory, files, bases) if not published.has(job)
        }
        missing = [job for job in jobs.values() if not self._is_done(job)]
        while True:
            if jobs:
                self._watch.begins(missing, len(jobs) - len(missing))
            pool.do(missing, self._cache, self._watch, self._options.processes)
            prepared = self._choose(files, jobs, published)
            # What was not worth publishing before, by another margin, is only known by its length.
            gone = {
                name for blob, name in prepared.contents.items() if not self._is_kept(name, blob)
            }
            missing = [job for job in jobs.values() if gone & job.contents]
            if not missing:
                break
        made = {name for job in jobs.values() for name in job.contents}
        for name in made - set(prepared.contents.values()):
            self._cache.forget_content(name)
        return prepared

    def _jobs(
        self, directory: Path, files: Sequence[ReleaseFile], bases: Sequence[Release]
    ) -> Iterator[Job]:
        for file in files:
            target = Source(directory / file.path, file.blob)
            if file.blob.length >= chunking.LEAST_FILE:
                yield Job(Kind.CHUNKS, target, label=file.path)
            if file.blob.length < LEAST_FILE:
                continue
            for kind in (Kind.TENSOR_DELTA, Kind.ZSTD):
                yield Job(kind, target, label=file.path)
            for old in dict.fromkeys(_old_files(file, bases)):
                base = self._base(old.blob)
                if base is None:
                    continue
                yield Job(Kind.TENSOR_DELTA, target, base, file.path)
                sizes = old.blob.length, file.blob.length
                if memory_for_patch(*sizes) <= delta.MEMORY_CAP:
                    yield Job(Kind.ZSTD_PATCH, target, base, file.path)

    def _base(self, blob: Blob) -> Source | None:
        """Return a published file to start from, if it is here and intact."""
        place = self._storage.place(blob_path(blob))
        if place is None or place.stat().st_size != blob.length:
            return None
        status = place.stat()
        digest = self._cache.digest(status)
        if digest is None:
            with place.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
            self._cache.learn(status, digest, ours=True)
        return Source(place, blob) if digest == blob.sha256 else None

    def _is_done(self, job: Job) -> bool:
        made = self._cache.made(job.name)
        if made is None or made.blob is None or job.kind is not Kind.CHUNKS:
            return made is not None
        return self._is_kept(job.name, made.blob)  # an index is read to choose by

    def _is_kept(self, name: str, blob: Blob) -> bool:
        """Tell whether what was made is in the repository, or intact in the cache."""
        if self._is_stored(blob):
            return True
        try:
            with self._cache.content(name).open("rb") as file:
                return hashlib.file_digest(file, "sha256").hexdigest() == blob.sha256
        except OSError:
            return False

    def _is_stored(self, blob: Blob) -> bool:
        path = blob_path(blob)
        return self._storage.exists(path) and self._storage.size(path) == blob.length

    def _choose(
        self, files: Sequence[ReleaseFile], jobs: Mapping[str, Job], published: "_Published"
    ) -> Prepared:
        contents: dict[Blob, str] = {}
        indexed = dict(published.indexed)
        candidates = list(published.patches)
        for name, job in jobs.items():
            made = self._cache.made(name)
            if made is None or made.blob is None:
                continue
            contents[made.blob] = name
            if job.kind is Kind.CHUNKS:
                indexed[job.target.blob.sha256] = made.blob
            else:
                base = job.base.blob.sha256 if job.base else None
                to = job.target.blob.sha256
                if made.chunks is not None:
                    contents[made.chunks] = index_name(name)
                candidates.append(Patch(to, base, job.kind, made.blob, made.memory, made.chunks))
        indexes = {
            sha256: index
            for sha256, blob in indexed.items()
            if (index := self._index(blob, contents)) and index.sha256 == sha256
        }
        kept = choice.worth(
            [file.blob for file in files], candidates, indexes, self._options.margins
        )
        complete = tuple(
            replace(file, chunks=indexed[file.blob.sha256]) if file.blob.sha256 in indexes else file
            for file in files
        )
        wanted = {blob for patch in kept for blob in (patch.blob, patch.chunks)}
        wanted |= {file.chunks for file in complete}
        return Prepared(
            complete, kept, {blob: name for blob, name in contents.items() if blob in wanted}
        )

    def _index(self, blob: Blob, contents: Mapping[Blob, str]) -> ChunkIndex | None:
        if self._is_stored(blob):
            return read_index(self._storage, blob)
        return ChunkIndex.parse(self._cache.content(contents[blob]).read_bytes())


class _Published:
    """What earlier releases offer already: it need not be made again, even without a cache."""

    def __init__(self, storage: Storage, releases: Iterable[Release]) -> None:
        self.indexed: dict[str, Blob] = {}
        self.patches: list[Patch] = []
        for release in releases:
            self.indexed |= {
                file.blob.sha256: file.chunks
                for file in release.files
                if file.chunks and storage.exists(blob_path(file.chunks))
            }
            self.patches += [
                patch
                for patch in release.patches
                if patch not in self.patches
                and all(
                    storage.exists(blob_path(blob)) for blob in (patch.blob, patch.chunks) if blob
                )
            ]
        self._done = {(patch.to, patch.base) for patch in self.patches}

    def has(self, job: Job) -> bool:
        """Tell whether a job would make what is published."""
        target = job.target.blob.sha256
        if job.kind is Kind.CHUNKS:
            return target in self.indexed
        return (target, job.base.blob.sha256 if job.base else None) in self._done


def _old_files(file: ReleaseFile, bases: Iterable[Release]) -> Iterator[ReleaseFile]:
    """Yield the file that a new one came from, of each release that does not have it as it is."""
    for release in bases:
        if any(old.blob == file.blob for old in release.files):
            continue
        alike = [old for old in release.files if old.format == file.format and old.blob.length]
        same = [old for old in alike if old.path == file.path]
        nearest = sorted(alike, key=lambda old: abs(old.blob.length - file.blob.length))
        yield from (same or nearest)[:1]
