"""The arithmetic of a tensor delta, done by Python's integers, or by numpy where it is installed.

Both give the same bytes. Python's integers need nothing; numpy, the extra `speed`, is several times
as fast and lets other threads run meanwhile (docs/adr/0011).
"""

from contextlib import suppress
from importlib import import_module
from typing import Protocol, cast

from modelward.transfer.patch import lanes
from modelward.transfer.patch.operations import Coding

LARGE = 48 << 20  # bytes of a new file: below, loading numpy takes longer than it saves


class Arithmetic(Protocol):
    """Turns planes to elements, and a base's elements to new ones."""

    def interleave(self, planes: list[bytes]) -> memoryview:
        """Return elements, given the planes of their first bytes, second bytes and so on.

        Args:
            planes: 1, 2, 4 or 8, of one length.
        """
        ...

    def from_crumbs(self, low: bytes, rest: bytes) -> bytes:
        """Return a plane, given the two low bits of its bytes, four to a byte, and all other bits.

        Args:
            low: The low bits; the first byte's are lowest. As many bytes as needed.
            rest: The plane's bytes, shifted right by two. What a shift back would push out of a
                byte is dropped: only a forged patch has it.
        """
        ...

    def combine(
        self, coding: Coding, width: int, elements: memoryview, residue: memoryview
    ) -> None:
        """Put new elements in the place of the base's.

        Args:
            coding: How the residue was made: `SUBTRACT`, `FLOAT` or `XOR`.
            width: Bytes of an element, little-endian.
            elements: The base's, at most `lanes.PIECE` bytes; the new ones afterwards.
            residue: What the patch has for them; as many bytes.
        """
        ...


def arithmetic(length: int) -> Arithmetic:
    """Return the faster one of those that are here.

    Args:
        length: Bytes of the new file.
    """
    if length >= LARGE:
        with suppress(ImportError):  # not installed, or not for this machine
            return cast("Arithmetic", import_module("modelward.transfer.patch.vectors"))
    return lanes
