"""Gate 10: bring blobs into the store, hashed while they arrive and cut at their length.

The whole file's SHA-256 is always computed, in order, alongside the receiving (docs/adr/0010). A
chunk index says which source delivered what was wrong, and is believed in nothing else.

One thread a connection receives, one writes, and the caller's hashes: sockets, files and digests
all let go of the interpreter's lock. A connection is never more than a chunk ahead of the disk, so
that this is what a kill costs.
"""

import hashlib
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from queue import SimpleQueue
from threading import Thread
from typing import ParamSpec

from modelward.errors import NoRanges, Refused, Unavailable
from modelward.formats.chunks import ChunkIndex
from modelward.formats.release import Blob
from modelward.transfer import one_stream, pieces
from modelward.transfer.board import STALL, Board, Connection, room
from modelward.transfer.pieces import HALF, PIECE, Attempt, Piece
from modelward.transfer.shelf import Partial, Shelf
from modelward.transfer.sources import (
    SMALL,
    Kind,
    Reader,
    Sources,
    Standing,
    at_fetch,
    rather,
    wrong,
)

TICK = 0.1  # seconds between two looks at how far things are
PARTING = 0.1  # seconds: for a receiver that is done to end, and what it holds with it
MOST = 2  # times the blob's length, after which a connection that keeps failing is not forgiven
ENOUGH = 64 << 10  # bytes that a connection must have brought for its failure to be forgiven

Progress = Callable[[int], None]  # called with the number of bytes that just arrived
Told = ParamSpec("Told")


def fetch_small(sources: Sources, blob: Blob, go_on: Callable[[], None] | None = None) -> bytes:
    """Return a small blob's bytes, verified.

    Args:
        sources: Where from.
        blob: What.
        go_on: Called now and then while a busy source is waited for; may raise to stop.

    Raises:
        Refused: The bytes are not the blob.
        Unavailable: No source delivered.
    """
    return sources.fetch_blob(blob, go_on)


def fetch_blob(  # noqa: PLR0913 - the last three are named, and seldom given
    sources: Sources,
    blob: Blob,
    store: Shelf,
    index: ChunkIndex | None = None,
    progress: Progress | None = None,
    *,
    connections: int = 1,
    go_on: Callable[[], None] | None = None,
) -> None:
    """Bring one blob into the store. Its whole digest is always verified.

    What an earlier try left in the store is used, once it is hashed; so is what the caller put
    there with `Shelf.partial`, for example chunks of files that are on this device.

    Args:
        sources: Where from.
        blob: What.
        store: Where to.
        index: What it consists of, if there is an index. Only tells which source delivered what
            was wrong; it is never believed.
        progress: Told of bytes as they arrive.
        connections: How many to open to each source.
        go_on: Called now and then; may raise to stop. What arrived is kept.

    Raises:
        Refused: Sources delivered something else, and no other the right bytes (attack row 11).
        Unavailable: No source delivered.
        OSError: It cannot be written.
    """
    if index is not None and (index.sha256, index.length) != (blob.sha256, blob.length):
        index = None  # of another file
    progress, go_on = progress or _ignore, go_on or _nothing
    if blob.length <= SMALL:
        store.add(blob, [memoryview(fetch_small(sources, blob, go_on))])
        progress(blob.length)
        return
    with store.partial(blob) as partial:
        heard, looked = _stopping(progress), _stopping(go_on)
        bring = _Bringing(sources, blob, partial, heard, looked, connections)
        try:
            bring.by_any_way(index)
        except _StoppedError as stopped:
            raise stopped.reason from None


@dataclass(frozen=True)
class _Bringing:
    """Bringing one blob: first from all sources at once, then, if some lie, from one at a time."""

    sources: Sources
    blob: Blob
    partial: Partial
    progress: Progress
    go_on: Callable[[], None]
    connections: int

    def by_any_way(self, index: ChunkIndex | None) -> None:
        """Bring it. What the caller stops is not gone on with by another way."""
        try:
            if not self.together(index):
                self.one_after_the_other()
        except (Refused, Unavailable) as error:
            self.in_one_stream(error)

    def together(self, index: ChunkIndex | None) -> bool:
        """Bring it from all sources, and tell whether it is the blob."""
        resumed = bool(self.partial.extents)
        transfer = self._transfer(index)
        try:
            if transfer.run(self._connections(self._usable(index))):
                transfer.ban_suspects()
                self.partial.finish()
                return True
        except (Refused, Unavailable):
            if not transfer.suspects:
                raise
            return self.together(None)  # who contradicts the index may be right: without it, then
        givers = transfer.givers
        if index is None and not resumed and len(givers) == 1:
            self.sources.ban(givers[0], _other_content(givers[0]))
        return False

    def one_after_the_other(self) -> None:
        """Bring it from one source alone, from its start, so that it is clear who lies.

        Whoever lied before, the index too: what is there is worth nothing, and not gone on from.
        """
        problem: Unavailable | None = None
        for standing in self._usable(None):
            self.go_on()
            self.partial.restart()
            try:
                if self._transfer(None).run(self._connections([standing])):
                    self.partial.finish()
                    return
                self.sources.ban(standing, _other_content(standing))
            except Unavailable as error:
                problem = problem or error
            except Refused as error:
                self.sources.ban(standing, error)
        self.partial.restart()
        raise problem or self.sources.nobody_left()

    def in_one_stream(self, problem: Refused | Unavailable) -> None:
        """Bring it from a source that only sends all of it; last, for what is here is sent too.

        Args:
            problem: Why nobody else delivered it, to be raised if no such source does.
        """
        for standing in self.sources.for_blobs():
            if standing.ranges or standing.source.kind is Kind.NEIGHBOUR:
                continue
            try:
                if one_stream.bring(
                    self.sources, standing, self.blob, self.partial, self.progress, self.go_on
                ):
                    self.partial.finish()
                    return
                self.partial.restart()
                problem = _other_content(standing)
            except Unavailable as error:
                problem = at_fetch(error)
                continue
            except Refused as error:
                problem = error
            self.sources.ban(standing, problem)
        raise problem

    def _transfer(self, index: ChunkIndex | None) -> "_Transfer":
        return _Transfer(self.sources, self.blob, self.partial, index, self.progress, self.go_on)

    def _usable(self, index: ChunkIndex | None) -> list[Standing]:
        """Return the sources to ask: without an index, nothing is checked before the end."""
        usable = self.sources.for_blobs(self.blob.length if index is None else 0)
        return [each for each in usable if each.ranges] or usable

    def _connections(self, standings: Sequence[Standing]) -> list[Standing]:
        """Return a source for each connection. Each could waste a piece: one to a neighbour."""
        return [
            standing
            for standing in standings
            for _ in range(
                self.connections
                if standing.ranges and standing.source.kind is not Kind.NEIGHBOUR
                else 1
            )
        ]


class _Transfer:
    """One run through a blob, from its first byte to its last."""

    def __init__(  # noqa: PLR0913, PLR0917 - see `fetch_blob`
        self,
        sources: Sources,
        blob: Blob,
        partial: Partial,
        index: ChunkIndex | None,
        progress: Progress,
        go_on: Callable[[], None],
    ) -> None:
        self._sources = sources
        self._blob = blob
        self._partial = partial
        self._progress = progress
        self._go_on = go_on
        here = partial.extents
        self._extents = (
            pieces.plain(blob.length, here, HALF)
            if index is None
            else pieces.indexed(index, here, HALF)
        )
        self._here = here
        self._readers: dict[int, Reader] = {}
        self._problem: Unavailable | None = None
        self._givers: set[int] = set()
        self._standings: dict[int, Standing] = {}
        self._counts: dict[int, int] = {}  # bytes that each connection brought
        self._arrived: SimpleQueue[tuple[Piece, memoryview] | None] = SimpleQueue()
        self._cut: set[int] = set()  # connections that were hung up on: their failing says little
        self.suspects: dict[int, Refused] = {}  # sources that contradicted the index, and how

    @property
    def givers(self) -> list[Standing]:
        """The sources whose bytes were used."""
        return [self._standings[number] for number in sorted(self._givers)]

    def ban_suspects(self) -> None:
        """The index was right: whoever contradicted it lied."""
        for number, reason in self.suspects.items():
            self._sources.ban(self._standings[number], reason)

    def run(self, standings: Sequence[Standing]) -> bool:
        """Bring everything that is not here, and tell whether it is the blob.

        Raises:
            Refused: All sources lied.
            Unavailable: Not enough of them delivered.
        """
        self._standings = {standing.order: standing for standing in standings}
        self._board = board = Board(
            self._extents,
            self._here,
            self._blob.length,
            self._partial.buffers(room(len(standings)), PIECE),
            self._sources.clock,
        )
        connections = [Connection(number, each) for number, each in enumerate(standings)]
        for connection in connections:
            board.join(connection)
        if not connections:
            board.stop(self._sources.nobody_left())
        writer = Thread(target=self._write, name="modelward-write", daemon=True)
        receivers = [
            Thread(target=self._receive, args=(each,), name="modelward-receive", daemon=True)
            for each in connections
        ]
        writer.start()
        try:
            for receiver in receivers:
                receiver.start()
            return self._hash()
        finally:
            board.stop()
            board.settle()  # from here on, only this thread writes
            self._arrived.put(None)
            writer.join()
            for number, reader in tuple(self._readers.items()):
                self._cut.add(number)
                reader.close()  # wakes up who waits for a source that is not needed any more
            for receiver in receivers:
                if receiver.is_alive():
                    receiver.join(PARTING)
            self._keep_beginnings()
            board.clear()  # who still waits for an answer keeps the board, for as long as that

    # --- the caller's thread

    def _hash(self) -> bool:
        board, clock = self._board, self._sources.clock
        digest = hashlib.sha256()
        scratch = self._partial.buffers(1, PIECE)[0]
        told, looked = 0, clock()
        while board.position < self._blob.length:
            piece = board.to_hash(TICK)
            if clock() - looked >= TICK or piece is None:
                looked = clock()
                told = self._tell(told)
                self._go_on()
            if piece is None:
                if board.error is not None:
                    raise board.error
                continue
            view = self._content(piece, scratch)
            if view is None:
                board.lost(piece)
                continue
            digest.update(view)
            board.hashed(piece)
        self._tell(told)
        if not board.settle() and board.error is not None:
            raise board.error
        return digest.hexdigest() == self._blob.sha256

    def _content(self, piece: Piece, scratch: memoryview) -> memoryview | None:
        """Return a piece's bytes; None if what was kept of an earlier try is not what it was.

        Or if the disk has lost it: a bad sector must not keep a release from a device.
        """
        if piece.data is not None:
            self._givers |= piece.data.givers
            return self._view(piece, piece.data)
        view = scratch[: piece.length]
        if not self._partial.read(piece.extent.start, view):
            return None
        return view if pieces.matches(piece.extent, view) else None

    def _tell(self, told: int) -> int:
        total = sum(self._counts.values())
        if total > told:
            self._progress(total - told)
        return total

    def _keep_beginnings(self) -> None:
        """Keep what arrived of pieces that are not whole: a poor link may bring no more at once."""
        for piece, attempt in self._board.beginnings():
            if not piece.extent.chunks:
                view = self._view(piece, attempt)[: attempt.filled]
                with suppress(OSError):
                    self._partial.write(piece.extent.start, view)

    # --- the thread that writes

    def _write(self) -> None:
        """Write what arrives until all is over, or until the disk takes no more."""
        is_able = True
        while (arrived := self._arrived.get()) is not None:
            piece, view = arrived
            try:
                if is_able:
                    checked = bool(piece.extent.chunks)
                    self._partial.write(piece.extent.start, view, checked=checked)
            except BaseException as error:  # noqa: BLE001 - raised by the caller's thread
                is_able = False
                self._board.stop(error)  # before it counts as written
            finally:
                self._board.wrote(piece)

    # --- one thread a connection

    def _receive(self, me: Connection) -> None:
        board, patience = self._board, self._sources.patience
        failures = 0
        try:
            while (claimed := self._claim(me)) is not None:
                before = self._counts.get(me.number, 0)
                try:
                    self._stream(me, *claimed)
                except Refused as error:
                    self._sources.ban(me.standing, error)
                    return
                except NoRanges as error:
                    me.standing.ranges = False
                    self._problem = rather(self._problem, at_fetch(error))
                    return
                except Unavailable as error:
                    if me.number not in self._cut or error.vain > STALL:
                        self._sources.failed(me.standing, error)
                    self._problem = rather(self._problem, at_fetch(error))
                    failures = 1 if self._is_forgiven(me, before) else failures + 1
                    if error.again is None or failures >= patience.tries:
                        return
                    board.release(me, rest=True)
                    board.pause(patience.before_try(failures, error.again))
        except BaseException as error:  # noqa: BLE001 - raised by the caller's thread
            board.stop(error)
        finally:
            board.release(me)
            if not board.leave(me):
                contradiction = next(iter(self.suspects.values()), None)
                board.stop(self._problem or contradiction or self._sources.nobody_left())

    def _claim(self, me: Connection) -> tuple[int, int] | None:
        """Wait for something to fetch, and for fewer requests that its source left unanswered.

        They outlive the files that they were for, which others brought.
        """
        board, places = self._board, me.standing.places
        while not places.acquire(blocking=False):
            if board.is_over:
                return None
            board.release(me, rest=True)
            board.pause(TICK)
        claimed = board.claim(me)
        # Others of its source may have contradicted the index while it waited.
        if claimed is None or self._is_out(me):
            places.release()
            return None
        return claimed

    def _is_forgiven(self, me: Connection, before: int) -> bool:
        """Tell whether a connection brought enough to go on, and that not for nothing."""
        brought = self._counts.get(me.number, 0)
        return brought - before >= ENOUGH and brought <= MOST * self._blob.length

    def _is_out(self, me: Connection) -> bool:
        return self._sources.is_out(me.standing) or me.source in self.suspects

    def _stream(self, me: Connection, start: int, stop: int) -> None:
        """Receive one answer, piece by piece, for as long as its pieces are wanted from it."""
        try:
            reader = me.standing.source.open(self._blob, start, stop)
        finally:
            me.standing.places.release()
        self._readers[me.number] = reader
        try:
            offset = start
            while offset < stop:
                taken = self._board.take(me, offset)
                if taken is None or not self._fill(me, reader, *taken):
                    return
                offset = taken[0].extent.stop
            reader.readinto(memoryview(bytearray(1)))  # its end: the connection can be used again
        finally:
            del self._readers[me.number]
            reader.close()
            self._board.release(me)

    def _fill(self, me: Connection, reader: Reader, piece: Piece, attempt: Attempt) -> bool:
        """Receive one piece; False if somebody else did, or has to."""
        board, clock, name = self._board, self._sources.clock, me.standing.source.name
        view = self._view(piece, attempt)
        began, had = clock(), attempt.filled
        try:
            while attempt.filled < piece.length:
                is_out = self._is_out(me)
                if piece.arrived or board.is_over or is_out:
                    # Overtaken: that is a measure too, or it would be given the next one.
                    board.measured(me, attempt.filled - had, clock() - began)
                    board.give_up(me, piece, attempt, keep=not piece.arrived and not is_out)
                    return False
                count = some(reader.readinto(view[attempt.filled :]), name)
                self._counts[me.number] = self._counts.get(me.number, 0) + count
                board.heard(me, attempt, count)
        except BaseException:
            board.give_up(me, piece, attempt, keep=True)
            if attempt.filled - had >= ENOUGH:  # fewer only shortened the wait itself
                self._sources.made_good(me.standing, attempt.filled - had)
            raise
        if not pieces.matches(piece.extent, view):
            if attempt.givers == {me.source}:  # the source or the index is wrong
                part = f"{piece.extent.start}-{piece.extent.stop - 1}"
                self.suspects.setdefault(me.source, wrong(name, f"wrong bytes {part} of the file"))
            piece.alone = True
            board.give_up(me, piece, attempt, keep=False)
            return False
        seconds = clock() - began
        if board.arrived(me, piece, attempt, seconds * piece.length / (piece.length - had)):
            self._arrived.put((piece, view))
            self._sources.delivered(me.standing, piece.length - had, seconds)
        return True

    def _view(self, piece: Piece, attempt: Attempt) -> memoryview:
        return self._partial.place(attempt.buffer, piece.extent.start, piece.length)


class _StoppedError(Exception):
    """The caller wants no more: no source is to blame for it, and none is tried in its place."""

    def __init__(self, reason: BaseException) -> None:
        super().__init__()
        self.reason = reason


def _stopping(told: Callable[Told, None]) -> Callable[Told, None]:
    """Return what tells the caller the same, and tells what it raises from what sources do."""

    def tell(*args: Told.args, **named: Told.kwargs) -> None:
        try:
            told(*args, **named)
        except BaseException as error:
            raise _StoppedError(error) from error

    return tell


def some(count: int, name: str) -> int:
    """Return how many bytes came.

    Raises:
        Unavailable: None did: the answer ended early.
    """
    if not count:
        raise Unavailable(f"{name} ended early")
    return count


def _other_content(standing: Standing) -> Refused:
    return wrong(standing.source.name, "other content than its name says")


def _ignore(_count: int) -> None:
    pass


def _nothing() -> None:
    pass
