"""Arithmetic on lanes, compared with the same done one element at a time."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelward.transfer.patch import lanes
from modelward.transfer.patch.operations import Coding

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


@pytest.mark.fuzz
@given(
    width=WIDTHS,
    coding=st.sampled_from((Coding.SUBTRACT, Coding.FLOAT, Coding.XOR)),
    data=st.data(),
    count=st.integers(0, 40),
)
def test_no_lane_disturbs_another(width, coding, data, count):
    interesting = st.sampled_from((0, 1, 2, (1 << 8 * width) - 1, 1 << 8 * width - 1))
    numbers = st.lists(
        interesting | st.integers(0, (1 << 8 * width) - 1), min_size=count, max_size=count
    )
    base, residue = (
        b"".join(number.to_bytes(width, "little") for number in data.draw(numbers)) for _ in "ab"
    )
    assert lanes.combine(coding, width, base, residue) == expected(coding, width, base, residue)


@pytest.mark.parametrize("width", [1, 2, 4, 8])
def test_a_whole_piece_is_combined(width):
    base = bytes(range(256)) * (lanes.PIECE // 256)
    residue = bytes(reversed(base))
    made = lanes.combine(Coding.SUBTRACT, width, base, residue)
    for position in (0, lanes.PIECE // 2, lanes.PIECE - width):
        part = slice(position, position + width)
        assert made[part] == expected(Coding.SUBTRACT, width, base[part], residue[part])


def test_the_order_of_floats_is_the_order_of_integers():
    floats = [-float("inf"), -2.5, -1e-45, -0.0, 0.0, 1e-45, 1.0, 1.0000001, float("inf")]
    bits = [struct.unpack("<I", struct.pack("<f", number))[0] for number in floats]
    signed = [monotone(each, 4) - (1 << 32 if monotone(each, 4) >> 31 else 0) for each in bits]
    assert signed == sorted(signed)
    assert signed[4] - signed[3] == 1  # -0.0 and 0.0 are neighbours, and not the same


@given(count=st.integers(1, 8), size=st.integers(0, 9), data=st.data())
def test_planes_are_interleaved(count, size, data):
    planes = [data.draw(st.binary(min_size=size, max_size=size)) for _ in range(count)]
    assert bytes(lanes.interleave(planes)) == b"".join(map(bytes, zip(*planes, strict=True)))


@given(plane=st.binary(max_size=40))
def test_a_plane_comes_back_from_crumbs(plane):
    padded = plane + bytes(-len(plane) % 4)
    low = bytes(
        sum((byte & 3) << 2 * place for place, byte in enumerate(padded[start : start + 4]))
        for start in range(0, len(padded), 4)
    )
    assert lanes.from_crumbs(low, bytes(byte >> 2 for byte in plane)) == plane


@given(low=st.binary(max_size=5), data=st.data())
def test_crumbs_that_were_made_up_make_bytes(low, data):
    size = max(0, 4 * len(low) - data.draw(st.integers(0, 3)))
    rest = data.draw(st.binary(min_size=size, max_size=size))
    assert len(lanes.from_crumbs(low, rest)) == len(rest)
