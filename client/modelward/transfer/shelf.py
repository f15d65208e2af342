"""Where blobs are put that are fetched; `modelward.install.store` is such a place."""

from collections.abc import Iterable
from contextlib import AbstractContextManager
from typing import Protocol

from modelward.formats.release import Blob


class Partial(Protocol):
    """A blob that is not whole yet; see `modelward.install.partial.Partial`."""

    @property
    def extents(self) -> list[tuple[int, int]]:
        """The parts that are there, as (start, stop), in order and apart."""
        ...

    def buffers(self, count: int, size: int) -> list[memoryview]:
        """Return buffers from which `write` is fast."""
        ...

    def place(self, buffer: memoryview, offset: int, length: int) -> memoryview:
        """Return the part of a buffer in which bytes have to lie that are written at `offset`."""
        ...

    def write(self, offset: int, data: memoryview, *, checked: bool = False) -> None:
        """Write bytes at their place, and note that they are there.

        Neighbours are handed only what was `checked`: whole chunks of the file's index.
        """
        ...

    def coming(self, start: int, stop: int) -> None:
        """Note that bytes were asked for: neighbours need not ask for them, too."""
        ...

    def share(self, *, begins: bool) -> None:
        """Note that it is brought together with neighbours from now on, or no more."""
        ...

    def read(self, offset: int, buffer: memoryview) -> bool:
        """Fill a buffer with what was written at an offset; tell whether it can still be read."""
        ...

    def restart(self) -> None:
        """Forget everything that is there: it is not what it should be."""
        ...

    def finish(self) -> None:
        """Let the blob appear, whole and durable."""
        ...


class Shelf(Protocol):
    """Where blobs are kept; see `modelward.install.store.Store`."""

    def add(self, blob: Blob, blocks: Iterable[memoryview]) -> None:
        """Keep a verified blob."""
        ...

    def partial(self, blob: Blob) -> AbstractContextManager[Partial]:
        """Return a blob that is not whole yet, with what was kept of it."""
        ...
