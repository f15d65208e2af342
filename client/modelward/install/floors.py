"""The floors on disk: two checksummed copies, each replaced atomically."""

import contextlib
from collections.abc import Mapping
from pathlib import Path

from modelward.errors import FormatError, Gate
from modelward.formats.floors import Floors
from modelward.install import fsops, memory

COPIES = ("floors.a", "floors.b")


class FloorStore:
    """Keeps floors in a directory outside of TUF's cache.

    Args:
        directory: Where the copies are.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def load(self) -> Floors:
        """Return the floors: of two intact copies, the higher one; none if none is intact.

        Raises:
            Unavailable: They cannot be read, and may be intact.
        """
        return _highest(self._copies())

    def mend(self) -> None:
        """Write a copy anew that is damaged or lags behind the other; if both are, neither.

        Raises:
            Unavailable: They cannot be read.
        """
        copies = self._copies()
        floors = _highest(copies)
        if floors != Floors():
            self._write(floors, copies)

    def save(self, floors: Floors) -> None:
        """Write both copies, durably; a power cut leaves each as it was or as it is to be.

        A copy that is right already is left alone, one that was damaged is mended.

        Raises:
            Unavailable: What is there cannot be read: nothing is written over it.
        """
        self._write(floors, self._copies())

    def _copies(self) -> Mapping[str, bytes]:
        return memory.read_copies(self._directory, COPIES, Floors.parse, Gate.RECOVER)

    def _write(self, floors: Floors, copies: Mapping[str, bytes]) -> None:
        data = floors.to_bytes()
        stale = [name for name in COPIES if copies.get(name) != data]
        if stale:
            fsops.write_copies(self._directory, stale, data, 0o600)


def _highest(copies: Mapping[str, bytes]) -> Floors:
    found = Floors()
    for data in copies.values():
        with contextlib.suppress(FormatError):
            copy = Floors.parse(data)
            if _age(copy) >= _age(found):
                found = copy
    return found


def _age(floors: Floors) -> tuple[int, int, int]:
    """Order floors: they only rise, and after a key rotation root has risen."""
    timestamp = floors.timestamp.version if floors.timestamp else 0
    return floors.root, timestamp, sum(floors.releases.values())
