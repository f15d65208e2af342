"""The floors on disk: two checksummed copies, written one after the other."""

import contextlib
from pathlib import Path

from modelward.errors import FormatError
from modelward.formats.floors import Floors
from modelward.install import fsops

COPIES = ("floors.a", "floors.b")


class FloorStore:
    """Keeps floors in a directory outside of TUF's cache.

    Args:
        directory: Where the copies are.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def load(self) -> Floors:
        """Return the floors: of two intact copies, the higher one; none if both are lost."""
        found = Floors()
        for name in COPIES:
            with contextlib.suppress(OSError, FormatError):
                copy = Floors.parse((self._directory / name).read_bytes())
                if _age(copy) >= _age(found):
                    found = copy
        return found

    def mend(self) -> None:
        """Write a copy anew that is damaged or lags behind the other; if both are, neither."""
        floors = self.load()
        if floors != Floors():
            self.save(floors)

    def save(self, floors: Floors) -> None:
        """Write both copies, durably; a cut between them leaves one intact.

        A copy that is right already is left alone, one that was damaged is mended.
        """
        data = floors.to_bytes()
        for name in COPIES:
            path = self._directory / name
            with contextlib.suppress(OSError):
                if path.read_bytes() == data:
                    continue
            fsops.write_file(path, data, 0o600)


def _age(floors: Floors) -> tuple[int, int, int]:
    """Order floors: they only rise, and after a key rotation root has risen."""
    timestamp = floors.timestamp.version if floors.timestamp else 0
    return floors.root, timestamp, sum(floors.releases.values())
