"""Arithmetic on many elements at once, in Python's own big integers: see `.arithmetic`.

A piece of a file is one integer, and each element is a lane of it. Python adds, shifts and masks
such integers at gigabytes a second, so that a device needs no numpy (docs/adr/0011). Nothing may
carry from one lane into the next: the top bit of each lane is added apart from the others.
"""

from functools import cache

from modelward.transfer.patch.operations import Coding

_SHIFTED = bytes(byte << 2 & 0xFF for byte in range(256))
_CRUMBS = tuple(bytes(byte >> shift & 3 for byte in range(256)) for shift in (0, 2, 4, 6))

PIECE = 128 << 10  # bytes: the most that is combined at once; a part of the format


def interleave(planes: list[bytes]) -> memoryview:
    """Return elements, given the planes of their first bytes, second bytes and so on."""
    if len(planes) == 1:
        return memoryview(planes[0])
    elements = bytearray(len(planes) * len(planes[0]))
    for index, plane in enumerate(planes):
        elements[index :: len(planes)] = plane
    return memoryview(elements)


def from_crumbs(low: bytes, rest: bytes) -> bytes:
    """Return a plane, given the two low bits of its bytes, four to a byte, and all other bits."""
    spread = bytearray(4 * len(low))
    for place, table in enumerate(_CRUMBS):
        spread[place::4] = low.translate(table)
    del spread[len(rest) :]
    if rest.count(0) == len(rest):
        return bytes(spread)
    high = int.from_bytes(rest.translate(_SHIFTED), "little")
    return (high | int.from_bytes(spread, "little")).to_bytes(len(rest), "little")


def combine(coding: Coding, width: int, elements: memoryview, residue: memoryview) -> None:
    """Put new elements in the place of the base's, at most `PIECE` bytes."""
    old = int.from_bytes(elements, "little")
    change = int.from_bytes(residue, "little")
    if coding is Coding.XOR:
        new = old ^ change
    else:
        lanes = _lanes(width)
        if coding is Coding.FLOAT:
            old = lanes.monotone(old)
        change = lanes.unzigzag(change)
        new = (old & lanes.rest) + (change & lanes.rest) ^ (old ^ change) & lanes.top
        if coding is Coding.FLOAT:
            new = lanes.monotone(new)
    elements[:] = new.to_bytes(len(elements), "little")


class _Lanes:
    """The lanes of a whole piece. A shorter one needs no others: what is masked is as short."""

    def __init__(self, width: int) -> None:
        self.bits = 8 * width
        self.low = int.from_bytes((b"\x01" + bytes(width - 1)) * (PIECE // width), "little")
        self.top = self.low << self.bits - 1
        self.rest = self.top - self.low  # all bits but the top one

    def unzigzag(self, change: int) -> int:
        """Return what 0, 1, 2, 3, 4 stand for: 0, -1, 1, -2, 2."""
        odd = change & self.low
        return (change ^ odd) >> 1 ^ self._filled(odd)

    def monotone(self, elements: int) -> int:
        """Map the bits of floats to integers in the same order, and back: its own inverse.

        Floats are a sign and a magnitude: where the sign is set, all other bits are inverted.
        """
        negative = elements & self.top
        return elements ^ (negative - (negative >> self.bits - 1))

    def _filled(self, odd: int) -> int:
        """Return lanes with all bits set where the lowest one is."""
        if self.bits <= 16:  # noqa: PLR2004 - one digit of Python's: the faster way
            return odd * ((1 << self.bits) - 1)
        return (odd << self.bits) - odd


@cache
def _lanes(width: int) -> _Lanes:
    return _Lanes(width)
