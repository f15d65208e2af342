"""Arithmetic on many elements at once, by both who do it, compared with one element at a time."""

import struct
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelward.transfer.patch import arithmetic, lanes, vectors
from modelward.transfer.patch.operations import Coding

BOTH = pytest.mark.parametrize("doing", [lanes, vectors], ids=lambda module: module.__name__)
WIDTHS = st.sampled_from((1, 2, 4, 8))


def elements(data: bytes, width: int) -> list[int]:
    return [
        int.from_bytes(data[start : start + width], "little")
        for start in range(0, len(data), width)
    ]


def monotone(bits: int, width: int) -> int:
    """The integer, modulo its width, that is in the order of the float."""
    magnitude = bits & (1 << (8 * width - 1)) - 1
    return ~magnitude % (1 << 8 * width) if bits != magnitude else magnitude


def expected(coding: Coding, width: int, base: bytes, residue: bytes) -> bytes:
    modulus = 1 << 8 * width
    order = (lambda bits: monotone(bits, width)) if coding is Coding.FLOAT else lambda bits: bits
    back = {order(bits): bits for bits in range(modulus)} if width == 1 else None
    made = []
    for old, change in zip(elements(base, width), elements(residue, width), strict=True):
        if coding is Coding.XOR:
            made.append(old ^ change)
            continue
        number = (order(old) + (change >> 1 ^ -(change & 1))) % modulus
        if coding is not Coding.FLOAT:
            made.append(number)
        elif back:
            made.append(back[number])
        else:
            positive = number < modulus // 2
            made.append(number if positive else ~number % modulus | modulus // 2)
    return b"".join(number.to_bytes(width, "little") for number in made)


def combined(
    doing, coding: Coding, width: int, base: bytes, residue: bytes, *, at: int = 0
) -> bytes:
    """Combine in the middle of a buffer, of which nothing else may change."""
    buffer = bytearray(b"\xa5" * at + base + b"\x5a" * 9)
    elements = memoryview(buffer)[at : at + len(base)]
    doing.combine(coding, width, elements, memoryview(residue))
    assert (buffer[:at], buffer[at + len(base) :]) == (b"\xa5" * at, b"\x5a" * 9)
    return bytes(elements)


@BOTH
@pytest.mark.fuzz
@given(
    width=WIDTHS,
    coding=st.sampled_from((Coding.SUBTRACT, Coding.FLOAT, Coding.XOR)),
    data=st.data(),
    count=st.integers(0, 40),
    at=st.integers(0, 9),
)
def test_no_element_disturbs_another(doing, *, width, coding, data, count, at):
    interesting = st.sampled_from((0, 1, 2, (1 << 8 * width) - 1, 1 << 8 * width - 1))
    numbers = st.lists(
        interesting | st.integers(0, (1 << 8 * width) - 1), min_size=count, max_size=count
    )
    base, residue = (
        b"".join(number.to_bytes(width, "little") for number in data.draw(numbers)) for _ in "ab"
    )
    made = combined(doing, coding, width, base, residue, at=at)
    assert made == expected(coding, width, base, residue)


@BOTH
@pytest.mark.parametrize("width", [1, 2, 4, 8])
def test_a_whole_piece_is_combined(doing, width):
    base = bytes(range(256)) * (lanes.PIECE // 256)
    residue = bytes(reversed(base))
    made = combined(doing, Coding.SUBTRACT, width, base, residue)
    for position in (0, lanes.PIECE // 2, lanes.PIECE - width):
        part = slice(position, position + width)
        assert made[part] == expected(Coding.SUBTRACT, width, base[part], residue[part])


def test_the_order_of_floats_is_the_order_of_integers():
    floats = [-float("inf"), -2.5, -1e-45, -0.0, 0.0, 1e-45, 1.0, 1.0000001, float("inf")]
    bits = [struct.unpack("<I", struct.pack("<f", number))[0] for number in floats]
    signed = [monotone(each, 4) - (1 << 32 if monotone(each, 4) >> 31 else 0) for each in bits]
    assert signed == sorted(signed)
    assert signed[4] - signed[3] == 1  # -0.0 and 0.0 are neighbours, and not the same


@BOTH
@given(count=WIDTHS, size=st.integers(1, 9), data=st.data())
def test_planes_are_interleaved(doing, count, size, data):
    planes = [data.draw(st.binary(min_size=size, max_size=size)) for _ in range(count)]
    assert bytes(doing.interleave(planes)) == b"".join(map(bytes, zip(*planes, strict=True)))


@BOTH
@given(plane=st.binary(max_size=40))
def test_a_plane_comes_back_from_crumbs(doing, plane):
    padded = plane + bytes(-len(plane) % 4)
    low = bytes(
        sum((byte & 3) << 2 * place for place, byte in enumerate(padded[start : start + 4]))
        for start in range(0, len(padded), 4)
    )
    assert doing.from_crumbs(low, bytes(byte >> 2 for byte in plane)) == plane


@given(low=st.binary(max_size=5), data=st.data())
def test_crumbs_that_were_made_up_make_the_same_bytes(low, data):
    size = max(0, 4 * len(low) - data.draw(st.integers(0, 3)))
    rest = data.draw(st.binary(min_size=size, max_size=size))
    made = lanes.from_crumbs(low, rest)
    assert len(made) == len(rest)
    assert vectors.from_crumbs(low, rest) == made


def test_numpy_is_taken_for_large_files_where_it_is_installed(monkeypatch):
    assert arithmetic.arithmetic(arithmetic.LARGE - 1) is lanes
    assert arithmetic.arithmetic(arithmetic.LARGE) is vectors
    monkeypatch.delitem(sys.modules, "modelward.transfer.patch.vectors")
    monkeypatch.setitem(sys.modules, "numpy", None)  # importing it fails
    assert arithmetic.arithmetic(arithmetic.LARGE) is lanes
