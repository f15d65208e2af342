"""Whatever the bytes: a verdict, within bounds."""

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelward.errors import FormatError
from modelward.trust.model_format import CHECKS, Reader, check
from modelward.trust.model_format.reader import MOST
from tests.trust.model_format.samples import samples

pytestmark = pytest.mark.fuzz

HUGE = 1 << 60  # bytes: of a file that ends where its reader says
NUMBERS = (0, 1, 0x7F, 0x80, 0xFF, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF, 1 << 40, (1 << 63) - 1)


@st.composite
def mutated(draw):
    """Return an honest file with a few bytes changed, cut out or put in, and its format."""
    file_format, honest = samples()[draw(st.sampled_from(sorted(samples())))]
    data = bytearray(honest)
    for _ in range(draw(st.integers(1, 6))):
        at = draw(st.integers(0, len(data)))
        length = draw(st.sampled_from((0, 1, 4, 8, 64)))
        width = draw(st.sampled_from((1, 4, 8)))
        number = draw(st.sampled_from(NUMBERS)) & ((1 << 8 * width) - 1)
        new = draw(st.binary(max_size=8) | st.just(number.to_bytes(width, "little")))
        data[at : at + length] = new
    return file_format, bytes(data)


class Metered:
    """Hands out bytes and counts how many, and how many at once."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.total = self.largest = 0

    def __call__(self, offset: int, length: int) -> bytes:
        assert offset >= 0
        assert length >= 0
        self.total += length
        self.largest = max(self.largest, length)
        return self.data[offset : offset + length]


def walk(file_format: str, data: bytes, size: int) -> Metered:
    meter = Metered(data)
    with suppress(FormatError):
        assert check(file_format, Reader("file", size, meter))
    return meter


@given(mutated())
def test_changed_files(case):
    file_format, data = case
    meter = walk(file_format, data, len(data))
    assert meter.largest <= len(data)
    assert meter.total <= 200 * len(data) + 10_000


@given(st.sampled_from(sorted(CHECKS)), st.binary(max_size=200))
def test_noise(file_format, data):
    walk(file_format, data, len(data))


@given(mutated())
def test_files_that_end_before_they_say(case):
    """However long a file claims to be, no more of it is asked for than a header may have."""
    file_format, data = case
    if file_format not in ("json", "text", "signature"):
        assert walk(file_format, data, HUGE).largest <= MOST
