"""Devices that fetch the same blob at the same time share the uplink: each brings a part of it.

Every piece has an owner among the devices that want the blob, by rendezvous hashing: everybody
works out the same one, without asking. A device fetches what it owns from the repository, and
everything else from whoever has it by now. What it is fetching it says, so that who joins later
and would own that leaves it to it. It waits for others a bounded time only: who brings
nothing is not counted on any more, and its pieces are others' to bring, at last one's own. Where
all neighbours together are far slower than the repository, it is asked for what they have, too.
It is asked as patiently as always; once it is given up and nobody near has anything to bring
either, gathering is over. Where a far cheaper way leads to the blob than all its bytes, it is over
once nobody near turns out to be at it.

Pieces are checked against the chunk index before they are kept or handed on. The index is believed
in nothing else: the whole file's digest is computed afterwards (`modelward.transfer.fetch`).
"""

import functools
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from threading import Condition, Thread
from typing import Protocol

from modelward.errors import NoRanges, NotFound, Refused, Unavailable
from modelward.formats.chunks import ChunkIndex
from modelward.formats.have import Have
from modelward.formats.release import Blob
from modelward.transfer import pieces
from modelward.transfer.fetch import ENOUGH, some
from modelward.transfer.pieces import PIECE, Extent
from modelward.transfer.shares import Shares
from modelward.transfer.shelf import Partial, Shelf
from modelward.transfer.sources import Kind, Reader, Sources, Standing, rather, wrong

MOST = 16  # neighbours at once
POLL = 0.5  # seconds between two looks at what a neighbour has
FIRST = 3.0  # seconds to wait for neighbours' first answers before the repository is asked
STALL = 5.0  # seconds, at least, without any piece before somebody is not counted on any more
SLOW = 3.0  # ... or so many times what one of one's own pieces took
FAR = 4  # times as fast as all neighbours: the repository is asked for what is theirs to bring
FAILURES = 3  # of a neighbour, before it is left alone

TICK = 0.1  # seconds between two looks at how far things are
PARTING = 0.1  # seconds: for a thread to end that was hung up on

Progress = Callable[[int], None]
Open = Callable[[Blob, int, int], Reader]


class Peer(Protocol):
    """A neighbour; see `modelward.transfer.neighbour.Neighbour`."""

    def have(self, blob: Blob) -> Have:
        """Return what it says that it has."""
        ...

    def open_part(self, blob: Blob, start: int, stop: int) -> Reader:
        """Return a reader of a part."""
        ...


@dataclass(frozen=True)
class Neighbourhood:
    """The neighbours there are.

    Attributes:
        me: This device's own id, as it tells others.
        peers: Neighbours, by the name that they have as sources.
    """

    me: str
    peers: Mapping[str, Peer]


def _nothing() -> None:
    pass


def gather(  # noqa: PLR0913 - the last three are named
    sources: Sources,
    near: Neighbourhood,
    blob: Blob,
    shelf: Shelf,
    index: ChunkIndex,
    *,
    is_dear: bool = False,
    progress: Progress,
    go_on: Callable[[], None] = _nothing,
) -> bool:
    """Bring as much of a blob as possible together with neighbours. It is not verified as a whole.

    Args:
        sources: Where from; neighbours among them by the names that `near` has.
        near: The neighbours.
        blob: What.
        shelf: Where to.
        index: What it consists of.
        is_dear: Whether a way to it is so much cheaper than all its bytes that it is to be gone
            where nobody near is at this one.
        progress: Told of bytes as they are there.
        go_on: Called now and then; may raise to stop. What arrived is kept.

    Returns:
        Whether all of it is there.

    Raises:
        OSError: It cannot be written.
    """
    if (index.sha256, index.length) != (blob.sha256, blob.length):
        return False
    standings = [
        standing
        for standing in sources.for_blobs()
        if standing.source.kind is Kind.NEIGHBOUR
        and standing.source.name in near.peers
        and standing.failures < FAILURES  # or each file would wait for who never answers
    ][:MOST]
    if not standings:
        return False
    with shelf.partial(blob) as partial:
        partial.share(begins=True)
        swarm = _Swarm(sources, near, blob, partial, index, progress, is_dear=is_dear)
        try:
            return swarm.run(standings, go_on)
        finally:
            partial.share(begins=False)


class _Swarm:
    """One blob, while it is gathered. Threads: one asks the repository, one each neighbour."""

    def __init__(  # noqa: PLR0913, PLR0917 - see `gather`
        self,
        sources: Sources,
        near: Neighbourhood,
        blob: Blob,
        partial: Partial,
        index: ChunkIndex,
        progress: Progress,
        *,
        is_dear: bool,
    ) -> None:
        self._sources = sources
        self._near = near
        self._is_dear = is_dear
        self._blob = blob
        self._partial = partial
        self._progress = progress
        self._clock = sources.clock
        self._pieces: Sequence[Extent] = tuple(pieces.indexed(index, partial.extents))
        self._shares = Shares(near.me, blob.sha256, self._pieces)
        self._changed = Condition()  # guards all that follows, the shares, and the file
        self._unheard: set[str] = set()  # neighbours that have not answered yet
        self._asked: dict[str, float] = {}  # when neighbours that answered were last asked
        self._over = False
        self._is_in_vain = False  # whether a cheaper way is to be gone instead
        self._is_shared = False  # whether a neighbour brought a piece
        self._suspects: set[int] = set()  # far sources that contradicted the index
        self._error: BaseException | None = None
        self._readers: set[Reader] = set()  # answers that are being received
        self._left = 0  # neighbours whose thread has ended
        self._is_far_left = True  # whether the repository, or a mirror, may still bring something
        self._hoped = self._clock()  # when there last was somebody who might bring something
        self._moved = self._clock()  # when a piece last arrived
        self._set_out = self._clock()  # when the repository was first asked
        self._slowest = 0.0  # seconds that a piece took from the repository
        self._far_rate = max(  # bytes a second; 0 if not known
            (each.rate for each in sources.for_blobs() if each.source.kind is not Kind.NEIGHBOUR),
            default=0.0,
        )
        self._near_rate: float | None = None  # of all neighbours, while they were last looked at
        self._near_bytes = 0  # that they brought ...
        self._is_doubtful = False  # whether they brought any
        self._looked = self._clock()  # ... since they were
        self._arrived = 0  # bytes since the caller was last told

    def run(self, standings: Sequence[Standing], go_on: Callable[[], None]) -> bool:
        """Gather until everything is here, or nobody near brings any more; tell which."""
        work = [functools.partial(self._ask_neighbour, each) for each in standings]
        threads = [
            Thread(target=self._guarded, args=(each,), name="modelward-swarm", daemon=True)
            for each in (self._ask_origin, *work)
        ]
        self._unheard = {each.source.name for each in standings}
        try:
            for thread in threads:
                thread.start()
            while not self._is_over(len(standings)):
                self._tell()
                go_on()
        finally:
            self._end()
            for thread in threads:
                if thread.is_alive():
                    thread.join(PARTING)  # who is not answered yet ends later, and writes nothing
            self._tell()
        if self._error is not None:
            raise self._error
        return not self._shares.missing

    # --- the caller's thread

    def _is_over(self, neighbours: int) -> bool:
        with self._changed:
            self._changed.wait(TICK)
            if self._is_far_left or self._shares.is_any_near():
                self._hoped = self._clock()
            # Without neighbours, fetching as always is better; without hope, too.
            alone = self._left >= neighbours or self._clock() - self._hoped > STALL
            return not self._shares.missing or alone or self._is_in_vain or self._error is not None

    def _end(self) -> None:
        with self._changed:
            self._over = True  # from here on, nothing is written
            readers = tuple(self._readers)
            self._changed.notify_all()
        for reader in readers:
            reader.close()  # wakes up who waits for it

    def _tell(self) -> None:
        with self._changed:
            count, self._arrived = self._arrived, 0
        if count:
            self._progress(count)

    def _guarded(self, work: Callable[[], None]) -> None:
        try:
            work()
        except BaseException as error:  # noqa: BLE001 - raised by the caller's thread
            with self._changed:
                if not self._over:  # else it comes of being hung up on
                    self._error = self._error or error
                    self._changed.notify_all()

    # --- the thread that asks the repository

    def _ask_origin(self) -> None:
        buffer, patience, failures = self._partial.buffers(1, PIECE)[0], self._sources.patience, 0
        with self._changed:
            self._changed.wait_for(lambda: self._over or not self._unheard, FIRST)
            if self._is_dear:  # who begins at about the same time has nothing to show yet
                self._changed.wait_for(lambda: self._over or self._shares.is_any_at_it(), 2 * POLL)
                self._is_in_vain = not self._shares.is_any_at_it()
            joined = self._clock()
            self._changed.wait_for(lambda: self._over or self._is_noticed(joined), FIRST)
            self._set_out = self._clock()
        while (number := self._own()) is not None:
            began = self._clock()
            try:
                self._from_afar(number, buffer)
            except Unavailable as error:
                failures += 1
                if error.again is None or failures >= patience.tries:
                    break
                self._pause(patience.before_try(failures, error.again))
            else:
                failures = 0
                self._slowest = max(self._slowest, self._clock() - began)
        with self._changed:
            self._is_far_left = False  # neighbours may still bring what they have

    def _is_noticed(self, joined: float) -> bool:
        """Tell whether all who fetch know of this device, and told since what they took before.

        Or two that begin at about the same time would ask the repository for the same.
        """
        return all(
            self._asked.get(name, 0.0) > joined + POLL
            for name, held in self._shares.held.items()
            if held.fetches
        )

    def _own(self) -> int | None:
        """Wait for a piece that is this device's to bring; None when there is nothing to do."""
        with self._changed:
            while not self._over and self._shares.missing:
                self._look_at_neighbours()
                if self._is_in_vain:
                    return None
                number = self._shares.take_own()
                if number is None and self._is_held_up():
                    number = self._shares.take_any()
                if number is not None:
                    # Told before it is asked for: who begins meanwhile need not ask for it, too.
                    self._partial.coming(*self._pieces[number][:2])
                    return number
                self._changed.wait(POLL)
            return None

    def _look_at_neighbours(self) -> None:
        """Now and then, see how fast they are all together.

        If nothing comes, one less is counted on; if then still nothing comes, that is their rate:
        there is no point in giving up one after the other. And if nothing ever came, though this
        device brought its own meanwhile, whoever wants the blob only says so.
        """
        now = self._clock()
        patience = max(STALL, SLOW * self._slowest)
        seconds, came = now - self._looked, self._near_bytes
        if seconds <= patience:
            return
        self._looked, self._near_bytes = now, 0
        if not came:
            if self._is_dear and not self._is_shared and now - self._set_out > patience:
                self._is_in_vain = bool(self._slowest) or self._is_doubtful
            if now - self._moved <= patience:
                return  # there was enough to bring from the repository
            if not self._is_doubtful:
                self._is_doubtful = True
                self._shares.count_on_fewer()
                return
        self._is_doubtful = not came
        self._near_rate = came / seconds

    def _is_held_up(self) -> bool:
        """Tell whether the repository is so much faster that the uplink need not be spared."""
        if self._near_rate is None:
            return False
        if not self._far_rate:  # one piece tells; it is likely to cross the uplink once too often
            return self._shares.missing * PIECE > FAR * STALL * self._near_rate
        return FAR * self._near_rate < self._far_rate

    def _from_afar(self, number: int, buffer: memoryview) -> None:
        """Bring a piece from the first who delivers it: the repository or a mirror of it.

        Raises:
            Unavailable: Nobody did. It may help to ask again if anybody said so.
        """
        problem: Unavailable | None = None
        try:
            for standing in self._sources.for_blobs():
                if standing.source.kind is Kind.NEIGHBOUR or not standing.ranges:
                    continue
                if standing.order in self._suspects:
                    continue
                try:
                    self._bring(number, standing, buffer, standing.source.open)
                except Refused as error:
                    self._sources.ban(standing, error)
                except NoRanges as error:  # all of the file for every piece: too dear
                    standing.ranges = False
                    problem = rather(problem, error)
                except Unavailable as error:
                    self._failed(standing, error)
                    problem = rather(problem, error)
                else:
                    return
        finally:
            self._put_back(number)  # unless it is here
        raise problem or Unavailable("there is no source of parts left but neighbours")

    # --- one thread a neighbour

    def _ask_neighbour(self, standing: Standing) -> None:
        name, peer, failures = standing.source.name, self._near.peers[standing.source.name], 0
        buffer = self._partial.buffers(1, PIECE)[0]
        while failures < FAILURES and not self._over:
            asked = self._clock()
            try:
                have = peer.have(self._blob)
                if have.neighbour == self._near.me:
                    break  # it is this very device
                with self._changed:
                    self._shares.note(name, have)
                    self._unheard.discard(name)
                    self._asked[name] = asked
                    self._changed.notify_all()
                # Asked again now and then: what it is fetching changes while it gives what it has.
                while (
                    self._clock() - asked <= POLL and (number := self._near_one(name)) is not None
                ):
                    try:
                        self._bring(number, standing, buffer, peer.open_part)
                    finally:
                        self._put_back(number)  # unless it is here
                    failures = 0
            except Refused as error:
                self._sources.ban(standing, error)
                break
            except NotFound:
                failures += 1  # it moved on, or never had what it said
            except Unavailable as error:
                self._failed(standing, error)
                failures += 1
            with self._changed:
                self._unheard.discard(name)
            self._pause(POLL - (self._clock() - asked))
        with self._changed:
            self._left += 1
            self._unheard.discard(name)
            self._shares.forget(name)
            self._changed.notify_all()

    def _near_one(self, name: str) -> int | None:
        """Take any piece that a neighbour has: at random, so that not all ask for the same."""
        with self._changed:
            return None if self._over else self._shares.take_from(name, random.choice)

    # --- any of them

    def _bring(self, number: int, standing: Standing, buffer: memoryview, open_: Open) -> None:
        """Bring one piece and keep it, if it is what the index says and nobody was faster.

        Raises:
            Refused: It is not.
            Unavailable: It was not delivered, or all is over.
        """
        piece = self._pieces[number]
        length, name = piece.stop - piece.start, standing.source.name
        is_near = standing.source.kind is Kind.NEIGHBOUR
        view = self._partial.place(buffer, piece.start, length)
        began, filled = self._clock(), 0
        self._check_is_on()
        try:
            with self._reading(open_(self._blob, piece.start, piece.stop)) as reader:
                while filled < length:
                    count = some(reader.readinto(view[filled:]), name)
                    filled += count
                    with self._changed:
                        self._near_bytes += count if is_near else 0
                        if self._shares.is_here(number):
                            return  # somebody faster brought it
                reader.readinto(memoryview(bytearray(1)))  # its end: the connection is used again
        except Unavailable:
            if filled >= ENOUGH:
                self._sources.made_good(standing, filled)
            raise
        if not pieces.matches(piece, view):
            problem = wrong(name, f"wrong bytes {piece.start}-{piece.stop - 1} of the file")
            if is_near:  # anybody's, and nothing depends on it
                raise problem
            self._suspects.add(standing.order)  # or it is the index that is wrong
            raise Unavailable(problem.reason)
        with self._changed:
            self._check_is_on()
            seconds = max(self._clock() - began, 1e-6)
            self._sources.delivered(standing, length, seconds)
            if not is_near and length >= ENOUGH:
                self._far_rate = length / seconds
            if self._shares.is_here(number):
                return
            self._partial.write(piece.start, view, checked=True)
            self._shares.arrived(number, name)
            self._is_shared = self._is_shared or is_near
            self._moved = self._clock()
            self._arrived += length
            self._changed.notify_all()

    @contextmanager
    def _reading(self, reader: Reader) -> Iterator[Reader]:
        """Receive an answer: the caller's thread may hang up on whoever sends it."""
        try:
            with self._changed:
                self._check_is_on()
                self._readers.add(reader)
            yield reader
        finally:
            with self._changed:
                self._readers.discard(reader)
            reader.close()

    def _check_is_on(self) -> None:
        if self._over:
            raise Unavailable("nothing more is wanted")

    def _failed(self, standing: Standing, error: Unavailable) -> None:
        with self._changed:
            if not self._over:  # else it was this device that hung up
                self._sources.failed(standing, error)

    def _pause(self, seconds: float) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._over, seconds)

    def _put_back(self, number: int) -> None:
        with self._changed:
            self._shares.put_back(number)
            self._changed.notify_all()
