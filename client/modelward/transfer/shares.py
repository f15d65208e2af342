"""Who of several devices brings which piece of a blob. Pure: no clock, no network, no disk.

Rendezvous hashing: the device with the highest bid for a piece brings it. Bids follow from ids, so
all who see the same devices agree without a word, and when one is missing, only its pieces move.
"""

import hashlib
from array import array
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from enum import Enum

from modelward.formats.have import Have
from modelward.transfer.pieces import Extent


class State(Enum):
    """How a piece stands."""

    MISSING = 1
    TAKEN = 2
    HERE = 3


@dataclass
class Shares:
    """The pieces of one blob, and what others have of it.

    Attributes:
        me: This device's own id.
        sha256: The blob.
        pieces: What it consists of, in order.
        held: What each neighbour has, by its name: its id, whether it fetches, piece numbers.
        given_up: Names of neighbours that are not counted on.
    """

    me: str
    sha256: str
    pieces: Sequence[Extent]
    held: "dict[str, Held]" = field(default_factory=dict)
    given_up: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self._states = [State.HERE if piece.is_here else State.MISSING for piece in self.pieces]
        self.missing = sum(not piece.is_here for piece in self.pieces)
        self._bids: dict[str, array[int]] = {}  # of each id, by piece

    def note(self, name: str, have: Have) -> None:
        """Note what a neighbour says that it has. It keeps the id that it first had here."""
        numbers = set()
        remaining = iter([*have.extents, (1 << 62, 1 << 62)])
        first, last = next(remaining)
        for number, piece in enumerate(self.pieces):
            while last < piece.stop:
                first, last = next(remaining)
            if first <= piece.start:
                numbers.add(number)
        fetches = have.wants and len(numbers) < len(self.pieces)
        known = self.held.get(name)
        who = known.neighbour if known else have.neighbour
        self.held[name] = Held(who, fetches, frozenset(numbers))

    def forget(self, name: str) -> None:
        """Forget a neighbour that has left."""
        left = self.held.pop(name, None)
        if left is not None:
            self._bids.pop(left.neighbour, None)

    def is_any_near(self) -> bool:
        """Tell whether a neighbour has a piece that is not here."""
        return any(
            self._states[number] is not State.HERE
            for held in self.held.values()
            for number in held.numbers
        )

    def take_own(self) -> int | None:
        """Take the piece that is most clearly this device's to bring, if there is one."""
        counted = self._counted()
        near = set().union(*(held.numbers for held in counted.values()))
        rivals = {held.neighbour for held in counted.values() if held.fetches}
        own = [
            (self._bid(self.me, number), number)
            for number, state in enumerate(self._states)
            if state is State.MISSING
            and number not in near
            and all(self._bid(rival, number) < self._bid(self.me, number) for rival in rivals)
        ]
        return self._take(max(own)[1]) if own else None

    def take_from(self, name: str, choose: Callable[[Sequence[int]], int]) -> int | None:
        """Take a piece that a neighbour has, if there is one."""
        held = self.held.get(name)
        found = [
            number
            for number in sorted(held.numbers if held else ())
            if self._states[number] is State.MISSING
        ]
        return self._take(choose(found)) if found else None

    def put_back(self, number: int) -> None:
        """Let somebody else bring a piece."""
        if self._states[number] is State.TAKEN:
            self._states[number] = State.MISSING

    def arrived(self, number: int, name: str) -> None:
        """Note that a piece is here, and that whoever brought it can be counted on."""
        if self._states[number] is not State.HERE:
            self._states[number] = State.HERE
            self.missing -= 1
        self.given_up.discard(name)

    def count_on_fewer(self) -> bool:
        """Give up on the neighbour that most missing pieces are expected from.

        Returns:
            Whether there was anybody left to give up on.
        """
        counted = self._counted()
        expected: Counter[str] = Counter(dict.fromkeys(counted, 0))
        fetching = {name: held for name, held in counted.items() if held.fetches}
        for number, state in enumerate(self._states):
            if state is not State.HERE:
                holders = [name for name, held in counted.items() if number in held.numbers]
                owner = max(
                    fetching,
                    key=lambda name: self._bid(fetching[name].neighbour, number),
                    default=None,
                )
                expected.update(holders or ([owner] if owner is not None else []))
        for name, _ in expected.most_common(1):
            self.given_up.add(name)
            return True
        return False

    def _counted(self) -> "dict[str, Held]":
        return {name: held for name, held in self.held.items() if name not in self.given_up}

    def _take(self, number: int) -> int:
        self._states[number] = State.TAKEN
        return number

    def _bid(self, neighbour: str, number: int) -> int:
        bids = self._bids.get(neighbour)
        if bids is None:
            bids = self._bids[neighbour] = array("Q", self._hashed_bids(neighbour))
        return bids[number]

    def _hashed_bids(self, neighbour: str) -> Iterator[int]:
        for number in range(len(self.pieces)):
            text = f"{neighbour} {self.sha256} {number}".encode()
            yield int.from_bytes(hashlib.sha256(text).digest()[:8], "big")


@dataclass(frozen=True)
class Held:
    """What one neighbour has.

    Attributes:
        neighbour: Its id.
        fetches: Whether it is fetching the blob, and so brings pieces of it.
        numbers: The pieces that it has.
    """

    neighbour: str
    fetches: bool
    numbers: frozenset[int]
