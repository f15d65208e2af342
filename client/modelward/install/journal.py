"""The journal on disk: one file, replaced atomically at every step."""

import contextlib
import os
from pathlib import Path

from modelward.errors import FormatError, Gate
from modelward.formats.journal import Journal
from modelward.install import fsops, memory

FILE = "journal"


class JournalStore:
    """Keeps the journal of a device.

    Args:
        directory: The state directory.
    """

    def __init__(self, directory: Path) -> None:
        self._path = directory / FILE
        self._unsaved: Journal | None = None

    def load(self) -> Journal:
        """Return the journal; an empty one if there is none, or none that is intact.

        What a lost journal knew is then forgotten, but what runs goes on running.

        Raises:
            Unavailable: It cannot be read, and may be intact.
        """
        return self._unsaved or self.intact() or Journal()

    def go_by(self, journal: Journal | None) -> None:
        """Let `load` return a journal that cannot be saved, until one is; None for what is saved.

        So nothing is done by what the one on disk says no more truly, nor saved with it.
        """
        self._unsaved = journal

    def intact(self) -> Journal | None:
        """Return the journal on disk; None if there is none, or a damaged one.

        Raises:
            Unavailable: It cannot be read, and may be intact.
        """
        data = memory.read(self._path, Gate.RECOVER)
        with contextlib.suppress(FormatError):
            return Journal.parse(data) if data is not None else None
        return None

    def save(self, journal: Journal) -> None:
        """Replace the journal, durably."""
        fsops.write_file(self._path, journal.to_bytes())
        self._unsaved = None

    def set_aside(self) -> bool:
        """Keep a damaged journal for people to look at; tell whether there was one."""
        if not os.path.lexists(self._path):
            return False
        fsops.set_aside(self._path)
        return True
