"""Gate 10: whatever servers do, the right blob or a clear error, soon; and nothing is lost."""

import errno
import gc
import os
import random
import signal
import struct
import subprocess
import sys
import threading
import time
import weakref
from contextlib import suppress
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modelward.config.transfer import MAX_CONNECTIONS
from modelward.errors import Gate, Refused, Unavailable
from modelward.formats.release import Blob
from modelward.install.partial import Partial
from modelward.install.store import Store
from modelward.install.writer import Writer
from modelward.transfer import fetch
from modelward.transfer.board import Board
from modelward.transfer.fetch import fetch_blob, fetch_small
from modelward.transfer.pace import Patience
from modelward.transfer.pieces import HALF, PIECE
from modelward.transfer.sources import SMALL, Kind, Sources, blob_path
from tests.transfer import serving as faults
from tests.transfer.fakes import FakeReader, FakeSource
from tests.transfer.serving import BlobServer, blob_of, index_of, serving, some_data
from tests.watching import open_files, until

LENGTH = 3 * PIECE + 12_345
DATA = some_data(LENGTH)
BLOB = blob_of(DATA)


@pytest.fixture
def store(tmp_path) -> Store:
    return Store(tmp_path / "store")


def is_here(store: Store) -> bool:
    return store.has(BLOB) and store.is_intact(BLOB)


# --- what is as it should be


@pytest.mark.parametrize("length", [0, 1, SMALL, SMALL + 1, PIECE, PIECE + 1, 5 * PIECE, LENGTH])
def test_any_length(store, length):
    data = some_data(length)
    blob = blob_of(data)
    server = BlobServer(data)
    told: list[int] = []
    with serving(server) as sources:
        fetch_blob(sources, blob, store, progress=told.append)
    assert store.is_intact(blob)
    assert sum(told) == length
    assert len(server.ranges) <= 1  # one source is asked once, for everything
    assert list(store.digests()) == [blob.sha256]


def test_longer_than_all_buffers(store):
    data = some_data(40 * PIECE + 1)
    with serving(BlobServer(data)) as sources:
        fetch_blob(sources, blob_of(data), store)
    assert store.is_intact(blob_of(data))


def test_several_sources_share_the_work(store):
    data = some_data(18 * PIECE + 1)
    servers = [BlobServer(data, rate=4e6) for _ in range(3)]
    with serving(*servers) as sources:
        fetch_blob(sources, blob_of(data), store)
        assert sum(sources.received().values()) == len(data)
    assert store.is_intact(blob_of(data))
    assert sum(server.sent > PIECE for server in servers) > 1


def test_several_connections_to_one_source(store):
    server = BlobServer(DATA)
    with serving(server) as sources:
        fetch_blob(sources, BLOB, store, connections=3)
    assert is_here(store)
    assert len(server.ranges) > 1


def test_index(store):
    with serving(BlobServer(DATA), BlobServer(DATA)) as sources:
        fetch_blob(sources, BLOB, store, index_of(DATA))
    assert is_here(store)


@pytest.mark.parametrize("chunk", [30_000, 65_536])
def test_pieces_that_alternate_with_what_is_here(store, monkeypatch, chunk):
    """However short they are and however slowly the disk is read, there is a buffer for each."""
    keep(store, BLOB, DATA, range(0, LENGTH, 2 * chunk), chunk)
    read = Partial.read

    def slowly(self, offset, view):
        time.sleep(0.005 if offset < 20 * chunk else 0)
        read(self, offset, view)

    monkeypatch.setattr(Partial, "read", slowly)
    with serving(BlobServer(DATA)) as sources:
        fetch_blob(sources, BLOB, store, index_of(DATA, chunk))
    assert is_here(store)


def keep(store, blob, data, places, length):
    """Let parts of a blob be here, as an earlier try left them."""
    with store.partial(blob) as partial:
        for start in places:
            part = data[start : start + length]
            view = partial.place(partial.buffers(1, PIECE)[0], start, len(part))
            view[:] = part
            partial.write(start, view)


def test_index_of_another_file_is_not_used(store):
    with serving(BlobServer(DATA)) as sources:
        fetch_blob(sources, BLOB, store, index_of(some_data(LENGTH)))
    assert is_here(store)


def test_small(store):
    with serving(BlobServer(b"small")) as sources:
        assert fetch_small(sources, blob_of(b"small")) == b"small"


@pytest.mark.parametrize("fault", [faults.truncate(), faults.reset(), faults.status(503)])
def test_small_is_asked_for_again(fault):
    data = some_data(5000)
    server = BlobServer(data, [fault])
    with serving(server) as sources:
        assert sources.fetch_blob(blob_of(data)) == data
        assert len(server.ranges) == 2
    server = BlobServer(data, [fault])
    with serving(server) as sources:
        assert sources.fetch("metadata/timestamp.json", 5000) == data


def test_small_but_slow_is_judged_by_its_rate():
    """An index of a megabyte takes its time on a poor link; a document of TUF must not."""
    data = some_data(300_000)
    hasty = replace(faults.HASTY, total=0.5, rate=20_000)
    with serving(BlobServer(data, rate=200_000), patience=hasty) as sources:
        assert sources.fetch_blob(blob_of(data)) == data
    with (
        serving(BlobServer(data, rate=200_000), patience=hasty) as sources,
        pytest.raises(Unavailable, match=r"longer than 0\.5 seconds"),
    ):
        sources.fetch("metadata/timestamp.json", len(data))


@pytest.mark.parametrize("stop", [False, True])
def test_what_is_read_whole_and_slowly_can_be_stopped(stop):
    """A chunk index of megabytes, on a poor link."""
    data = some_data(3 * SMALL)
    server = BlobServer(data, rate=1e6)

    def go_on() -> None:
        if stop and server.sent > SMALL:
            raise Unavailable("it is day")

    with serving(server) as sources:
        if not stop:
            assert sources.fetch_blob(blob_of(data), go_on) == data
            return
        with pytest.raises(Unavailable, match="day"):
            sources.fetch_blob(blob_of(data), go_on)
    assert server.sent < 2 * SMALL


def test_source_that_is_no_server(store):
    source = FakeSource("stick", {blob_path(BLOB.sha256): DATA}, Kind.MEDIUM)
    fetch_blob(Sources([source]), BLOB, store)
    assert is_here(store)


# --- what a disk may do


@pytest.mark.parametrize("connections", [1, 4])
def test_disk_that_fails(store, monkeypatch, connections):
    """The first write that fails ends it, and nobody writes once the file is closed."""
    data = some_data(18 * PIECE + 1)
    written: list[bool] = []

    def write(self, offset, view, **how):
        written.append(self.is_open)
        if len(written) == 5:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        whole(self, offset, view, **how)

    def leave(self, *details):
        self.is_open = False
        left(self, *details)

    whole, left = Partial.write, Partial.__exit__
    monkeypatch.setattr(Partial, "is_open", True, raising=False)
    monkeypatch.setattr(Partial, "write", write)
    monkeypatch.setattr(Partial, "__exit__", leave)
    with (
        serving(BlobServer(data), BlobServer(data)) as sources,
        pytest.raises(OSError, match="No space") as caught,
    ):
        fetch_blob(sources, blob_of(data), store, connections=connections)
    assert caught.value.errno == errno.ENOSPC
    assert all(written)
    monkeypatch.undo()
    with serving(BlobServer(data)) as sources:  # somebody made room: goes on from there
        fetch_blob(sources, blob_of(data), store)
        assert sum(sources.received().values()) <= len(data) - 4 * HALF
    assert store.is_intact(blob_of(data))


@pytest.mark.parametrize("connections", [1, 3])
@pytest.mark.parametrize("has_index", [True, False], ids=["index", "no index"])
def test_slow_disk_is_a_chunk_behind_each_connection(store, monkeypatch, connections, has_index):
    """That is what a kill costs. All have begun: one that is late might find nothing to begin."""
    data = some_data(12 * PIECE)
    begun = [faults.together(threading.Barrier(connections))] * connections
    patience = replace(faults.HASTY, connect=600.0, first=600.0)
    index = index_of(data, PIECE) if has_index else None
    told: list[int] = []
    is_free = threading.Event()
    whole = Partial.write

    def write(self, offset, view, **how):
        is_free.wait()
        whole(self, offset, view, **how)

    monkeypatch.setattr(Partial, "write", write)
    with serving(BlobServer(data, begun), patience=patience) as sources:
        bringing = threading.Thread(
            target=fetch_blob,
            args=(sources, blob_of(data), store, index, told.append),
            kwargs={"connections": connections},
        )
        bringing.start()
        until(lambda: sum(told) >= connections * PIECE)
        time.sleep(0.3)
        behind = sum(told)
        is_free.set()
        bringing.join()
    assert behind == connections * PIECE
    assert store.is_intact(blob_of(data))


def with_holes(store: Store, *missing: int) -> None:
    """Have all of it, but for some pieces of 64 KiB."""
    with store.partial(BLOB) as partial:
        buffer = partial.buffers(1, PIECE)[0]
        for at in range(0, LENGTH, SMALL):
            part = DATA[at : at + SMALL]
            if at // SMALL not in missing:
                view = partial.place(buffer, at, len(part))
                view[:] = part
                partial.write(at, view)


@pytest.mark.parametrize("connections", [1, 4])
@pytest.mark.parametrize("missing", [(), (3, 9, 20, 40)], ids=["nothing here", "holes"])
def test_server_without_ranges_is_read_once(store, connections, missing):
    """It would send all that comes before a part, too, for every part."""
    if missing:
        with_holes(store, *missing)
    told: list[int] = []
    server = BlobServer(DATA, always=faults.ignore_range)
    with serving(server) as sources:
        index = index_of(DATA, SMALL)
        fetch_blob(sources, BLOB, store, index, progress=told.append, connections=connections)
    assert is_here(store)
    assert len(server.ranges) <= connections + 1
    assert sum(told) == LENGTH  # what was not needed, too


def test_server_without_ranges_is_left_alone_where_there_is_another(store):
    with_holes(store, 3, 9, 20, 40)
    useless, good = BlobServer(DATA, always=faults.ignore_range), BlobServer(DATA)
    with serving(useless, good) as sources:
        fetch_blob(sources, BLOB, store, index_of(DATA, SMALL))
        assert sources.received() == {good.url: 4 * SMALL}
        assert len(useless.ranges) == 1
        other = some_data(LENGTH)
        useless.data = good.data = other
        fetch_blob(sources, blob_of(other), store)
        assert len(useless.ranges) == 1
    assert store.is_intact(blob_of(other))


def test_server_without_ranges_will_do_where_no_other_does(store):
    with_holes(store, 3, 9)
    broken = BlobServer(DATA, always=faults.status(500))
    with serving(BlobServer(DATA, [None], always=faults.ignore_range), broken) as sources:
        fetch_blob(sources, BLOB, store)
    assert is_here(store)


def test_server_without_ranges_that_hangs_up_is_forgiven(store):
    server = BlobServer(DATA, [faults.ignore_range, faults.truncate()], faults.ignore_range)
    with_holes(store, 3, 40)
    with serving(server) as sources:
        fetch_blob(sources, BLOB, store)
    assert is_here(store)
    assert len(server.ranges) == 3


def test_server_without_ranges_that_lies(store):
    def lie(answer: faults.Answer) -> None:
        faults.ignore_range(answer)
        faults.corrupt()(answer)

    with_holes(store, 3, 40)
    with serving(BlobServer(DATA, always=lie)) as sources:
        with pytest.raises(Refused, match="other content than its name says"):
            fetch_blob(sources, BLOB, store)
        assert sources.banned()
    assert not list(store.digests())
    with_holes(store, 3, 40)
    with serving(BlobServer(DATA, always=lie), BlobServer(DATA, always=faults.ignore_range)) as two:
        fetch_blob(two, BLOB, store)
    assert is_here(store)


# --- what a server may do

HARMLESS = {
    "ignores ranges": faults.ignore_range,
    "changes its ETag": faults.change_etag,
    "sends chunks": faults.chunked,
    "sends without end": faults.endless,
    "hangs up": faults.truncate(),
    "resets": faults.reset(),
    "says nothing": faults.stall(0),
    "stalls": faults.stall(0.7),
    "is busy": faults.status(503),
    "is very busy": faults.status(429, ("Retry-After", "3600")),
    "talks nonsense": faults.noise,
}
LIES = {
    "flips a bit": faults.corrupt(),
    "sends other bytes of the file": faults.wrong_range_untold,
    "announces too much": faults.announce(1),
    "announces too little": faults.announce(-1),
}
USELESS = {
    "redirects": faults.status(302, ("Location", "file:///etc/passwd")),
    "answers another range": faults.other_range(1),
    "has nothing": faults.status(404),
    "packs": faults.status(200, ("Content-Encoding", "gzip")),
    "drips": faults.drip,
    "breaks": faults.status(500),
}


@pytest.mark.parametrize("fault", HARMLESS)
def test_once_is_forgiven(store, fault):
    with serving(BlobServer(DATA, [HARMLESS[fault]])) as sources:
        fetch_blob(sources, BLOB, store)
    assert is_here(store)


@pytest.mark.parametrize("fault", {**LIES, **USELESS})
@pytest.mark.parametrize("index", [None, index_of(DATA)], ids=["whole", "indexed"])
def test_other_source_is_used(store, fault, index):
    bad = BlobServer(DATA, always={**LIES, **USELESS}[fault])
    with serving(bad, BlobServer(DATA)) as sources:
        fetch_blob(sources, BLOB, store, index)
    assert is_here(store)


@pytest.mark.parametrize("fault", LIES)
def test_lie_without_another_source(store, fault):
    server = BlobServer(DATA, always=LIES[fault])
    with serving(server) as sources:
        with pytest.raises(Refused, match=f"{server.url}.* delivered") as refusal:
            fetch_blob(sources, BLOB, store)
        assert refusal.value.gate is Gate.FETCH
        assert list(sources.banned())
    assert not list(store.digests())


@pytest.mark.parametrize("fault", USELESS)
def test_useless_without_another_source(store, fault):
    with serving(BlobServer(DATA, always=USELESS[fault])) as sources:
        with pytest.raises(Unavailable) as problem:
            fetch_blob(sources, BLOB, store)
        assert problem.value.gate is Gate.FETCH
        assert problem.value.advice
    assert not list(store.digests())


def test_liar_wastes_one_piece_where_there_is_an_index(store):
    liar, honest = BlobServer(DATA, always=faults.corrupt(0.1)), BlobServer(DATA)
    with serving(liar, honest) as sources:
        fetch_blob(sources, BLOB, store, index_of(DATA))
        assert list(sources.banned()) == [liar.url]
    assert is_here(store)
    assert honest.sent <= LENGTH
    assert len(liar.ranges) == 1


def test_liar_is_asked_for_no_piece_again_by_another_connection(store):
    data = DATA[: HALF - 1]
    liar, honest = BlobServer(data, always=faults.corrupt()), BlobServer(data, rate=2e6)
    with serving(liar, honest) as sources:
        fetch_blob(sources, blob_of(data), store, index_of(data), connections=8)
        assert list(sources.banned()) == [liar.url]
    assert len(liar.ranges) == 1


def test_neighbour_that_lies_wastes_one_piece_however_many_connections_there_are(store):
    liar, honest = BlobServer(DATA, always=faults.corrupt(0.1)), BlobServer(DATA, rate=4e6)
    with serving(liar, honest) as sources:
        near, far = (standing.source for standing in sources.for_blobs())
        near.kind = Kind.NEIGHBOUR
        both = Sources([near, far], sources.patience)
        fetch_blob(both, BLOB, store, index_of(DATA), connections=8)
        assert list(both.banned()) == [liar.url]
    assert len(liar.ranges) == 1


@pytest.mark.parametrize("count", [1, 2])
def test_index_that_lies_is_dropped(store, count):
    """To go by it, every source lies about the last chunk."""
    lie = index_of(DATA[:-1] + bytes([DATA[-1] ^ 1]))
    lie = type(lie)(BLOB.sha256, lie.length, lie.table)
    servers = [BlobServer(DATA) for _ in range(count)]
    with serving(*servers) as sources:
        fetch_blob(sources, BLOB, store, lie)
        assert not sources.banned()
    assert is_here(store)
    assert sum(server.sent for server in servers) < LENGTH + 4 * PIECE


def test_index_that_lies_together_with_a_source(store):
    other = DATA[:-1] + bytes([DATA[-1] ^ 1])
    lie = index_of(other)
    lie = type(lie)(BLOB.sha256, lie.length, lie.table)
    with serving(BlobServer(other), BlobServer(DATA)) as sources:
        fetch_blob(sources, BLOB, store, lie)
    assert is_here(store)


def test_many_small_failures_on_the_way(store):
    """A poor link breaks all the time; what came is gone on from."""
    server = BlobServer(DATA, always=faults.hang_up_after(40_000))
    with serving(server) as sources:
        for _ in range(30):
            with suppress(Unavailable):
                fetch_blob(sources, BLOB, store)
                break
    assert is_here(store)


class PoorLink(FakeSource):
    """Brings 1.5 kB/s, and is gone for 12 seconds every 100; on a clock of its own."""

    now = 0.0

    def open(self, blob: Blob, start: int, stop: int) -> FakeReader:
        reader, left = super().open(blob, start, stop), 100.0
        read = reader.readinto

        def readinto(buffer: memoryview) -> int:
            nonlocal left
            if left <= 0:
                self.now += 12.0
                error = Unavailable("timed out")
                error.again, error.vain = 0.0, 12.0
                raise error
            count = read(buffer[:15_000])
            left -= count / 1500
            self.now += count / 1500
            return count

        reader.readinto = readinto
        return reader


@pytest.mark.parametrize("index", [None, index_of(DATA, 350_000)], ids=["whole", "indexed"])
def test_poor_link_makes_good_what_it_is_waited_for(store, index):
    """Piece by piece, of which none comes at once."""
    link = PoorLink("origin", {blob_path(BLOB.sha256): DATA})
    patience = Patience(pause=0.001, longest=0.001)
    fetch_blob(Sources([link], patience, clock=lambda: link.now), BLOB, store, index)
    assert is_here(store)


def lie_and_break_off(answer: faults.Answer) -> None:
    faults.corrupt(0.1)(answer)
    faults.hang_up_after(300_000)(answer)


@pytest.mark.parametrize("connections", [1, 2])
@pytest.mark.parametrize("chunk", [350_000, 700_000])
def test_sources_that_break_off_do_not_undo_each_other(store, connections, chunk):
    """Once a chunk was wrong and both had a part in it, each has to bring all of it alone."""

    poor = faults.hang_up_after(100_000)
    honest, once = BlobServer(DATA, always=poor), BlobServer(DATA, [lie_and_break_off] * 2, poor)
    told: list[int] = []
    with serving(honest, once) as sources:
        index = index_of(DATA, chunk)
        fetch_blob(sources, BLOB, store, index, told.append, connections=connections)
    assert is_here(store)
    assert sum(told) <= 2 * LENGTH


def test_what_comes_to_nothing_is_not_forgiven_for_ever(store, monkeypatch):
    """Should two sources undo each other's work after all."""
    monkeypatch.setattr(Board, "_is_kept_for_another", lambda *_: False)

    poor = faults.hang_up_after(100_000)
    told: list[int] = []
    servers = BlobServer(DATA, always=poor), BlobServer(DATA, [lie_and_break_off] * 2, poor)
    with serving(*servers) as sources, suppress(Unavailable):
        fetch_blob(sources, BLOB, store, index_of(DATA, 700_000), told.append)
    assert sum(told) <= 6 * LENGTH


FAULTS = st.sampled_from([None, None, *HARMLESS.values(), *LIES.values(), *USELESS.values()])


PLANS = st.lists(st.tuples(st.lists(FAULTS, max_size=4), FAULTS), min_size=1, max_size=3)


@pytest.mark.fuzz
@pytest.mark.timeout(1800)
def test_whatever_servers_do(tmp_path_factory):
    """The right blob or a clear error, soon; and nothing that it leaves is in the way."""

    @settings(max_examples=min(settings().max_examples, 2000) // 4)
    @given(
        PLANS,
        st.sampled_from([SMALL, PIECE + 1, LENGTH]),
        st.sampled_from(["none", "right", "wrong"]),
        st.sampled_from([1, 1, 2, 4]),
        st.sets(st.integers(0, LENGTH // 20_000)),
        st.booleans(),
    )
    def check(plans, length, indexed, connections, kept, right):  # noqa: PLR0917
        data = DATA[:length]
        blob = blob_of(data)
        store = Store(tmp_path_factory.mktemp("store"))
        places = sorted(at * 20_000 for at in kept if at * 20_000 < length)
        keep(store, blob, data if right else bytes(length), places, 20_000)
        servers = [BlobServer(data, first, always) for first, always in plans]
        problem = None
        honest = index_of(data, 20_000)
        lie = replace(honest, table=index_of(data[1:] + data[:1], 20_000).table)
        indexes = {"none": None, "right": honest, "wrong": lie}
        with serving(*servers) as sources:
            try:
                fetch_blob(sources, blob, store, indexes[indexed], connections=connections)
            except (Refused, Unavailable) as error:
                problem = error
        if problem is None:
            assert store.is_intact(blob)
        else:
            assert ([], None) not in plans  # whoever is honest is believed in the end
            assert problem.gate is Gate.FETCH
            assert problem.advice
            assert not store.has(blob)
        with serving(BlobServer(data)) as sources:
            fetch_blob(sources, blob, store)
        assert store.is_intact(blob)

    check()


# --- going on

PROGRAM = """
import mmap, struct, sys
from pathlib import Path
from modelward.formats.release import Blob
from modelward.install.store import Store
from modelward.transfer.fetch import fetch_blob
from modelward.transfer.http import Http, Patience
from modelward.transfer.sources import HttpSource, Sources

class Counting(HttpSource):
    def open(self, *extent):
        reader = super().open(*extent)
        inner = reader.readinto
        def readinto(buffer):
            count = inner(buffer)
            total, = struct.unpack_from("Q", counter)
            struct.pack_into("Q", counter, 0, total + count)
            return count
        reader.readinto = readinto
        return reader

url, sha256, length, store, count = sys.argv[1:]
file = open(count, "r+b")
counter = mmap.mmap(file.fileno(), 8)
with Http(Patience(tries=1)) as http:
    sources = Sources([Counting(url, http)])
    fetch_blob(sources, Blob(sha256, int(length)), Store(Path(store)))
"""


@pytest.mark.parametrize("seed", range(3))
def test_killed_at_any_point_fetches_at_most_one_mebibyte_again(tmp_path, seed):
    data = some_data(16 << 20)
    blob = blob_of(data)
    choice = random.Random(seed)
    server = BlobServer(data, rate=60e6)
    counter = tmp_path / "counter"
    counter.write_bytes(bytes(8))
    store = tmp_path / "store"
    arguments = [server.url, blob.sha256, str(blob.length), str(store), str(counter)]

    def received() -> int:
        return struct.unpack("Q", counter.read_bytes())[0]

    try:
        for _ in range(3):
            target = min(received() + choice.randrange(1, 5 << 20), 15 << 20)
            child = subprocess.Popen([sys.executable, "-c", PROGRAM, *arguments])
            while received() < target:
                time.sleep(0.002)
            os.kill(child.pid, signal.SIGKILL)
            child.wait()
        subprocess.run([sys.executable, "-c", PROGRAM, *arguments], check=True)
    finally:
        server.close()
    assert Store(store).is_intact(blob)
    assert received() <= len(data) + 3 * (1 << 20)


def test_what_is_kept_and_no_longer_right_costs_only_itself(store):
    """With an index, a damaged piece is found while it is read back, and only it is fetched."""
    stopped = BlobServer(DATA, [faults.truncate(0.8)], faults.status(404))
    with serving(stopped) as sources, pytest.raises(Unavailable):
        fetch_blob(sources, BLOB, store)
    path = store._root / ".partial" / BLOB.sha256
    with path.open("r+b") as file:
        file.seek(150_000)
        file.write(b"damage")
    server = BlobServer(DATA)
    with serving(server) as sources:
        fetch_blob(sources, BLOB, store, index_of(DATA))
    assert is_here(store)
    assert server.sent < LENGTH * 0.7


@pytest.mark.parametrize("indexed", [True, False])
def test_what_is_kept_and_cannot_be_read_is_fetched_anew(store, monkeypatch, indexed):
    """A bad sector, as a power cut leaves one, must not keep a release from a device for good."""
    stopped = BlobServer(DATA, [faults.truncate(0.8)], faults.status(404))
    with serving(stopped) as sources, pytest.raises(Unavailable):
        fetch_blob(sources, BLOB, store)
    whole = Writer.read

    def read(self: Writer, offset: int, buffer: memoryview) -> None:
        if offset <= 150_000 < offset + len(buffer):
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        whole(self, offset, buffer)

    monkeypatch.setattr(Writer, "read", read)
    with serving(BlobServer(DATA)) as sources:
        fetch_blob(sources, BLOB, store, index_of(DATA) if indexed else None)
        assert not sources.banned()
    assert is_here(store)


def test_what_is_kept_and_no_longer_right_is_fetched_anew(store):
    stopped = BlobServer(DATA, [faults.truncate(0.8)], faults.status(404))
    with serving(stopped) as sources, pytest.raises(Unavailable):
        fetch_blob(sources, BLOB, store)
    path = store._root / ".partial" / BLOB.sha256
    with path.open("r+b") as file:
        file.seek(150_000)
        file.write(b"damage")
    with serving(BlobServer(DATA)) as sources:
        fetch_blob(sources, BLOB, store)
        assert not sources.banned()  # nobody is blamed for what lay here
    assert is_here(store)


def test_stopped_by_the_caller(store):
    def enough() -> None:
        raise Unavailable("it is day")

    with serving(BlobServer(DATA, rate=2e6)) as sources, pytest.raises(Unavailable, match="day"):
        fetch_blob(sources, BLOB, store, go_on=enough)
    with serving(BlobServer(DATA)) as sources:
        fetch_blob(sources, BLOB, store)
    assert is_here(store)


def test_stopped_by_the_caller_what_one_source_brought_is_kept(store):
    """Another one lied, so all of it is brought anew, from one at a time."""
    liar, honest = BlobServer(bytes(LENGTH)), BlobServer(DATA, rate=2e6)
    before: list[int] = []

    def enough() -> None:
        if sources.banned():
            before.append(honest.sent)
            if honest.sent - before[0] > 2.5 * PIECE:
                raise Unavailable("it is day")

    with serving(liar, honest) as sources, pytest.raises(Unavailable, match="day"):
        fetch_blob(sources, BLOB, store, go_on=enough)
    last = BlobServer(DATA)
    with serving(last) as sources:
        fetch_blob(sources, BLOB, store)
    assert is_here(store)
    assert last.sent < LENGTH / 2


# --- slow ones

BRIEF = replace(faults.HASTY, connect=0.15, first=0.3, window=0.3, rate=1024, vain=0.6)
WAITS = round(BRIEF.vain / BRIEF.connect) + 1  # after so many, one after the other, it is out
HUSHED = [faults.silent, faults.stall(0)]


@pytest.mark.fuzz
@pytest.mark.timeout(1800)
def test_who_never_answers_costs_a_few_waits_in_all(tmp_path_factory):
    """Not a few for every file; and who is merely slow to start is waited for (attack row 8)."""

    @settings(max_examples=max(5, settings().max_examples // 10))
    @given(
        st.lists(st.sampled_from([SMALL, SMALL + 1, PIECE + 1]), min_size=8, max_size=8),
        st.lists(st.sampled_from(HUSHED), min_size=1, max_size=2),
        st.one_of(st.none(), st.lists(st.sampled_from(HUSHED), max_size=2)),
        st.sampled_from([1, 1, 3]),
        st.booleans(),
    )
    def check(lengths, hushed, starts, connections, indexed):
        store = Store(tmp_path_factory.mktemp("store"))
        never = [BlobServer(DATA, always=fault) for fault in hushed]
        slow = [] if starts is None else [BlobServer(DATA, starts)]
        brought = 0
        with serving(*never, *slow, patience=BRIEF) as sources:
            for length in lengths:
                data = DATA[:length]
                for server in (*never, *slow):
                    server.data = data
                with suppress(Unavailable):
                    index = index_of(data) if indexed else None
                    fetch_blob(sources, blob_of(data), store, index, connections=connections)
                    brought += 1
                store.remove(blob_of(data).sha256)
        assert brought == (len(lengths) if slow else 0)
        for server in never:
            assert len(server.ranges) <= WAITS * connections + MAX_CONNECTIONS

    check()


def test_what_is_left_unanswered_costs_no_memory_and_few_connections(store, monkeypatch):
    data = some_data(12 * PIECE)
    silent, honest = BlobServer(data, always=faults.silent), BlobServer(data)
    buffers: list[weakref.ref[memoryview]] = []
    made = Partial.buffers

    def noting(self: Partial, count: int, size: int) -> list[memoryview]:
        found = made(self, count, size)
        buffers.extend(map(weakref.ref, found))
        return found

    monkeypatch.setattr(Partial, "buffers", noting)
    patient = replace(faults.HASTY, connect=600.0, first=600.0)  # none ends before the test does
    with serving(silent, honest, patience=patient) as sources:
        for _ in range(MAX_CONNECTIONS + 4):
            fetch_blob(sources, blob_of(data), store)
            store.remove(blob_of(data).sha256)
        gc.collect()
        assert not [each for each in buffers if each() is not None]
        assert len(silent.ranges) <= MAX_CONNECTIONS


def test_nothing_is_left_of_who_stalls_and_would_close(store):
    """Its connections no longer know their socket: that has to be shut down all the same."""

    def fault(answer: faults.Answer) -> None:
        answer.headers["Connection"] = "close"
        faults.stall(0.1)(answer)

    threads, files = set(threading.enumerate()), open_files()
    stalling, honest = BlobServer(DATA, always=fault), BlobServer(DATA)
    patience = replace(faults.HASTY, connect=60.0, window=60.0)
    with serving(stalling, honest, patience=patience) as sources:
        for _ in range(10):
            fetch_blob(sources, BLOB, store, index_of(DATA))
            store.remove(BLOB.sha256)
            assert until(lambda: not receivers(threads))
        assert len(stalling.ranges) > 1
    assert until(lambda: open_files() <= files)


def receivers(but: set[threading.Thread]) -> list[threading.Thread]:
    found = set(threading.enumerate()) - but
    return [each for each in found if each.name == "modelward-receive"]


def test_who_is_hung_up_on_has_not_failed(store, monkeypatch):
    monkeypatch.setattr(fetch, "STALL", 60.0)
    slow, fast = BlobServer(DATA, always=faults.stall(0.1)), BlobServer(DATA)
    with serving(slow, fast, patience=replace(faults.HASTY, connect=30.0, window=60.0)) as sources:
        fetch_blob(sources, BLOB, store)
        assert slow.ranges
        assert [standing.failures for standing in sources.for_blobs()] == [0, 0]


def test_slow_source_does_not_hold_up_a_fast_one(store):
    data = some_data(40 * PIECE)
    slow, fast = BlobServer(data, rate=300_000), BlobServer(data, rate=100e6)
    with serving(slow, fast) as sources:
        fetch_blob(sources, blob_of(data), store)
    assert store.is_intact(blob_of(data))
    assert slow.sent < 3 * PIECE
    assert len(slow.ranges) < 4  # overtaken once, it sits out
    assert fast.sent <= len(data) + PIECE


def test_source_that_stalls_in_the_middle_is_taken_over(store):
    data = some_data(60 * PIECE)
    first = BlobServer(data, rate=30e6, always=None)
    stalling = BlobServer(data, [None, faults.stall(0.3)], always=faults.stall(0))
    with serving(stalling, first) as sources:
        fetch_blob(sources, blob_of(data), store)
    assert store.is_intact(blob_of(data))
