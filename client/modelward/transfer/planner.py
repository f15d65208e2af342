"""Gate 9: look at what is here and at what is offered, and plan.

Chunk indexes are fetched here already, where they may save far more than they cost.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import BinaryIO, Protocol, TypeVar

from modelward.errors import NotFound, Refused, Unavailable
from modelward.formats.chunks import ChunkIndex
from modelward.formats.release import Blob, Release
from modelward.transfer import plan, shelf
from modelward.transfer.plan import Here, Limits, Plan, Step
from modelward.transfer.sources import Sources

ROUNDS = 3  # times that something is tried, where sources may only be busy, before it costs bytes

T = TypeVar("T")


class Shelf(shelf.Shelf, Protocol):
    """Where blobs are kept; see `modelward.install.store.Store`."""

    def lengths(self) -> Mapping[str, int]:
        """Return the length in bytes of every blob that is here, by digest."""
        ...

    def open(self, sha256: str) -> BinaryIO:
        """Open a blob that is here for reading, unbuffered.

        Raises:
            OSError: It is not here, or cannot be read.
        """
        ...

    def read(self, blob: Blob) -> bytes | None:
        """Return a small blob's content if it is here and intact, else None."""
        ...

    def remove(self, sha256: str) -> None:
        """Remove a blob."""
        ...


def _nothing() -> None:
    pass


@dataclass
class Planner:
    """Gate 9: looks at what is here and what is offered, and plans.

    Attributes:
        releases: The releases to install.
        installed: Those whose files are here.
        store: Where blobs are kept.
        sources: Where chunk indexes come from, if they are not here.
        limits: What the device can do.
        tell: Told, in words for people, of a chunk index that is of no use.
        go_on: Called now and then while busy sources are waited for; may raise to stop.
        plan: The plan.
        looked: Chunk indexes that were fetched to make it, as documents, by blob.

    Raises:
        Unavailable: The files would not fit.
    """

    releases: Sequence[Release]
    installed: Iterable[Release]
    store: Shelf
    sources: Sources
    limits: Limits
    tell: Callable[[str], None]
    go_on: Callable[[], None] = _nothing
    looked: dict[Blob, bytes] = field(default_factory=dict)
    _useless: set[Blob] = field(default_factory=set)  # indexes of which that was told

    def __post_init__(self) -> None:
        self._here = _survey(self.store, self.installed)
        self.plan = self._plan(frozenset())

    @property
    def cost(self) -> int:
        """Bytes to fetch if all goes well, indexes included."""
        return self.plan.cost + sum(blob.length for blob in self.looked)

    def without(self, blob: Blob, failed: frozenset[Blob]) -> Step:
        """Return the ways to one file if some patches, or its chunk index, are of no use."""
        return next(step for step in self._plan(failed).steps if step.blob == blob)

    def index_of(self, blob: Blob, failed: frozenset[Blob] = frozenset()) -> ChunkIndex | None:
        """Return what a file or patch consists of, if that costs little: it tells who lies.

        Args:
            blob: The file, or the patch.
            failed: Indexes of no use.
        """
        for release in self.releases:
            for indexed, offer in release.blobs:
                if indexed != blob or offer is None or offer in failed:
                    continue
                if offer.length <= blob.length // plan.LOOK:
                    # The first must do: a stolen key must not list a thousand of them.
                    index = self._look(offer)
                    fits = index and (index.sha256, index.length) == (blob.sha256, blob.length)
                    return index if fits else None
        return None

    def is_part(self, sha256: str) -> bool:
        """Tell whether a blob is a file of a release, wanted or installed, or the index of one."""
        files = [file for release in self.releases for file in release.files]
        blobs = [blob for file in files for blob in (file.blob, file.chunks)]
        blobs += self._here.indexed.values()
        return any(blob is not None and blob.sha256 == sha256 for blob in blobs) or any(
            sha256 in known for known in self._here.relatives.values()
        )

    def _plan(self, failed: frozenset[Blob]) -> Plan:
        releases = [
            replace(
                release,
                files=tuple(
                    replace(file, chunks=None) if file.chunks in failed else file
                    for file in release.files
                ),
                patches=tuple(patch for patch in release.patches if patch.blob not in failed),
            )
            for release in self.releases
        ]
        blobs = plan.worth_a_look(releases, self._here, self.limits)
        indexes = {index.sha256: index for blob in blobs if (index := self._look(blob))}
        return plan.make(releases, self._here, self.limits, indexes)

    def _look(self, blob: Blob) -> ChunkIndex | None:
        """Return a chunk index. That it is none, or cannot be had, is no reason to stop."""
        if blob in self._useless:
            return None
        try:
            data = self.looked.get(blob) or self.store.read(blob)
            if data is None:
                data = patiently(
                    self.sources, lambda: self.sources.fetch_blob(blob, self.go_on), self.go_on
                )
                self.looked[blob] = data
            return ChunkIndex.parse(data)
        except (Refused, Unavailable) as error:
            self.go_on()  # the index is not to blame for that it is not to be gone on
            self._useless.add(blob)
            self.tell(f"the chunk index {blob.sha256[:16]} is of no use: {error.reason}")
        return None


def _survey(store: Shelf, installed: Iterable[Release]) -> Here:
    blobs = store.lengths()
    indexed: dict[str, Blob] = {}
    relatives: dict[str, frozenset[str]] = {}
    for release in installed:
        files = [file for file in release.files if file.blob.sha256 in blobs]
        indexed |= {file.blob.sha256: file.chunks for file in files if file.chunks}
        known = relatives.get(release.model, frozenset())
        relatives[release.model] = known | {file.blob.sha256 for file in files}
    return Here(blobs, indexed, relatives)


def patiently(sources: Sources, work: Callable[[], T], go_on: Callable[[], None]) -> T:
    """Do something, and again later if that may help: time is cheaper than another way's bytes.

    Args:
        sources: Where from.
        work: What.
        go_on: Called now and then while they are waited for; may raise to stop.

    Raises:
        Unavailable: It could not be done, time after time, or will not be.
    """
    first = sources.patience.tries  # so often it was tried by then
    for failures in range(first, first + ROUNDS - 1):
        try:
            return work()
        except NotFound:
            raise
        except Unavailable as error:
            if error.again is None:
                raise
            wish = error.again
        sources.pause(sources.patience.before_try(failures, wish), go_on)
    return work()
