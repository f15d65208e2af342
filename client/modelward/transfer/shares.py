"""Who of several devices brings which piece of a blob. Pure: no clock, no network, no disk.

Rendezvous hashing: the device with the highest bid for a piece brings it. Bids follow from ids, so
all who see the same devices agree without a word, and when one is missing, only its pieces move.
"""

import hashlib
from array import array
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from modelward.formats.have import Have
from modelward.transfer.pieces import Extent


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
        self._here = [piece.is_here for piece in self.pieces]
        self._takers = [0] * len(self.pieces)  # how many are bringing each
        self.missing = sum(not piece.is_here for piece in self.pieces)
        self._bids: dict[str, array[int]] = {}  # of each id, by piece
        self._rivals: frozenset[str] | None = None  # those that want it too, when last looked
        self._won: Sequence[int] = ()  # the pieces that are not theirs

    def note(self, name: str, have: Have) -> None:
        """Note what a neighbour says that it has. It keeps the id that it first had here."""
        numbers = frozenset(self._inside(have.extents))
        coming = frozenset(self._inside(have.coming))
        fetches = have.wants and len(numbers) < len(self.pieces)
        known = self.held.get(name)
        who = known.neighbour if known else have.neighbour
        self.held[name] = Held(who, fetches, numbers, numbers | coming)

    def forget(self, name: str) -> None:
        """Forget a neighbour that has left."""
        left = self.held.pop(name, None)
        if left is not None:
            self._bids.pop(left.neighbour, None)

    def is_any_near(self) -> bool:
        """Tell whether a neighbour has a piece that is not here."""
        return any(not self._here[number] for held in self.held.values() for number in held.numbers)

    def is_any_at_it(self) -> bool:
        """Tell whether a neighbour has any of the blob, or is fetching it."""
        return any(held.fetches or held.expected for held in self.held.values())

    def take_own(self) -> int | None:
        """Take the piece that is most clearly this device's to bring, if there is one."""
        counted = self._counted().values()
        rivals = frozenset(held.neighbour for held in counted if held.fetches)
        for number in self._won_against(rivals):
            if self._is_open(number) and not any(number in held.expected for held in counted):
                return self._take(number)
        return None

    def take_any(self) -> int | None:
        """Take a piece whoever it is expected from, if there is one.

        Best one that nobody near has: those who want it too are spared it. At last one that is
        being brought.
        """
        near = set().union(*(held.expected for held in self.held.values()))
        return self._take(
            max(
                (number for number, here in enumerate(self._here) if not here),
                key=lambda number: (
                    not self._takers[number],
                    number not in near,
                    self._bid(self.me, number),
                ),
                default=None,
            )
        )

    def take_from(self, name: str, choose: Callable[[Sequence[int]], int]) -> int | None:
        """Take a piece that a neighbour has, if there is one."""
        held = self.held.get(name)
        found = [number for number in sorted(held.numbers if held else ()) if self._is_open(number)]
        return self._take(choose(found) if found else None)

    def put_back(self, number: int) -> None:
        """Let somebody else bring a piece that was taken, if it is not here."""
        self._takers[number] -= 1

    def is_here(self, number: int) -> bool:
        """Tell whether a piece is here."""
        return self._here[number]

    def arrived(self, number: int, name: str) -> None:
        """Note that a piece is here, and that whoever brought it can be counted on."""
        if not self._here[number]:
            self._here[number] = True
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
        for number, here in enumerate(self._here):
            if not here:
                holders = [name for name, held in counted.items() if number in held.expected]
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

    def _inside(self, extents: Sequence[tuple[int, int]]) -> Iterator[int]:
        """Yield the pieces that lie in parts of the blob."""
        remaining = iter([*extents, (1 << 62, 1 << 62)])
        first, last = next(remaining)
        for number, piece in enumerate(self.pieces):
            while last < piece.stop:
                first, last = next(remaining)
            if first <= piece.start:
                yield number

    def _counted(self) -> "dict[str, Held]":
        return {name: held for name, held in self.held.items() if name not in self.given_up}

    def _is_open(self, number: int) -> bool:
        return not self._here[number] and not self._takers[number]

    def _take(self, number: int | None) -> int | None:
        if number is not None:
            self._takers[number] += 1
        return number

    def _won_against(self, rivals: frozenset[str]) -> Sequence[int]:
        """Return the pieces for which this device bids most, where it is clearest first."""
        if rivals != self._rivals:
            mine: Sequence[int] = range(len(self.pieces))
            for rival in rivals:
                mine = [n for n in mine if self._bid(rival, n) < self._bid(self.me, n)]
            self._rivals = rivals
            self._won = sorted(mine, key=lambda n: self._bid(self.me, n), reverse=True)
        return self._won

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
        expected: Those, and the ones that it is bringing.
    """

    neighbour: str
    fetches: bool
    numbers: frozenset[int]
    expected: frozenset[int]
