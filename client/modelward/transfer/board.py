"""Who fetches which piece of a blob. All connections of one transfer meet here.

Pieces are fetched within a window that moves along the file with its digest: what arrives out of
order stays in memory until its turn has come. A connection that is alone, or far faster than all
others, asks for everything that is left, in one request. Where several are about as fast, each
asks for a few pieces at a time. Whoever has nothing to do takes over what a much slower one holds
up, so that a slow source costs no more than the piece it is at.
"""

from bisect import bisect_left
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from threading import Condition, RLock

from modelward.transfer.pace import Clock
from modelward.transfer.pieces import PIECE, Attempt, Extent, Piece
from modelward.transfer.sources import Standing

WINDOW = 16  # pieces
BEHIND = 2  # pieces of one connection that arrived and are not on disk yet
RUN = 8  # pieces asked for at a time, where there are several sources
FAR = 4  # times as fast: whoever is that much slower sits out
STALL = 1.0  # seconds without a byte after which a connection is not as fast as it was
_POLL = 0.05  # seconds: how often those who wait look at the clock


def room(connections: int) -> int:
    """Return for how many pieces so many connections need memory, however short the pieces are.

    All of the window may be about to be hashed, while what was is not written yet.
    """
    return WINDOW + (BEHIND + 1) * connections


@dataclass(eq=False)
class Connection:
    """One of the connections that bring a blob.

    Attributes:
        number: Its number.
        standing: Its source.
        rate: Bytes a second that it delivered of late; 0 if not known.
        heard: When the last bytes came.
        waiting: Whether it waits for this device rather than for its source.
        resting: Whether it sits out after a failure.
        next: Where, in what it asked for, the first piece begins that is not in the window yet.
        stop: Where what it asked for ends.
        behind: The pieces that it brought and that are not on disk yet.
    """

    number: int
    standing: Standing
    rate: float = 0.0
    heard: float = 0.0
    waiting: bool = True
    resting: bool = False
    next: int = 0
    stop: int = 0
    behind: list[Piece] = field(default_factory=list)

    @property
    def source(self) -> int:
        """The number of its source."""
        return self.standing.order

    def silence(self, now: float) -> float:
        """Return for how many seconds nothing has come of it, as far as that is not our doing."""
        return 0.0 if self.waiting and not self.resting else now - self.heard

    def rate_now(self, now: float) -> float:
        """Return its rate, less if nothing has come for a while."""
        silent = self.silence(now)
        return self.rate if silent < STALL else min(self.rate, PIECE / silent)


class Board:
    """The pieces of one transfer; see the module. Safe for many threads.

    Args:
        extents: The parts of the file, in order.
        here: What is on disk already, as (start, stop), in order and apart.
        length: Its length.
        buffers: Memory for pieces, see `room`.
        clock: Monotonic seconds.

    Attributes:
        position: Bytes of the file that are hashed.
        received: Bytes that came from sources.
        error: Why the transfer failed, if it did.
    """

    def __init__(
        self,
        extents: Iterator[Extent],
        here: Sequence[tuple[int, int]],
        length: int,
        buffers: Sequence[memoryview],
        clock: Clock,
    ) -> None:
        self.position = 0
        self.received = 0
        self.error: BaseException | None = None
        self._extents = extents
        self._here = here
        self._length = length
        self._free = list(buffers)
        self._clock = clock
        self._window: deque[Piece] = deque()
        self._connections: dict[int, Connection] = {}
        self._unwritten = 0  # pieces that arrived and are not on disk yet
        self._stopped = False
        # Each wakes only whom a change concerns: to wake all for every piece costs processor time.
        self._lock = RLock()
        self._hasher = Condition(self._lock)
        self._fetchers = Condition(self._lock)
        self._idle = Condition(self._lock)  # connections that sit out
        self._ahead = Condition(self._lock)  # those that wait for the disk
        self._extend()

    # --- for everybody

    @property
    def is_over(self) -> bool:
        """Whether there is nothing more to do."""
        return self._stopped or self.error is not None

    def stop(self, error: BaseException | None = None) -> None:
        """End the transfer."""
        with self._lock:
            self._stopped = True
            self.error = self.error or error
            self._hasher.notify()
            self._wake_connections()

    def pause(self, seconds: float) -> None:
        """Wait, but not longer than the transfer lasts."""
        with self._lock:
            self._idle.wait_for(lambda: self.is_over, seconds)

    # --- for connections

    def join(self, connection: Connection) -> None:
        """Add a connection."""
        with self._lock:
            connection.heard = self._clock()
            self._connections[connection.number] = connection

    def leave(self, connection: Connection) -> int:
        """Remove a connection, and return how many are left."""
        with self._lock:
            self._connections.pop(connection.number, None)
            self._wake_connections()
            return len(self._connections)

    def claim(self, me: Connection) -> tuple[int, int] | None:
        """Wait for something to fetch, and return its start and stop; None when all is over."""
        with self._lock:
            me.waiting, me.resting = True, False
            while not self.is_over:
                sits_out = self._sits_out(me)
                for look in (self._kept_for,) if sits_out else (self._unowned, self._held_up):
                    piece = look(me)
                    if piece is not None:
                        me.waiting, me.heard = False, self._clock()
                        return self._begin(me, piece)
                (self._idle if sits_out else self._fetchers).wait(_POLL)
            return None

    def take(self, me: Connection, offset: int) -> tuple[Piece, Attempt] | None:
        """Wait for the place of the piece that begins at `offset`, or in which that lies.

        Returns:
            The piece and what has arrived of it; None if it is not this connection's any more.
        """
        with self._lock:
            me.waiting = True
            while not self.is_over:
                piece = self._at(offset)
                if piece is None:
                    if offset >= me.stop or self._is_needed_elsewhere(me):
                        return None  # the rest of the stream is another's, or has to wait
                elif piece.arrived or me.number not in (piece.owner, piece.rival):
                    return None
                elif not self._fits(me, piece, offset):
                    return None  # since it was asked for, somebody brought more of it
                elif self._may_begin(me, piece):
                    me.waiting, me.heard = False, self._clock()
                    return piece, self._attempt(me, piece, offset)
                (self._fetchers if piece is None else self._ahead).wait(_POLL)
            return None

    def heard(self, me: Connection, attempt: Attempt, count: int) -> None:
        """Note that bytes came. Needs no lock: nobody else changes these."""
        attempt.filled += count
        me.heard = self._clock()
        if me.source not in attempt.givers:
            attempt.givers |= {me.source}

    def measured(self, me: Connection, count: int, seconds: float) -> None:
        """Note how long so many bytes took."""
        rate = max(count, 1) / max(seconds, 1e-6)
        me.rate = 0.6 * me.rate + 0.4 * rate if me.rate else rate

    def arrived(self, me: Connection, piece: Piece, attempt: Attempt, seconds: float) -> bool:
        """Note that a piece is here, and right as far as can be told.

        Returns:
            Whether it was the first to be, and is to be written now.
        """
        with self._lock:
            self.measured(me, piece.length, seconds)
            if piece.arrived:
                self._drop(attempt)
                return False
            if self.is_over:
                piece.data = piece.data or attempt  # too late: a beginning, though a whole one
                return False
            if piece.data is not None:
                self._drop(piece.data)  # of an owner that gave up meanwhile
            piece.data, piece.arrived = attempt, True
            self.received += piece.length
            self._unwritten += 1
            me.behind.append(piece)
            me.waiting = True  # for its next one
            piece.owner = me.number
            if self._first_is_here():
                self._hasher.notify()
            self._fetchers.notify_all()
            return True

    def wrote(self, piece: Piece) -> None:
        """Note that a piece that arrived is on disk; or, once all is over, that it is not."""
        with self._lock:
            piece.written = True
            self._unwritten -= 1
            for connection in self._connections.values():
                if piece in connection.behind:
                    connection.behind.remove(piece)
            self._free_data(piece)
            self._ahead.notify_all()
            if not self._unwritten:
                self._hasher.notify()

    def give_up(self, me: Connection, piece: Piece, attempt: Attempt, *, keep: bool) -> None:
        """Stop fetching a piece.

        Args:
            me: The connection.
            piece: The piece.
            attempt: What arrived of it.
            keep: Whether that may be gone on from.
        """
        with self._lock:
            if piece.rival == me.number:
                piece.rival = None
            if piece.owner == me.number and not piece.arrived:
                piece.owner, piece.begun = None, 0.0
            kept = piece.data.filled if piece.data is not None else 0
            if keep and attempt.filled > kept and not piece.arrived:
                if piece.data is not None:
                    self._drop(piece.data)  # of a rival: whoever was further may go on
                piece.data = attempt
            else:
                self._drop(attempt)
            self._wake_connections()

    def release(self, me: Connection, *, rest: bool = False) -> None:
        """Give back all that this connection asked for and did not get."""
        with self._lock:
            me.next = me.stop = 0
            me.waiting, me.resting = True, rest
            for piece in self._window:
                if piece.owner == me.number and not piece.arrived:
                    piece.owner, piece.begun = None, 0.0
                if piece.rival == me.number:
                    piece.rival = None
            self._wake_connections()

    def beginnings(self) -> Iterator[tuple[Piece, Attempt]]:
        """Yield what arrived of pieces that did not arrive whole, once all is over."""
        with self._lock:
            for piece in self._window:
                if piece.data is not None and piece.data.filled and not piece.arrived:
                    yield piece, piece.data

    # --- for the thread that hashes

    def to_hash(self, seconds: float) -> Piece | None:
        """Wait for the next piece in order; None if it did not come so soon, or all is over."""
        with self._lock:
            self._hasher.wait_for(lambda: self.is_over or self._first_is_here(), seconds)
            return self._window[0] if not self.is_over and self._first_is_here() else None

    def hashed(self, piece: Piece) -> None:
        """Note that a piece is part of the digest, and move the window on."""
        with self._lock:
            piece.hashed = True
            self.position = piece.extent.stop
            self._window.popleft()
            self._free_data(piece)
            self._extend()
            self._fetchers.notify_all()

    def lost(self, piece: Piece) -> None:
        """Note that what was on disk is not what it should be: it is to be fetched."""
        with self._lock:
            piece.arrived = piece.written = False
            piece.extent = piece.extent._replace(is_here=False)
            self._wake_connections()

    def settle(self) -> bool:
        """Wait until nobody writes any more, and tell whether all went well."""
        with self._lock:
            self._hasher.wait_for(lambda: not self._unwritten)
            return self.error is None

    def clear(self) -> None:
        """Let go of all memory, once all is over and nobody writes any more."""
        with self._lock:
            self._window.clear()
            self._free.clear()

    # --- all below: with the lock held

    def _wake_connections(self) -> None:
        self._fetchers.notify_all()
        self._idle.notify_all()
        self._ahead.notify_all()

    def _extend(self) -> None:
        while len(self._window) < WINDOW:
            extent = next(self._extents, None)
            if extent is None:
                return
            piece = Piece(extent, arrived=extent.is_here, written=extent.is_here)
            for other in self._connections.values():
                if other.next == extent.start and extent.stop <= other.stop:
                    piece.owner, other.next = other.number, extent.stop
                    break
            self._window.append(piece)

    def _at(self, offset: int) -> Piece | None:
        for piece in self._window:
            if piece.extent.start <= offset < piece.extent.stop:
                return piece
        return None

    @staticmethod
    def _fits(me: Connection, piece: Piece, offset: int) -> bool:
        """Tell whether what comes at an offset begins a piece, or goes on with what is here."""
        kept = 0 if piece.rival == me.number or piece.data is None else piece.data.filled
        return offset in (piece.extent.start, piece.extent.start + kept)

    @staticmethod
    def _may_begin(me: Connection, piece: Piece) -> bool:
        """Tell whether a kill costs a connection no more than a chunk if it begins a piece now."""
        behind = sum(each.length for each in me.behind)
        return len(me.behind) < BEHIND and behind + piece.length <= PIECE

    def _first_is_here(self) -> bool:
        return bool(self._window) and self._window[0].arrived

    def _sits_out(self, me: Connection) -> bool:
        """Tell whether others do better without this connection."""
        others = (
            other
            for other in self._connections.values()
            if other is not me and not other.resting and other.source != me.source
        )
        return any(self._is_far_better(other, me) for other in others)

    def _is_far_better(self, one: Connection, other: Connection) -> bool:
        """Compare two connections. It must be an order: or all might wait for one another."""
        if bool(one.standing.failures) != bool(other.standing.failures):
            return not one.standing.failures and one.rate > 0
        return other.rate > 0 and one.rate_now(self._clock()) > FAR * other.rate

    def _is_alone(self, me: Connection) -> bool:
        others = (other for other in self._connections.values() if other is not me)
        return all(other.resting or self._sits_out(other) for other in others)

    def _is_needed_elsewhere(self, me: Connection) -> bool:
        """Tell whether the window will not move on unless this connection fetches what is amiss."""
        if self._first_unowned(me) is not None and self._is_alone(me):
            return True
        return self._held_up(me) is not None

    def _first_unowned(self, me: Connection) -> Piece | None:
        return next((piece for piece in self._window if self._is_free(me, piece)), None)

    def _is_free(self, me: Connection, piece: Piece) -> bool:
        """Tell whether a connection may begin a piece that nobody has."""
        return (
            piece.owner is None and not piece.arrived and not self._is_kept_for_another(me, piece)
        )

    def _is_kept_for_another(self, me: Connection, piece: Piece) -> bool:
        """Tell whether only its giver may go on with a piece: two would undo each other's work.

        Unless nothing has come of that source for a while. That it failed says nothing: where all
        break off again and again, each piece that arrives makes another source the worse one.
        """
        if not piece.alone or self._is_begun_by(me, piece):
            return False
        now = self._clock()
        return any(
            self._is_begun_by(other, piece) and other.silence(now) < STALL
            for other in self._connections.values()
        )

    @staticmethod
    def _is_begun_by(one: Connection, piece: Piece) -> bool:
        """Tell whether a piece has to come from one source, and that has brought some of it."""
        return piece.alone and piece.data is not None and piece.data.givers == {one.source}

    def _kept_for(self, me: Connection) -> Piece | None:
        """Return a piece that others leave to this connection, even if it sits out."""
        return next(
            (
                piece
                for piece in self._window
                if piece.owner is None and not piece.arrived and self._is_begun_by(me, piece)
            ),
            None,
        )

    def _unowned(self, me: Connection) -> Piece | None:
        found = self._first_unowned(me)
        if found is None:
            # Somebody asked for all the rest: from the window's end on it is to be shared.
            for other in self._connections.values():
                if other is not me and other.next < other.stop:
                    other.stop = other.next
        return found

    def _held_up(self, me: Connection) -> Piece | None:
        """Return a piece that its owner holds up and that this connection has sooner."""
        now = self._clock()
        for piece in self._window:
            owner = self._connections.get(-1 if piece.owner is None else piece.owner)
            if piece.arrived or owner is None or owner is me or piece.rival is not None:
                continue
            if not me.rate and owner.silence(now) < 5 * STALL:
                return None  # not even its own rate is known
            rate = owner.rate_now(now)
            if not rate:
                rate = piece.length / max(now - piece.begun, 1e-3) if piece.begun else 0.0
            if rate and me.rate and piece.length / rate < 2 * piece.length / me.rate + 0.05:
                return None
            return piece
        return None

    def _begin(self, me: Connection, first: Piece) -> tuple[int, int]:
        if first.owner is not None and (first.begun or self._is_kept_for_another(me, first)):
            first.rival = me.number
            me.next = me.stop = first.extent.stop
            return first.extent.start, first.extent.stop
        owner = self._connections.get(-1 if first.owner is None else first.owner)
        if owner is not None:
            owner.next = owner.stop = first.extent.start  # it had not begun: taken over
            for piece in self._window:
                if piece.owner == owner.number and not piece.begun and not piece.arrived:
                    piece.owner = None
        most = RUN if me.rate and not self._sits_out(me) else 1
        most = len(self._window) if self._is_alone(me) else most
        stop = first.extent.start
        for piece in self._window:
            if piece.extent.start != stop:
                continue
            if not most or (piece is not first and not self._is_free(me, piece)):
                break
            piece.owner, stop, most = me.number, piece.extent.stop, most - 1
        me.next = me.stop = stop
        if self._is_alone(me) and stop == self._window[-1].extent.stop:
            place = bisect_left(self._here, (stop, 0))
            me.stop = self._here[place][0] if place < len(self._here) else self._length
        if first.data is not None and first.alone and first.data.givers != {me.source}:
            self._drop(first.data)
            first.data = None
        return first.extent.start + (first.data.filled if first.data else 0), me.stop

    def _attempt(self, me: Connection, piece: Piece, offset: int) -> Attempt:
        if piece.rival != me.number:
            piece.begun = piece.begun or self._clock()
            attempt, piece.data = piece.data, None
            if attempt is not None:
                if piece.extent.start + attempt.filled == offset:
                    return attempt
                self._drop(attempt)
        return Attempt(self._free.pop())

    def _drop(self, attempt: Attempt) -> None:
        self._free.append(attempt.buffer)

    def _free_data(self, piece: Piece) -> None:
        if piece.written and piece.hashed and piece.data is not None:
            self._drop(piece.data)
            piece.data = None
