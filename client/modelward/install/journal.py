"""The journal on disk: one file, replaced atomically at every step."""

import contextlib
from pathlib import Path

from modelward.errors import FormatError
from modelward.formats.journal import Journal
from modelward.install import fsops

FILE = "journal"
DAMAGED = "journal.damaged"


class JournalStore:
    """Keeps the journal of a device.

    Args:
        directory: The state directory.
    """

    def __init__(self, directory: Path) -> None:
        self._path = directory / FILE

    def load(self) -> Journal:
        """Return the journal; an empty one if there is none, or none that is intact.

        What a lost journal knew is then forgotten, but what runs goes on running.
        """
        with contextlib.suppress(OSError, FormatError):
            return Journal.parse(self._path.read_bytes())
        return Journal()

    def save(self, journal: Journal) -> None:
        """Replace the journal, durably."""
        fsops.write_file(self._path, journal.to_bytes())

    def set_damage_aside(self) -> bool:
        """Keep a journal that cannot be read for people to look at; tell whether it was one."""
        try:
            Journal.parse(self._path.read_bytes())
        except FileNotFoundError:
            return False
        except (OSError, FormatError):
            fsops.rename(self._path, self._path.with_name(DAMAGED))
            return True
        return False
