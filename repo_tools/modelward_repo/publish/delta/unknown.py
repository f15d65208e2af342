"""What the bytes of a format that is not understood most likely are: numbers, of which width?

GGUF, TFLite and whatever comes are mostly arrays of numbers as well. Which width, from which byte
on, and beside which bytes of the base, is tried on samples; that they are text is what to beat.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from modelward.transfer.patch.frames import zstd
from modelward.transfer.patch.operations import Coding
from modelward_repo.publish.delta.files import File
from modelward_repo.publish.delta.residue import packed_planes, residue

SAMPLES = 4
SAMPLE = 16 << 10  # bytes
BETTER = 0.9  # of the size as text: what numbers must come to
_WIDTHS = (1, 2, 4)
_TEXT_LEVEL = 6


@dataclass(frozen=True)
class Layout:
    """How to look at a part of a file.

    Attributes:
        width: Bytes of an element.
        phase: Bytes before the first one.
        shift: Where in the base the part of the same number begins, less where it begins here;
            None if the base is of no help.
    """

    width: int
    phase: int
    shift: int | None


def layout(base: File, target: File, start: int, end: int, shifts: set[int]) -> Layout | None:
    """Return how to look at a part of the new file; None to take it for text.

    Args:
        base: The base.
        target: The new file.
        start: Where the part begins.
        end: Where it ends.
        shifts: Where the base may have its like: see `Layout`.
    """
    places = range(start, end - SAMPLE - max(_WIDTHS), max(SAMPLE, (end - start) // SAMPLES))
    samples = [(place, target.read(place, SAMPLE + max(_WIDTHS))) for place in places]
    if not samples:
        return None
    text = sum(len(zstd.compress(sample[:SAMPLE], _TEXT_LEVEL)) for _, sample in samples)
    sizes = {
        each: sum(_size(base, each, place - start, place, sample) for place, sample in samples)
        for each in _layouts(shifts)
    }
    best = min(sizes, key=sizes.__getitem__)
    return best if sizes[best] < BETTER * text else None


def _layouts(shifts: set[int]) -> Iterator[Layout]:
    for width in _WIDTHS:
        for phase in range(width):
            for shift in (None, *sorted(shifts)):
                yield Layout(width, phase, shift)


def _size(base: File, each: Layout, done: int, place: int, sample: bytes) -> int:
    skip = (each.phase - done) % each.width
    new = sample[skip : skip + SAMPLE]
    if each.shift is None:
        elements = residue(Coding.RAW, each.width, b"", new)
    else:
        at = place + skip + each.shift
        old = base.read(at, SAMPLE) if at >= 0 else b""
        if len(old) < SAMPLE:
            return 2 * SAMPLE
        elements = residue(Coding.SUBTRACT, each.width, old, new)
    return sum(map(len, packed_planes(elements)))
