"""What a block of a tensor delta holds: differences of elements, split into planes, compressed.

The inverse of `modelward.transfer.patch.lanes`, with numpy: a publisher has it.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from modelward.transfer.patch.frames import zstd
from modelward.transfer.patch.operations import Coding
from modelward.transfer.patch.tensor_delta import CRUMBS, PLANE

_Parameter = zstd.CompressionParameter
# Planes are noise with a skewed distribution: entropy coding is all that helps. Matches of less
# than 7 bytes are chance, and a larger table finds more of them: larger and slower, both.
ENTROPY: dict[int, int] = {
    _Parameter.compression_level: 1,
    _Parameter.strategy: zstd.Strategy.fast,
    _Parameter.min_match: 7,
    _Parameter.window_log: 17,
    _Parameter.hash_log: 6,
}
# A Huffman code spends a bit on each symbol. With four elements to a symbol, it is worth its bit.
SPARSE = 0.005, 0.3  # of a plane: what it comes to where crumbs are tried
SAMPLES, SAMPLE = 8, 8 << 10  # so many parts of a plane, of so many bytes, are tried first
WORTH = 0.9  # of a plane's size: what crumbs must save, since they take longer to decode

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


def packed_planes(elements: Elements) -> list[bytes]:
    """Return the planes of elements as a block has them: lengths and zstd frames."""
    octets = elements.view(np.uint8).reshape(-1, elements.itemsize)
    return [_packed(octets[:, plane].copy()) for plane in range(elements.itemsize)]


def _packed(plane: Elements) -> bytes:
    frame = _compress(plane)
    if SPARSE[0] < len(frame) / len(plane) < SPARSE[1] and _is_worth_crumbs(plane):
        low, rest = _in_crumbs(plane)
        if len(low) + len(rest) < WORTH * len(frame):
            return PLANE.pack(len(low) | CRUMBS) + low + PLANE.pack(len(rest)) + rest
    return PLANE.pack(len(frame)) + frame


def _is_worth_crumbs(plane: Elements) -> bool:
    stride = max(SAMPLE, len(plane) // SAMPLES)
    starts = range(0, len(plane), stride)
    sample = np.concatenate([plane[start : start + SAMPLE] for start in starts])
    return sum(map(len, _in_crumbs(sample))) < WORTH * len(_compress(sample))


def _in_crumbs(plane: Elements) -> tuple[bytes, bytes]:
    """Return two frames: the two low bits of bytes, four to a byte, the first lowest; the rest."""
    padded = np.zeros(-(-len(plane) // 4) * 4, np.uint8)
    padded[: len(plane)] = plane
    fours: Elements = padded.view("<u4") & 0x03030303
    low: Elements = (fours | fours >> 6 | fours >> 12 | fours >> 18).astype(np.uint8)
    return _compress(low), _compress(plane >> 2)


def _compress(octets: Elements) -> bytes:
    return zstd.compress(octets.tobytes(), options=ENTROPY)


def _monotone(bits: Elements, width: int) -> Elements:
    """Map the bits of floats to integers in the same order."""
    sign: Elements = bits.view(f"<i{width}") >> (8 * width - 1)
    magnitude: Elements = np.array((1 << (8 * width - 1)) - 1, f"<u{width}")
    return bits ^ (sign.view(f"<u{width}") & magnitude)
