"""Arithmetic on many elements at once, with numpy: see `modelward.transfer.patch.arithmetic`.

Every step of it frees the interpreter's lock, so that zstd and SHA-256 run beside it.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from modelward.transfer.patch.operations import Coding

_CRUMBS = 0x03030303  # of each of four bytes, the two low bits

Elements = NDArray[Any]  # of unsigned integers


def interleave(planes: list[bytes]) -> memoryview:
    """Return elements, given the planes of their first bytes, second bytes and so on."""
    parts: list[Elements] = [np.frombuffer(plane, "<u1") for plane in planes]
    while len(parts) > 1:  # first bytes with second ones, these pairs with the next, ...
        parts = [_joined(*pair) for pair in zip(parts[0::2], parts[1::2], strict=True)]
    return parts[0].view("<u1").data


def _joined(low: Elements, high: Elements) -> Elements:
    """Return elements twice as wide. Made whole, they come faster than byte by byte."""
    bits = 8 * low.itemsize
    wide = high.astype(f"<u{2 * low.itemsize}")
    np.left_shift(wide, bits, out=wide)
    np.bitwise_or(wide, low, out=wide)
    return wide


def from_crumbs(low: bytes, rest: bytes) -> bytes:
    """Return a plane, given the two low bits of its bytes, four to a byte, and all other bits."""
    packed: Elements = np.frombuffer(low, "<u1").astype("<u4")
    plane: Elements = packed | packed << 6 | packed << 12 | packed << 18
    np.bitwise_and(plane, _CRUMBS, out=plane)
    octets = plane.view("<u1")[: len(rest)]
    np.bitwise_or(octets, np.left_shift(np.frombuffer(rest, "<u1"), 2), out=octets)
    return octets.tobytes()


def combine(coding: Coding, width: int, elements: memoryview, residue: memoryview) -> None:
    """Put new elements in the place of the base's."""
    old: Elements = np.frombuffer(elements, f"<u{width}")
    change: Elements = np.frombuffer(residue, f"<u{width}")
    if coding is Coding.XOR:
        np.bitwise_xor(old, change, out=old)
        return
    if coding is Coding.FLOAT:
        _reorder(old, width)
    negative = change & 1
    np.negative(negative, out=negative)
    np.bitwise_xor(negative, change >> 1, out=negative)
    np.add(old, negative, out=old)
    if coding is Coding.FLOAT:
        _reorder(old, width)


def _reorder(elements: Elements, width: int) -> None:
    """Map the bits of floats to integers in the same order, and back, in place."""
    bits = 8 * width - 1
    sign: Elements = elements.view(f"<i{width}") >> bits
    magnitude = sign.view(f"<u{width}")
    np.right_shift(magnitude, 1, out=magnitude)  # all bits but the sign, where that is set
    np.bitwise_xor(elements, magnitude, out=elements)
