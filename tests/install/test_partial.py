"""A blob that is not whole yet: what is believed of what an earlier try left behind."""

import errno
import hashlib
import os
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelward.formats.release import Blob
from modelward.install import writer as writers
from modelward.install.partial import Partial, asked_for, believed, there
from modelward.install.store import Store
from modelward.install.writer import PAGE, Writer, buffers, place

LENGTH = 3 * PAGE + 100
DATA = os.urandom(LENGTH)


@pytest.fixture(params=[True, False], ids=["direct", "cached"])
def direct(request) -> bool:
    return request.param


def aligned(data: bytes, offset: int) -> memoryview:
    """Return bytes where they have to lie in memory."""
    view = place(buffers(1, len(data))[0], offset, len(data))
    view[:] = data
    return view


# --- the writer


@given(st.lists(st.integers(0, LENGTH), max_size=6), st.randoms(), st.booleans())
def test_parts_in_any_order(tmp_path_factory, cuts, order, direct):
    path = tmp_path_factory.mktemp("writer") / "file"
    places = [0, *sorted(cuts), LENGTH]
    parts = list(pairwise(places))
    order.shuffle(parts)
    writer = Writer(path, LENGTH, direct=direct)
    for start, stop in parts:
        writer.write(start, aligned(DATA[start:stop], start))
    writer.sync()
    again = bytearray(LENGTH)
    writer.read(0, memoryview(again))
    writer.close()
    assert path.read_bytes() == again == DATA


def test_data_that_lies_anywhere_in_memory_is_written_too(tmp_path):
    writer = Writer(tmp_path / "file", LENGTH)
    writer.write(0, memoryview(bytearray(b"x" + DATA))[1:])
    writer.close()
    assert (tmp_path / "file").read_bytes() == DATA


def test_file_system_that_can_nothing(tmp_path, monkeypatch):
    def cannot(*_: object) -> int:
        raise OSError(22, "Invalid argument")

    monkeypatch.setattr(writers.syscalls, "open_direct", cannot)
    monkeypatch.setattr(writers.syscalls, "reserve", cannot)
    writer = Writer(tmp_path / "file", LENGTH)
    assert not writer.is_direct
    writer.write(0, aligned(DATA, 0))
    writer.close()
    assert (tmp_path / "file").read_bytes() == DATA


def test_pieces_written_to_the_page_cache_are_small(tmp_path, monkeypatch):
    sizes: list[int] = []
    real = writers.syscalls.write_at
    monkeypatch.setattr(
        writers.syscalls,
        "write_at",
        lambda descriptor, data, offset: sizes.append(len(data)) or real(descriptor, data, offset),
    )
    writer = Writer(tmp_path / "file", 1 << 20, direct=False)
    writer.write(0, memoryview(bytes(1 << 20)))
    writer.close()
    assert max(sizes) <= 256 << 10
    assert sum(sizes) == 1 << 20


def test_other_errors_are_errors(tmp_path, monkeypatch):
    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(writers.syscalls, "reserve", full)
    monkeypatch.setattr(writers.os, "major", lambda _: 8)  # a disk's, wherever the test runs
    monkeypatch.setattr(writers.syscalls, "open_direct", lambda _: os.dup(1))
    with pytest.raises(OSError, match="No space"):
        Writer(tmp_path / "file", LENGTH)


def test_nothing_is_reserved_in_memory(tmp_path, monkeypatch):
    reserved: list[int] = []
    monkeypatch.setattr(writers.syscalls, "reserve", lambda _, length: reserved.append(length))
    for major, expected in ((0, []), (8, [LENGTH])):
        monkeypatch.setattr(writers.os, "major", lambda _, major=major: major)
        monkeypatch.setattr(writers.syscalls, "open_direct", lambda _: os.dup(1))
        Writer(tmp_path / str(major), LENGTH).close()
        assert reserved == expected


# --- the journal


def partial(folder, boot: str = "1", clock=lambda: 0.0) -> Partial:
    return Partial(folder / ".partial", folder / "ab" / "ab12", LENGTH, boot=boot, clock=clock)


def test_whole(tmp_path, direct):
    with partial(tmp_path) as one:
        assert one.extents == []
        one.write(PAGE, aligned(DATA[PAGE:], PAGE))
        one.write(0, aligned(DATA[:PAGE], 0))
        one.finish()
    path = tmp_path / "ab" / "ab12"
    assert path.read_bytes() == DATA
    assert path.stat().st_mode & 0o777 == 0o444
    assert list((tmp_path / ".partial").iterdir()) == []


def test_what_was_written_is_there_after_a_kill_but_not_after_a_power_cut(tmp_path):
    one = partial(tmp_path).__enter__()
    one.write(0, aligned(DATA[:PAGE], 0))
    one.sync()
    one.write(PAGE, aligned(DATA[PAGE : 2 * PAGE], PAGE))
    # Killed: nothing is closed or synced.
    assert partial(tmp_path).__enter__().extents == [(0, 2 * PAGE)]
    assert partial(tmp_path, boot="2").__enter__().extents == [(0, PAGE)]


def test_leaving_makes_durable_what_arrived(tmp_path):
    with partial(tmp_path) as one:
        one.write(0, aligned(DATA[:PAGE], 0))
    with partial(tmp_path, boot="2") as two:
        assert two.extents == [(0, PAGE)]


def test_what_is_there_is_made_durable_now_and_then(tmp_path):
    now = 0.0
    one = partial(tmp_path, clock=lambda: now).__enter__()
    one.write(0, aligned(DATA[:PAGE], 0))
    assert partial(tmp_path, boot="2").__enter__().extents == []
    one = partial(tmp_path, clock=lambda: now).__enter__()
    one.write(0, aligned(DATA[:PAGE], 0))
    now = 11.0
    one.write(PAGE, aligned(DATA[PAGE : 2 * PAGE], PAGE))
    assert partial(tmp_path, boot="2").__enter__().extents == [(0, 2 * PAGE)]


def test_restart_forgets(tmp_path):
    with partial(tmp_path) as one:
        one.write(0, aligned(DATA[:PAGE], 0))
        one.restart()
        assert one.extents == []
    with partial(tmp_path) as two:
        assert two.extents == []


@pytest.mark.parametrize("length", [0, LENGTH - 1, LENGTH + 1])
def test_file_of_another_length_is_not_gone_on_from(tmp_path, length):
    with partial(tmp_path) as one:
        one.write(0, aligned(DATA[:PAGE], 0))
    os.truncate(tmp_path / ".partial" / "ab12", length)
    with partial(tmp_path) as two:
        assert two.extents == []


def test_a_pipe_in_the_place_of_its_journal_keeps_nobody_waiting(tmp_path):
    with partial(tmp_path) as one:
        one.write(0, aligned(DATA[:PAGE], 0))
    journal = tmp_path / ".partial" / "ab12.journal"
    journal.unlink()
    os.mkfifo(journal)
    assert there(journal.with_suffix(""), LENGTH) == (False, [], [])
    with partial(tmp_path) as two:
        assert two.extents == []
        two.write(0, aligned(DATA[:PAGE], 0))
        assert two.extents == [(0, PAGE)]


def test_symbolic_link_in_its_place_is_not_followed(tmp_path):
    (tmp_path / ".partial").mkdir()
    (tmp_path / "victim").write_bytes(DATA)
    (tmp_path / ".partial" / "ab12").symlink_to(tmp_path / "victim")
    with partial(tmp_path) as one:
        one.write(0, aligned(bytes(PAGE), 0))
    assert (tmp_path / "victim").read_bytes() == DATA


@given(st.text(max_size=200), st.text(alphabet="bootwrsynced 0123456789\n", max_size=300))
@pytest.mark.fuzz
def test_any_journal_is_read(noise, likely):
    for text in (noise, likely, f"boot 1\nwrote 0 5\n{likely}"):
        found = believed(text, "1", 1000)
        assert all(0 <= start < stop <= 1000 for start, stop in found)
        assert all(a[1] < b[0] for a, b in pairwise(found))


@pytest.mark.parametrize(
    ("journal", "extents"),
    [
        ("", []),
        ("boot 1\nwrote 0 5\n", [(0, 5)]),
        ("boot 1\nwrote 0 5\nwrote 5 9", [(0, 5)]),  # torn
        ("boot 1\nwrote 5 9\nwrote 0 5\n", [(0, 9)]),
        ("boot 1\nwrote 0 5\nboot 1\nwrote 7 9\n", [(0, 5), (7, 9)]),
        ("boot 2\nwrote 0 5\nboot 1\nwrote 7 9\n", [(7, 9)]),
        ("boot 2\nwrote 0 5\nsynced\nwrote 5 6\nboot 1\nwrote 7 9\n", [(0, 5), (7, 9)]),
        ("boot 1\nwrote 0 99\n", []),
        ("boot 1\nwrote 5 5\nwrote 6 5\nwrote -1 5\nwrote 1\nwrote a b\n", []),
    ],
)
def test_journal(journal, extents):
    assert believed(journal, "1", 10) == extents


def test_what_was_checked_is_told_apart():
    journal = "boot 1\nchecked 0 2\nwrote 2 4\nchecked 4 6\nchecked 6 8\n"
    assert believed(journal, "1", 10) == [(0, 8)]
    assert believed(journal, "1", 10, {"checked"}) == [(0, 2), (4, 8)]


@pytest.mark.parametrize(
    ("journal", "coming"),
    [
        ("boot 1\ncoming 0 2\ncoming 2 4\nchecked 0 2\n", [(2, 4)]),
        ("boot 1\ncoming 0 2\nboot 1\ncoming 6 8\n", [(6, 8)]),  # opened anew
        ("boot 1\ncoming 0 2\nsynced\nboot 2\n", [(0, 2)]),
        ("boot 2\ncoming 0 2\nsynced\n", []),  # the machine was started since
        ("boot 1\ncoming 4 8\ncoming 0 5\ncoming 9 11\ncoming 8 8\ncoming x 9\ncoming 1", [(0, 5)]),
    ],
)
def test_what_was_asked_for(journal, coming):
    assert asked_for(journal, "1", 10, believed(journal, "1", 10, {"checked"})) == coming


def test_a_finish_that_was_cut_short_can_be_gone_on_from(tmp_path, monkeypatch):
    def cut(*_: object) -> None:
        raise KeyboardInterrupt

    with partial(tmp_path) as one, monkeypatch.context() as patch:
        one.write(0, aligned(DATA, 0))
        patch.setattr(writers.syscalls, "rename", cut)
        with pytest.raises(KeyboardInterrupt):
            one.finish()
    with partial(tmp_path) as one:
        # Its owner could not open a file to write to that was made read-only.
        assert next(tmp_path.glob(".partial/[!.]*[!l]")).stat().st_mode & 0o200
        assert one.extents == [(0, LENGTH)]
        one.finish()
    assert (tmp_path / "ab" / "ab12").stat().st_mode & 0o777 == 0o444


# --- in the store


def test_what_partials_take_on_disk(tmp_path):
    store = Store(tmp_path / "store")
    blobs = [Blob(hashlib.sha256(bytes([n])).hexdigest(), 1 << 20) for n in range(3)]
    for blob in blobs:
        with store.partial(blob) as one:
            one.write(0, memoryview(bytes(100_000)))
    assert store.begun([blobs[1].sha256]) >= 100_000
    assert store.begun([]) == 0
    assert list(store.digests()) == []
    store.sweep()
    assert len(list((tmp_path / "store" / ".partial").iterdir())) == 6


def test_room_is_reserved_for_all_or_none(tmp_path, monkeypatch):
    store = Store(tmp_path / "store")
    begun, *others = [Blob(hashlib.sha256(bytes([n])).hexdigest(), LENGTH) for n in range(3)]
    with store.partial(begun) as one:
        one.write(0, aligned(DATA[:PAGE], 0))
    room = [True, False]

    def reserve(_descriptor: int, _length: int) -> None:
        if not room.pop(0):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(writers.os, "major", lambda _: 8)
    monkeypatch.setattr(writers.syscalls, "reserve", reserve)
    with pytest.raises(OSError, match="No space left"):
        store.reserve([begun, *others])
    assert {digest for digest, _ in store.partials()} == {begun.sha256}  # what arrived is kept
    room += [True, True]
    store.reserve([begun, *others])
    assert {digest for digest, _ in store.partials()} == {each.sha256 for each in (begun, *others)}
    store.reserve([begun, *others])  # they are reserved: nothing is asked for again
    with store.partial(begun) as one:
        assert one.extents == [(0, PAGE)]
