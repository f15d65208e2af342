"""What a block of a tensor delta holds: differences of elements, split into planes, compressed.

The inverse of `modelward.transfer.patch.lanes`, with numpy: a publisher has it.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from modelward.transfer.patch.frames import zstd
from modelward.transfer.patch.operations import Coding

_Parameter = zstd.CompressionParameter
# Planes are noise with a skewed distribution: entropy coding is all that helps. Matches of less
# than 7 bytes are chance, and a larger table finds more of them: larger and slower, both.
_FAST: dict[int, int] = {
    _Parameter.compression_level: 1,
    _Parameter.strategy: zstd.Strategy.fast,
    _Parameter.min_match: 7,
    _Parameter.window_log: 17,
    _Parameter.hash_log: 6,
}
_THOROUGH: dict[int, int] = {_Parameter.compression_level: 19}

Elements = NDArray[Any]  # of unsigned integers


def residue(coding: Coding, width: int, base: bytes, target: bytes) -> Elements:
    """Return what turns the base's elements into the target's.

    Args:
        coding: How; with `RAW`, the base is not looked at.
        width: Bytes of an element, little-endian.
        base: The base's elements.
        target: As many bytes.
    """
    new: Elements = np.frombuffer(target, f"<u{width}")
    if coding is Coding.RAW:
        return new
    old: Elements = np.frombuffer(base, f"<u{width}")
    if coding is Coding.XOR:
        return new ^ old
    if coding is Coding.FLOAT:
        new, old = _monotone(new, width), _monotone(old, width)
    difference: Elements = (new - old).view(f"<i{width}")
    zigzag: Elements = (difference << 1) ^ (difference >> (8 * width - 1))
    return zigzag.view(f"<u{width}")


def packed_planes(elements: Elements, *, thorough: bool = False) -> list[bytes]:
    """Return the planes of elements, each as one zstd frame.

    Args:
        elements: Elements of one block.
        thorough: Try harder, which takes two hundred times as long and saves at most a few percent.
    """
    width = elements.itemsize
    octets = elements.view(np.uint8).reshape(-1, width)
    planes = [octets[:, plane].tobytes() for plane in range(width)]
    packed = [zstd.compress(plane, options=_FAST) for plane in planes]
    if thorough:
        harder = [zstd.compress(plane, options=_THOROUGH) for plane in planes]
        return [min(pair, key=len) for pair in zip(packed, harder, strict=True)]
    return packed


def _monotone(bits: Elements, width: int) -> Elements:
    """Map the bits of floats to integers in the same order."""
    sign: Elements = bits.view(f"<i{width}") >> (8 * width - 1)
    magnitude: Elements = np.array((1 << (8 * width - 1)) - 1, f"<u{width}")
    return bits ^ (sign.view(f"<u{width}") & magnitude)
