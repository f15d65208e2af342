"""Gate 9: the cheapest way to the bytes. Pure: what is here, what is offered, what it costs.

Every file that is not here gets a list of ways, the cheapest first, and last the whole file. Gate
10 tries them in that order; whatever a way yields must be the file, by its SHA-256.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import NamedTuple

from modelward.errors import Gate, Unavailable
from modelward.formats.chunks import MAX_CHUNK, Chunk, ChunkIndex
from modelward.formats.release import Blob, Patch, Release

RESERVE = 16 << 20  # bytes to leave free for metadata, journals and logs
REQUEST = 512  # bytes that asking for one more range costs, headers both ways
LOOK = 32  # an index may cost this part of what is the cheapest without it
TRIES = 3  # ways tried before the whole file: a stolen key must not list a thousand bad patches
_PER_ENTRY = 8  # times an index's length: most memory it takes while it is compared


class How(StrEnum):
    """How a file is come by. Of two that cost the same, the one named first is preferred."""

    WHOLE = "whole"
    COMPRESSED = "compressed"
    CHUNKS = "chunks"
    PATCH = "patch"


_PREFERENCE = {how: place for place, how in enumerate(How)}
_WORDS = {
    How.WHOLE: "whole",
    How.COMPRESSED: "compressed",
    How.CHUNKS: "by changed chunks",
    How.PATCH: "by patch",
}


class Place(NamedTuple):
    """Where the bytes of a chunk are on this device, if what an index says is true.

    Attributes:
        sha256: The file.
        offset: Where in it, in bytes.
        length: Bytes.
    """

    sha256: str
    offset: int
    length: int


@dataclass(frozen=True)
class Here:
    """What is on this device.

    Attributes:
        blobs: Length of every blob that is here, by digest: files, patches, indexes.
        indexed: The chunk indexes of files that are installed, by the file's digest, whether the
            index itself is here or not.
        relatives: The files that are installed of a model, by model.
    """

    blobs: Mapping[str, int] = field(default_factory=dict)
    indexed: Mapping[str, Blob] = field(default_factory=dict)
    relatives: Mapping[str, frozenset[str]] = field(default_factory=dict)

    def has(self, blob: Blob) -> bool:
        """Tell whether a blob is here."""
        return self.blobs.get(blob.sha256) == blob.length


@dataclass(frozen=True)
class Limits:
    """What a device can do.

    Attributes:
        free: Bytes free where the store lies.
        memory: Most bytes of memory that a way to a file may take.
        methods: The patches that it can apply.
    """

    free: int
    memory: int = 0
    methods: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Way:
    """One way to a file.

    Attributes:
        how: Which kind.
        cost: Bytes to fetch.
        memory: Bytes of memory it takes, beside the buffers that any transfer has.
        scratch: Bytes on disk it takes for a while, beside the file.
        patch: The patch to apply, if there is one.
        index: What the file consists of, if it is put together from chunks.
        local: Where chunks of the file are on this device, by digest.
    """

    how: How
    cost: int
    memory: int = 0
    scratch: int = 0
    patch: Patch | None = None
    index: ChunkIndex | None = None
    local: Mapping[bytes, Place] = field(default_factory=dict, repr=False)

    def pieces(self) -> Iterator[tuple[Chunk, Place | None]]:
        """Yield the file's chunks in order, each with where it is here, or None to fetch it."""
        for chunk in self.index or ():
            yield chunk, self.local.get(chunk.digest)


@dataclass(frozen=True)
class Step:
    """One file to come by.

    Attributes:
        blob: The file.
        ways: The ways to it, cheapest first, and last the whole file; the next is for when one
            fails.
    """

    blob: Blob
    ways: tuple[Way, ...]

    @property
    def cost(self) -> int:
        """Bytes to fetch if all goes well."""
        return self.ways[0].cost


@dataclass(frozen=True)
class Plan:
    """What has to be done before the releases can be installed.

    Attributes:
        steps: The files to come by, each once, in this order.
        present: Files that are here already.
    """

    steps: tuple[Step, ...]
    present: tuple[Blob, ...]

    @property
    def cost(self) -> int:
        """Bytes to fetch if all goes well."""
        return sum(step.cost for step in self.steps)

    @property
    def length(self) -> int:
        """Bytes of the files that are missing."""
        return sum(step.blob.length for step in self.steps)

    @property
    def saved(self) -> int:
        """Bytes not to fetch, of those that are missing."""
        return self.length - self.cost

    @property
    def how(self) -> Mapping[How, int]:
        """Number of files by how they are come by."""
        return Counter(step.ways[0].how for step in self.steps)

    def describe(self) -> str:
        """Return the plan in one line, for people."""
        here = f"{len(self.present)} are here already"
        if not self.steps:
            return f"no files to fetch, {here}"
        ways = ", ".join(f"{count} {_WORDS[how]}" for how, count in sorted(self.how.items()))
        saved = f", {self.saved} saved" if self.saved else ""
        return f"{len(self.steps)} files to fetch ({self.cost} bytes{saved}: {ways}), {here}"


def make(
    releases: Iterable[Release],
    here: Here,
    limits: Limits,
    indexes: Mapping[str, ChunkIndex] | None = None,
) -> Plan:
    """Plan how to come by the files of all releases.

    Args:
        releases: The releases to install.
        here: What is on this device.
        limits: What it can do.
        indexes: Chunk indexes by the file's digest, of files that are here and of others.

    Raises:
        Unavailable: They would not fit.
    """
    releases = tuple(releases)
    files = {file.blob.sha256: file.blob for release in releases for file in release.files}
    missing = [blob for blob in files.values() if not here.has(blob)]
    needed = sum(blob.length for blob in missing) + RESERVE
    if needed > limits.free:
        raise Unavailable(
            f"{needed} bytes are needed, but only {limits.free} are free",
            "make room in the state directory's file system",
            Gate.PLAN,
        )
    offered = _offered(releases)
    chunks = _Chunks(missing, here, indexes or {})
    steps = []
    for blob in missing:
        cheaper = [
            way
            for way in (*_by_patch(blob, offered, here, limits), *chunks.ways(blob))
            if way.cost < blob.length
            and way.memory <= limits.memory
            and way.scratch <= limits.free - needed
        ]
        steps.append(Step(blob, (*sorted(cheaper, key=_rank)[:TRIES], _whole(blob))))
        chunks.arrives(blob)
    return Plan(tuple(steps), tuple(blob for blob in files.values() if here.has(blob)))


def worth_a_look(releases: Iterable[Release], here: Here, limits: Limits) -> tuple[Blob, ...]:
    """Return the chunk indexes to have at hand before planning: where chunks may be cheapest.

    The index of a missing file is of use together with those of files that are here: of the same
    model first, then of any. As many are looked at as cost little in comparison with what they
    can save.
    """
    releases = tuple(releases)
    offered = _offered(releases)
    wanted: dict[str, Blob] = {}
    for release in releases:
        relatives = here.relatives.get(release.model, frozenset())
        for file in release.files:
            if file.chunks is None or here.has(file.blob):
                continue
            best = min(
                way.cost
                for way in (_whole(file.blob), *_by_patch(file.blob, offered, here, limits))
                if way.memory <= limits.memory
            )
            budget = best // LOOK - _price(file.chunks, here, wanted)
            others = []
            for index in _indexes_here(here, relatives):
                budget -= _price(index, here, wanted)
                if budget < 0:
                    break
                others.append(index)
            if others:
                wanted |= {blob.sha256: blob for blob in (file.chunks, *others)}
    return tuple(wanted.values())


def _price(index: Blob, here: Here, wanted: Mapping[str, Blob]) -> int:
    return 0 if here.has(index) or index.sha256 in wanted else index.length


def _indexes_here(here: Here, relatives: frozenset[str]) -> list[Blob]:
    """Return the indexes of files that are here, in the order in which to look at them."""
    known = [(file, index) for file, index in here.indexed.items() if file in here.blobs]
    known.sort(key=lambda item: (not here.has(item[1]), item[0] not in relatives, item[1].length))
    return list(dict.fromkeys(index for _, index in known))


def by_chunks(blob: Blob, here: Here, indexes: Mapping[str, ChunkIndex]) -> Way | None:
    """Return the way to put one file together from chunks, or None if its index is not known."""
    return next(_Chunks([blob], here, indexes).ways(blob), None)


def _offered(releases: Iterable[Release]) -> Mapping[str, Sequence[Patch]]:
    """Return the patches by the file that they make."""
    offered: dict[str, list[Patch]] = {}
    for release in releases:
        for patch in release.patches:
            offered.setdefault(patch.to, []).append(patch)
    return offered


def _whole(blob: Blob) -> Way:
    return Way(How.WHOLE, blob.length)


def _by_patch(
    blob: Blob, offered: Mapping[str, Sequence[Patch]], here: Here, limits: Limits
) -> Iterator[Way]:
    """Yield the ways to a file by patches whose base is here, and that this device can apply."""
    for patch in offered.get(blob.sha256, ()):
        if patch.method not in limits.methods:
            continue
        if patch.base is not None and patch.base not in here.blobs:
            continue
        to_fetch = 0 if here.has(patch.blob) else patch.blob.length
        how = How.COMPRESSED if patch.base is None else How.PATCH
        yield Way(how, to_fetch, patch.memory, to_fetch, patch=patch)


class _Chunks:
    """What is known of where chunks are, while files are planned one after the other.

    Args:
        missing: The files to come by.
        here: What is on this device.
        indexes: By the file's digest.
    """

    def __init__(
        self, missing: Iterable[Blob], here: Here, indexes: Mapping[str, ChunkIndex]
    ) -> None:
        self._indexes = indexes
        # An index that is about another file than its release says is of no use.
        self._missing = {
            blob.sha256: index
            for blob in missing
            if (index := indexes.get(blob.sha256)) and index.length == blob.length
        }
        self._wanted = {chunk.digest for index in self._missing.values() for chunk in index}
        self._local: dict[bytes, Place] = {}
        for sha256, index in indexes.items():
            if here.blobs.get(sha256) == index.length:
                self._add(sha256, index)

    def ways(self, blob: Blob) -> Iterator[Way]:
        """Yield the way to put a file together from chunks, if its index is known."""
        index = self._missing.get(blob.sha256)
        if index is None:
            return
        memory = _PER_ENTRY * sum(len(known.table) for known in self._indexes.values()) + MAX_CHUNK
        local = {
            chunk.digest: place
            for chunk in index
            if (place := self._local.get(chunk.digest)) and place.length == chunk.length
        }
        cost, before = 0, True
        for chunk in index:
            here = chunk.digest in local
            if not here:
                cost += chunk.length + REQUEST * before
            before = here
        yield Way(How.CHUNKS, cost, memory, index=index, local=local)

    def arrives(self, blob: Blob) -> None:
        """Note that a file is here from now on."""
        index = self._missing.get(blob.sha256)
        if index is not None:
            self._add(blob.sha256, index)

    def _add(self, sha256: str, index: ChunkIndex) -> None:
        for chunk in index:
            if chunk.digest in self._wanted:
                self._local.setdefault(chunk.digest, Place(sha256, chunk.offset, chunk.length))


def _rank(way: Way) -> tuple[int, int]:
    return way.cost, _PREFERENCE[way.how]
