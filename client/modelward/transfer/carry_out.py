"""Gate 10: carry a plan out, way by way.

Whatever a way yields is hashed as it is written, and appears in the store only if it is the file.
If it is not, or a way cannot be gone, the next cheapest is: a bad patch or index costs bytes, and
no more than that (attack row 27).
"""

import functools
import hashlib
import os
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import BinaryIO

from modelward.errors import Gate, Refused, Unavailable
from modelward.formats.chunks import MAX_CHUNK, ChunkIndex
from modelward.formats.release import Blob, Patch
from modelward.transfer import fetch, patch, plan
from modelward.transfer.fetch import Progress
from modelward.transfer.plan import How, Step, Way
from modelward.transfer.planner import Planner, Shelf, patiently
from modelward.transfer.shelf import Partial
from modelward.transfer.sources import SMALL, Sources

BLOCK = 1 << 20  # bytes
READ = 256 << 10  # bytes of a patch at a time


@dataclass
class Carried:
    """How files were come by.

    Attributes:
        fetched: Bytes that were received.
        length: Bytes of the files that were missing.
        how: Number of files by how they were come by.
    """

    fetched: int = 0
    length: int = 0
    how: Counter[How] = field(default_factory=Counter)

    @property
    def saved(self) -> int:
        """Bytes that were not received, of the files that were missing."""
        return max(0, self.length - self.fetched)

    def describe(self) -> str:
        """Return it in one line, for people."""
        files = f"{sum(self.how.values())} files, every digest as approved"
        saved = f", {self.saved} saved" if self.saved else ""
        return f"{files}; {self.fetched} bytes fetched{saved}"


Share = Callable[[Blob, int, Progress], bool]
"""Brings a file together with neighbours, if that takes fewer bytes than given; tells whether all
of it is there, not verified."""


def _alone(_blob: Blob, _cost: int, _progress: Progress) -> bool:
    return False


@dataclass
class Carrier:
    """Gate 10: carries a plan out.

    Attributes:
        carried: How files were come by, so far.
        sources: Where bytes come from.
        store: Where they go.
        tell: Told, in words for people, of a way that could not be gone.
        progress: Told how many bytes have been received, of how many; often. May raise to stop:
            what arrived is kept.
        share: Brings a file together with neighbours, where that costs less.
        connections: How many to open to each source.
    """

    sources: Sources
    store: Shelf
    tell: Callable[[str], None]
    progress: Callable[[int, int], None]
    share: Share = _alone
    connections: int = 1
    carried: Carried = field(default_factory=Carried)
    _kept: set[Blob] = field(default_factory=set)
    _total: int = 0
    _stopped: BaseException | None = None

    def carry_out(self, planner: Planner) -> Iterator[Blob]:
        """Come by every file of a plan; yield each when it is in the store.

        Raises:
            Refused: What sources delivered is not the file, by any way.
            Unavailable: A file could not be had.
            OSError: Something cannot be written.
        """
        carried = self.carried
        self._keep_looks(planner)
        left = planner.plan.cost
        for step in planner.plan.steps:
            self._total = carried.fetched + left
            self._go_on()
            how = self._come_by(step, planner)
            carried.length += step.blob.length
            carried.how[how] += 1
            left -= step.cost
            self._keep_looks(planner)
            yield step.blob

    def _received(self, count: int) -> None:
        self.carried.fetched += count
        self._go_on()

    def _go_on(self) -> None:
        done = self.carried.fetched
        try:
            self.progress(done, max(self._total, done))
        except BaseException as error:
            self._stopped = error  # no way is to blame for it
            raise

    def _keep_looks(self, planner: Planner) -> None:
        """Keep the indexes that were fetched to plan: they are of use the next time, too."""
        for blob in [blob for blob in planner.looked if blob not in self._kept]:
            self.store.add(blob, [memoryview(planner.looked[blob])])
            self.carried.fetched += blob.length
            self._kept.add(blob)

    def _come_by(self, step: Step, planner: Planner) -> How:
        failed: set[Blob] = set()
        if step.ways[0].how is How.WHOLE:
            self._index_of(step.blob, planner, frozenset())  # of use to whoever shares it, too
        if self.share(step.blob, step.cost, self._received):
            step = Step(step.blob, step.ways[-1:])  # all of it is there, to be verified
        while True:
            way = step.ways[0] if len(failed) < plan.TRIES else step.ways[-1]
            try:
                if way.how is How.WHOLE:
                    self._fetch(step.blob, self._index_of(step.blob, planner, frozenset(failed)))
                else:
                    go = functools.partial(self._go, step.blob, way, planner)
                    patiently(self.sources, go, self._go_on)
            except (Refused, Unavailable) as error:
                if way.how is How.WHOLE or error is self._stopped:
                    raise
                self._go_on()  # no way is to blame for that it is not to be gone on
                self.tell(f"{_named(way)} did not do, another way is taken: {error.reason}")
                failed.add(way.patch.blob if way.patch else _blob_of(way.index))
                step = planner.without(step.blob, frozenset(failed))
            else:
                return way.how

    def _index_of(self, blob: Blob, planner: Planner, failed: frozenset[Blob]) -> ChunkIndex | None:
        """Return the index of what is to be fetched whole, if several sources may deliver it.

        Without it one that lies would cost all of it once more for each of them.
        """
        if blob.length <= MAX_CHUNK or len(self.sources.for_blobs()) == 1:
            return None
        index = planner.index_of(blob, failed)
        self._keep_looks(planner)
        return index

    def _go(self, blob: Blob, way: Way, planner: Planner) -> None:
        if way.patch is not None:
            self._by_patch(blob, way.patch, planner)
            return
        if way.index is not None and blob.length > SMALL:
            self._copy_local(blob, way)
        self._fetch(blob, way.index)

    def _fetch(self, blob: Blob, index: ChunkIndex | None = None) -> None:
        fetch.fetch_blob(
            self.sources,
            blob,
            self.store,
            index,
            self._received,
            connections=self.connections,
            go_on=self._go_on,
        )

    def _by_patch(self, blob: Blob, offered: Patch, planner: Planner) -> None:
        """Bring a patch, apply it, and let the file appear if it is the one it should be."""
        if self.store.lengths().get(offered.blob.sha256) != offered.blob.length:
            self._fetch(offered.blob, self._index_of(offered.blob, planner, frozenset()))
        try:
            with ExitStack() as stack:
                base = None
                if offered.base is not None:
                    base = stack.enter_context(self._open(offered.base)).fileno()
                content = stack.enter_context(self._open(offered.blob.sha256))
                with self.store.partial(blob) as file:
                    self._apply(blob, offered, base, content, file)
        except _UnreadableError as error:
            self._remove(offered, planner)
            raise Unavailable(f"what it starts from cannot be read: {error}") from error
        except Refused:
            self._remove(offered, planner)
            raise
        self._remove(offered, planner)  # it has served

    def _remove(self, offered: Patch, planner: Planner) -> None:
        """Remove a patch and its index, unless who signed it named a model's file in its place."""
        for blob in (offered.blob, offered.chunks):
            if blob is not None and not planner.is_part(blob.sha256):
                self.store.remove(blob.sha256)

    def _open(self, sha256: str) -> BinaryIO:
        try:
            return self.store.open(sha256)
        except OSError as error:
            raise _UnreadableError(error) from error

    def _apply(
        self, blob: Blob, offered: Patch, base: int | None, content: BinaryIO, file: Partial
    ) -> None:
        writer = _Writing(file, self._go_on)
        file.restart()  # what an earlier try left there may be of another way
        try:
            patch.apply(
                offered.method, base, _blocks(content), writer.add, blob.length, offered.memory
            )
            writer.check(blob)
        except OSError as error:
            file.restart()
            if error is writer.error:
                raise
            raise _UnreadableError(error) from error
        except BaseException:
            file.restart()
            raise
        file.finish()

    def _copy_local(self, blob: Blob, way: Way) -> None:
        """Put the chunks that are here to their places in a file that is not whole yet.

        They are hashed now, and the whole file once more when the rest has come.
        """
        with self.store.partial(blob) as file, ExitStack() as stack:
            buffer = file.buffers(1, MAX_CHUNK)[0]
            done = file.extents
            opened: dict[str, BinaryIO] = {}
            for chunk, place in way.pieces():
                end = chunk.offset + chunk.length
                if place is None or any(a <= chunk.offset and end <= b for a, b in done):
                    continue
                self._go_on()  # a slow disk takes hours for a large file
                view = file.place(buffer, chunk.offset, chunk.length)
                try:
                    if place.sha256 not in opened:
                        source = self.store.open(place.sha256)
                        opened[place.sha256] = stack.enter_context(source)
                    count = os.preadv(opened[place.sha256].fileno(), [view], place.offset)
                except OSError:
                    continue  # what cannot be read here is fetched
                if count == chunk.length and hashlib.sha256(view).digest() == chunk.digest:
                    file.write(chunk.offset, view, checked=True)


class _UnreadableError(Exception):
    """What is here, and a file would be made of, cannot be read."""


class _Writing:
    """Hashes and writes a file from its start to its end, as a patch makes it.

    Attributes:
        error: Why it could not be written, if that is so.
    """

    def __init__(self, file: Partial, go_on: Callable[[], None]) -> None:
        self.digest = hashlib.sha256()
        self.count = 0
        self.error: OSError | None = None
        self._file = file
        self._go_on = go_on
        self._buffer = file.buffers(1, BLOCK)[0]

    def add(self, block: memoryview) -> None:
        """Take the file's next bytes, at most 1 MiB."""
        view = self._file.place(self._buffer, self.count, len(block))
        view[:] = block  # to where it can be written fast
        self.digest.update(view)
        try:
            self._file.write(self.count, view)
        except OSError as error:
            self.error = error
            raise
        self.count += len(block)
        self._go_on()

    def check(self, blob: Blob) -> None:
        """Raise Refused unless what was written is the file."""
        if (self.count, self.digest.hexdigest()) != (blob.length, blob.sha256):
            raise Refused(Gate.FETCH, "it makes another file", "tell whoever published it")


def _blocks(file: BinaryIO) -> Iterator[memoryview]:
    while block := file.read(READ):
        yield memoryview(block)


def _blob_of(index: ChunkIndex | None) -> Blob:
    data = index.to_bytes() if index else b""
    return Blob(hashlib.sha256(data).hexdigest(), len(data))


def _named(way: Way) -> str:
    """Return what people call a way."""
    if way.patch is None:
        return "putting the file together from chunks"
    kind = "the compressed copy" if way.patch.base is None else "the patch"
    return f"{kind} {way.patch.blob.sha256[:16]} ({way.patch.method})"
