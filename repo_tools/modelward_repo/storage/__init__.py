"""Where a repository lies: one interface, a local directory for now.

Everything in a repository is written once and never changed, but for `timestamp.json` (and the
log's checkpoint): so there is one call for new files and one for replacing, and a reader who
follows a timestamp always finds what it names.
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import BinaryIO, Protocol

from modelward.formats.release import Blob

Advance = Callable[[int], None]
"""Told how many more bytes are done."""


def quietly(_count: int) -> None:
    """Tell nobody."""


class Storage(Protocol):
    """Holds a repository's files, by relative paths with ``/``."""

    def read(self, path: str) -> bytes:
        """Return a small file.

        Raises:
            StorageError: There is none, or it cannot be read.
        """
        ...

    def open(self, path: str) -> BinaryIO:
        """Open a file for reading.

        Raises:
            StorageError: There is none, or it cannot be read.
        """
        ...

    def place(self, path: str) -> Path | None:
        """Return where a file lies on this machine; None if it does not, or there is none."""
        ...

    def exists(self, path: str) -> bool:
        """Tell whether there is such a file."""
        ...

    def size(self, path: str) -> int:
        """Return a file's length in bytes.

        Raises:
            StorageError: There is none.
        """
        ...

    def list(self, prefix: str) -> Iterator[str]:
        """Yield the paths of all files below a directory, sorted."""
        ...

    def write_new(self, path: str, data: bytes) -> None:
        """Write a file that never changes again; on return it outlives a power cut.

        Writing the same content again does nothing.

        Raises:
            StorageError: There is such a file with other content, or it cannot be written.
        """
        ...

    def copy_new(self, path: str, source: BinaryIO, blob: Blob, advance: Advance = quietly) -> None:
        """Copy a file of any size, piece by piece, as `write_new` does.

        Args:
            path: Where to.
            source: What to read from.
            blob: Length and digest that the content must have.
            advance: Told how many more bytes were copied.

        Raises:
            StorageError: The source, or the file already there, is not that blob.
        """
        ...

    def replace(self, path: str, data: bytes) -> None:
        """Put new content in place of a file: a reader sees the old or the new, never a mixture.

        Raises:
            StorageError: It cannot be written.
        """
        ...

    def lock(self, patience: float | None = None) -> AbstractContextManager[None]:
        """Wait until no other publisher changes the repository, and keep others waiting.

        Args:
            patience: Most seconds to wait; None for as long as it takes.

        Raises:
            StorageError: Another publisher was still at it.
        """
        ...
