"""Devices that see the same work out the same: every piece is brought, and by one device."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelward.errors import FormatError
from modelward.formats.have import Have
from modelward.transfer.pieces import Extent
from modelward.transfer.shares import Shares

SHA = "ab" * 32
SIZE = 100


def cut(count: int, here: frozenset[int] = frozenset()) -> tuple[Extent, ...]:
    return tuple(Extent(n * SIZE, (n + 1) * SIZE, is_here=n in here) for n in range(count))


def name(number: int) -> str:
    return f"{number:016x}"


def extents(numbers: set[int] | frozenset[int]) -> tuple[tuple[int, int], ...]:
    """Return what a device says that has these pieces."""
    merged: list[tuple[int, int]] = []
    for n in sorted(numbers):
        if merged and merged[-1][1] == n * SIZE:
            merged[-1] = (merged[-1][0], (n + 1) * SIZE)
        else:
            merged.append((n * SIZE, (n + 1) * SIZE))
    return tuple(merged)


def everything_own(shares: Shares) -> list[int]:
    found = []
    while (number := shares.take_own()) is not None:
        found.append(number)
    return found


@given(st.integers(1, 12), st.integers(0, 60))
def test_every_piece_has_one_owner(devices, count):
    owned: list[int] = []
    for me in range(devices):
        shares = Shares(name(me), SHA, cut(count))
        for other in range(devices):
            if other != me:
                shares.note(f"http://{other}", Have(name(other), wants=True))
        owned += everything_own(shares)
    assert sorted(owned) == list(range(count))


def test_work_is_shared_about_evenly():
    counts = []
    for me in range(10):
        shares = Shares(name(me), SHA, cut(1000))
        for other in set(range(10)) - {me}:
            shares.note(f"http://{other}", Have(name(other), wants=True))
        counts.append(len(everything_own(shares)))
    assert sum(counts) == 1000
    assert max(counts) < 150


def test_where_one_is_missing_only_its_pieces_move():
    def owners(devices: set[int]) -> dict[int, int]:
        found = {}
        for me in devices:
            shares = Shares(name(me), SHA, cut(100))
            for other in devices - {me}:
                shares.note(f"http://{other}", Have(name(other), wants=True))
            found |= dict.fromkeys(everything_own(shares), me)
        return found

    before, after = owners({1, 2, 3, 4}), owners({1, 2, 3})
    assert all(after[n] == owner for n, owner in before.items() if owner != 4)


def test_whoever_does_not_fetch_owns_nothing():
    shares = Shares(name(1), SHA, cut(20))
    shares.note("idle", Have(name(2)))
    shares.note("done", Have(name(3), wants=True, extents=extents({0, 1})))
    shares.note("done", Have(name(3), wants=True, extents=((0, 20 * SIZE),)))
    assert everything_own(shares) == []  # all of it is near
    shares.forget("done")
    assert sorted(everything_own(shares)) == list(range(20))


def test_what_is_near_is_not_asked_of_the_repository():
    shares = Shares(name(1), SHA, cut(10))
    shares.note("near", Have(name(2), extents=extents({2, 3, 9})))
    assert set(everything_own(shares)) == set(range(10)) - {2, 3, 9}
    taken = [shares.take_from("near", min) for _ in range(4)]
    assert taken == [2, 3, 9, None]
    assert shares.take_from("nobody", min) is None


def test_pieces_that_are_put_back_are_taken_again():
    shares = Shares(name(1), SHA, cut(3, frozenset({1})))
    assert shares.missing == 2
    number = shares.take_own()
    assert number is not None
    shares.put_back(number)
    assert shares.take_own() == number
    shares.arrived(number, "x")
    shares.put_back(number)  # too late: it is here
    shares.arrived(number, "x")
    assert (shares.missing, shares.take_own() != number) == (1, True)


@given(st.integers(1, 6), st.integers(1, 30), st.data())
def test_whoever_brings_nothing_is_given_up_in_the_end(others, count, data):
    """Liars that claim to fetch, or to have everything, cost as many waits as there are liars."""
    shares = Shares(name(0), SHA, cut(count))
    for other in range(1, others + 1):
        claimed = data.draw(st.frozensets(st.integers(0, count - 1)))
        shares.note(f"http://{other}", Have(name(other), wants=True, extents=extents(claimed)))
    own = everything_own(shares)
    waits = 0
    while shares.count_on_fewer():
        waits += 1
        own += everything_own(shares)
    assert waits <= others
    assert sorted(own) == list(range(count))


def test_whoever_delivers_is_counted_on_again():
    shares = Shares(name(1), SHA, cut(4))
    shares.note("slow", Have(name(2), wants=True, extents=extents({0})))
    assert shares.count_on_fewer()
    assert not shares.count_on_fewer()
    number = shares.take_from("slow", min)
    assert number == 0
    shares.arrived(number, "slow")
    assert shares.given_up == set()


def test_any_piece_is_taken_at_last():
    """First what nobody near has, and last what somebody is bringing already."""
    shares = Shares(name(1), SHA, cut(4, frozenset({3})))
    shares.note("near", Have(name(2), extents=extents({0, 1})))
    assert shares.take_from("near", min) == 0
    for number in (2, 1):
        assert shares.take_any() == number
        shares.arrived(number, "far")
    assert shares.take_any() == 0
    shares.put_back(0)
    assert shares.take_from("near", min) is None  # the other one is still at it
    shares.arrived(0, "near")
    assert shares.take_any() is None


def test_whoever_changes_its_id_keeps_the_first():
    """An id costs memory: a neighbour has one."""
    shares = Shares(name(1), SHA, cut(40))
    shares.note("near", Have(name(2), wants=True))
    before = everything_own(shares)
    for number in before:
        shares.put_back(number)
    for other in range(3, 50):
        shares.note("near", Have(name(other), wants=True))
        assert shares.held["near"].neighbour == name(2)
    assert everything_own(shares) == before


def test_what_a_neighbour_is_bringing_is_left_to_it_unless_it_is_given_up():
    """It began when this device was not there yet, and would own some of that."""
    shares = Shares(name(1), SHA, cut(20))
    shares.note("first", Have(name(2), wants=True, coming=extents({3, 4})))
    assert not {3, 4} & set(everything_own(shares))
    shares.count_on_fewer()
    assert {3, 4} <= set(everything_own(shares))


@given(st.frozensets(st.integers(0, 30)))
def test_have_is_read_back(numbers):
    have = Have(name(7), True, extents(numbers), extents(numbers)[:64])
    assert Have.parse(have.to_bytes(), 31 * SIZE) == have
    for number in range(31):
        assert have.covers(number * SIZE, (number + 1) * SIZE) == (number in numbers)


@pytest.mark.fuzz
@given(st.binary(max_size=200))
def test_have_from_anybody(data):
    try:
        found = Have.parse(data, 1000)
    except FormatError:
        return
    assert all(a < b <= c < d for (a, b), (c, d) in pairwise(found.extents))


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("[]", "must be an object"),
        ('"extents":[[0,1001]]', "is not a part of the blob"),
        ('"extents":[[5,5]]', "is not a part of the blob"),
        ('"extents":[[0,5],[4,6]]', "is not a part of the blob"),
        ('"extents":[[-1,5]]', "is not a part of the blob"),
        ('"extents":[[0,1.5]]', "is not a part of the blob"),
        ('"extents":[0]', "is not a part of the blob"),
        ('"extents":[],"coming":[[0,1001]]', "is not a part of the blob"),
        ('"extents":[],"coming":[' + "[0,1]," * 64 + "[0,1]]", "at most 64"),
        ('"neighbour":"x","extents":[]', "appears twice"),
        ('"extents":[' + "[0,1]," * 9000 + "[0,1]]", "at most 8192"),
    ],
)
def test_have_that_is_ill_formed(text, problem):
    head = f'"schema":"modelward/have/1","neighbour":"{name(1)}","wants":true,'
    document = text if text == "[]" else "{" + head + text + "}"
    with pytest.raises(FormatError, match=problem):
        Have.parse(document.encode(), 1000)
