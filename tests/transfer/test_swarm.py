"""Gathering a blob with neighbours, over real HTTP: honest ones, lying ones, and none."""

import hashlib
import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from modelward.formats.chunks import ChunkIndex
from modelward.formats.have import Have
from modelward.formats.release import Blob
from modelward.install import partial
from modelward.install.store import Store
from modelward.transfer import fetch, swarm
from modelward.transfer.http import Http
from modelward.transfer.neighbour import Neighbour
from modelward.transfer.pace import Patience
from modelward.transfer.sources import HttpSource, Sources
from modelward.transfer.swarm import Neighbourhood

CHUNK = 256 << 10
DATA = b"".join(hashlib.sha256(b"%d" % n).digest() * (CHUNK // 32) for n in range(12)) + b"end"
BLOB = Blob(hashlib.sha256(DATA).hexdigest(), len(DATA))
CUTS = [DATA[at : at + CHUNK] for at in range(0, len(DATA), CHUNK)]
INDEX = ChunkIndex.of(
    BLOB.sha256, BLOB.length, [(len(cut), hashlib.sha256(cut).digest()) for cut in CUTS]
)
ME, OTHER = "1" * 16, "2" * 16
PATIENCE = Patience(connect=5.0, first=5.0, window=2.0, rate=1024, tries=1)


@dataclass
class Host:
    """A server of this one blob: the repository, or a neighbour that says what it likes.

    Attributes:
        have: What it says that it has; None for a server that knows no such question.
        spoil: Changes the bytes of a range before they are sent; None for an error instead.
        error: That error's status.
        drip: Seconds before every `block` bytes of an answer; 0 for none.
        ranges: Whether it knows any.
    sent: Bytes of the blob that were asked of it.
    """

    have: Callable[[], bytes | None] = lambda: None
    spoil: Callable[[bytes], bytes | None] = lambda data: data
    error: int = 404
    drip: float = 0.0
    block: int = 1
    ranges: bool = True
    sent: int = 0
    url: str = ""
    asked: list[str] = field(default_factory=list)

    @contextmanager
    def running(self) -> Iterator["Host"]:
        host = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                host.asked.append(self.path)
                if self.path.startswith("/have/"):
                    self._send(200, host.have())
                    return
                start, stop = 0, len(DATA)
                given = self.headers.get("Range") if host.ranges else None
                if given:
                    first, last = given.removeprefix("bytes=").split("-")
                    start, stop = int(first), int(last) + 1
                host.sent += stop - start
                body = host.spoil(DATA[start:stop])
                self._send(206 if given else 200, body, f"bytes {start}-{stop - 1}/{len(DATA)}")

            def _send(self, status: int, body: bytes | None, extent: str = "") -> None:
                if body is None:
                    status, body = host.error, b""
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                if status == 206:
                    self.send_header("Content-Range", extent)
                self.end_headers()
                if host.drip and status == 206:
                    for at in range(0, len(body), host.block):
                        time.sleep(host.drip)
                        self.wfile.write(body[at : at + host.block])
                else:
                    self.wfile.write(body)

            def log_message(self, *_: Any) -> None:
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        self.url = f"http://127.0.0.1:{server.server_address[1]}"
        try:
            yield self
        finally:
            server.shutdown()
            thread.join()
            server.server_close()


def says(*extents: tuple[int, int], wants: bool = True, who: str = OTHER) -> Callable[[], bytes]:
    return lambda: Have(who, wants, extents).to_bytes()


@dataclass
class Scene:
    """A device with a store, its repository, and its neighbours."""

    store: Store
    sources: Sources
    near: Neighbourhood
    origin: Host

    def gather(self, go_on: Callable[[], None] = lambda: None, *, is_dear: bool = False) -> bool:
        return swarm.gather(
            self.sources,
            self.near,
            BLOB,
            self.store,
            INDEX,
            is_dear=is_dear,
            progress=lambda _: None,
            go_on=go_on,
        )

    def fetch(self) -> None:
        fetch.fetch_blob(self.sources, BLOB, self.store, INDEX)
        assert self.store.is_intact(BLOB)


@contextmanager
def scene(tmp_path: Path, *neighbours: Host, origin: Host | None = None) -> Iterator[Scene]:
    (tmp_path / "store").mkdir()
    with ExitStack() as stack:
        origin = stack.enter_context((origin or Host()).running())
        http = stack.enter_context(Http(PATIENCE))
        peers = [Neighbour(stack.enter_context(each.running()).url, http) for each in neighbours]
        patience = replace(PATIENCE, tries=3, pause=0.01)
        sources = Sources([HttpSource(origin.url, http), *peers], patience)
        near = Neighbourhood(ME, {each.name: each for each in peers})
        yield Scene(Store(tmp_path / "store"), sources, near, origin)


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    """Nobody is waited for as long as in the field."""
    monkeypatch.setattr(swarm, "STALL", 0.5)
    monkeypatch.setattr(swarm, "POLL", 0.05)


def test_a_neighbour_that_has_everything(tmp_path):
    neighbour = Host(says((0, len(DATA))))
    with scene(tmp_path, neighbour) as device:
        assert device.gather()
        device.fetch()
    assert (device.origin.sent, neighbour.sent) == (0, len(DATA))


def test_what_no_neighbour_has_comes_from_the_repository(tmp_path):
    neighbour = Host(says((0, 4 * CHUNK), wants=False))
    with scene(tmp_path, neighbour) as device:
        assert device.gather()
        device.fetch()
    assert neighbour.sent == 4 * CHUNK
    assert device.origin.sent == len(DATA) - 4 * CHUNK


def test_a_neighbour_that_promises_and_brings_nothing(tmp_path):
    """It wants the blob, so a part is its to bring; it never does, and is not waited for longer."""
    with scene(tmp_path, Host(says())) as device:
        assert device.gather()
        device.fetch()
    assert device.origin.sent == len(DATA)


@pytest.mark.parametrize("liars", [1, 4])
def test_wrong_bytes_cost_one_piece_a_neighbour(tmp_path, liars):
    hosts = [
        Host(says((0, len(DATA)), who=f"{n:016x}"), spoil=lambda data: b"\0" * len(data))
        for n in range(2, 2 + liars)
    ]
    with scene(tmp_path, *hosts) as device:
        device.gather()
        device.fetch()
        assert set(device.sources.banned()) == {host.url for host in hosts}
    assert all(host.sent <= 1 << 20 for host in hosts)
    assert device.origin.sent <= len(DATA) + liars * (1 << 20)


def test_an_index_that_lies_does_not_cost_the_repository(tmp_path, monkeypatch):
    wrong = [(len(cut), hashlib.sha256(cut).digest()) for cut in [*CUTS[:-1], b"END"]]
    monkeypatch.setitem(globals(), "INDEX", ChunkIndex.of(BLOB.sha256, BLOB.length, wrong))
    with scene(tmp_path, Host(says())) as device:
        assert not device.gather()
        assert not device.sources.banned()
        device.fetch()
        assert not device.sources.banned()


@pytest.mark.parametrize(
    "host",
    [
        Host(),
        Host(lambda: b"nonsense"),
        Host(lambda: b"x" * 300_000),
        Host(lambda: json.dumps({"schema": "modelward/have/1"}).encode()),
        Host(says((0, 1 << 40))),
        Host(says((0, len(DATA))), spoil=lambda _: None),
        Host(says((0, len(DATA))), spoil=lambda data: data[:100]),
        Host(says((0, len(DATA))), spoil=lambda data: data * 2),
        Host(says((0, len(DATA)), who=ME)),
    ],
    ids=["no idea", "nonsense", "endless", "missing", "larger", "404", "short", "long", "itself"],
)
def test_neighbours_of_every_kind(tmp_path, host):
    with scene(tmp_path, host) as device:
        device.gather()
        device.fetch()


def test_a_neighbour_that_never_answers_is_not_waited_for_with_every_file(tmp_path):
    silent = Host(error=503)
    with scene(tmp_path, silent) as device:
        for _ in range(3):
            device.gather()
            device.store.partial_path(BLOB.sha256).unlink(missing_ok=True)
    assert len(silent.asked) == swarm.FAILURES


def test_a_neighbour_that_drips_is_left(tmp_path, monkeypatch):
    """One byte at a time, of every piece that it says it has (attack row 8)."""
    patience = replace(PATIENCE, window=0.3, rate=64 << 10)
    monkeypatch.setitem(globals(), "PATIENCE", patience)
    neighbour = Host(says((0, len(DATA))), drip=0.02)
    with scene(tmp_path, neighbour) as device:
        device.gather()
        device.fetch()
    assert device.origin.sent >= len(DATA) - len(CUTS[-1])  # three bytes drip in time


def test_a_repository_that_is_gone(tmp_path):
    """What neighbours have is gathered all the same, up to the last byte."""
    neighbour = Host(says((0, len(DATA))))
    with scene(tmp_path, neighbour, origin=Host(spoil=lambda _: None)) as device:
        assert device.gather()
        device.fetch()


def test_what_is_asked_of_the_repository_is_told_before(tmp_path):
    """Who begins meanwhile leaves it to this device."""
    told = []

    def look(data: bytes) -> bytes:
        path = device.store.partial_path(BLOB.sha256)
        told.append(partial.there(path, BLOB.length)[2])
        return data

    with scene(tmp_path, Host(says()), origin=Host(spoil=look)) as device:
        assert device.gather()
    assert [len(coming) for coming in told] == [1] * 4
    assert sum(stop - start for [(start, stop)] in told) == len(DATA)


def test_who_begins_at_the_same_time_is_told_of_before_anything_is_fetched(tmp_path):
    """It did not know of this device yet when it took what is this device's to bring."""
    answers = iter([says()()])
    neighbour = Host(lambda: next(answers, says((0, len(DATA)))()))
    with scene(tmp_path, neighbour) as device:
        assert device.gather()
        device.fetch()
    assert device.origin.sent == 0


def test_what_is_here_already_is_not_brought_again(tmp_path):
    neighbour = Host(says((0, len(DATA))))
    with scene(tmp_path, neighbour) as device:
        with device.store.partial(BLOB) as partial:
            buffer = partial.buffers(1, CHUNK)[0]
            view = partial.place(buffer, 0, CHUNK)
            view[:] = CUTS[0]
            partial.write(0, view)
        assert device.gather()
        device.fetch()
    assert neighbour.sent == len(DATA) - CHUNK


def test_without_neighbours_nothing_is_gathered(tmp_path):
    with scene(tmp_path) as device:
        assert not device.gather()
        assert device.origin.sent == 0


def test_without_an_index_no_neighbour_is_asked_for_much(tmp_path):
    neighbour = Host(says((0, len(DATA))), spoil=lambda data: b"\0" * len(data))
    with scene(tmp_path, neighbour) as device:
        fetch.fetch_blob(device.sources, BLOB, device.store)
        assert device.store.is_intact(BLOB)
    assert neighbour.sent == 0


# --- where a patch is cheaper than the file, and sharing only if others are at it -----------------


def test_neighbours_that_want_something_else_do_not_cost_the_file(tmp_path):
    others = [Host(says(wants=False, who=f"{n:016x}")) for n in range(2, 6)]
    with scene(tmp_path, Host(), *others) as device:
        assert not device.gather(is_dear=True)
    assert device.origin.sent == 0


@pytest.mark.parametrize("liars", [1, 4])
def test_neighbours_that_only_say_that_they_want_it_cost_a_part_of_the_file(tmp_path, liars):
    hosts = [Host(says(who=f"{n:016x}")) for n in range(2, 2 + liars)]
    origin = Host(drip=0.03, block=128 << 10)
    with scene(tmp_path, *hosts, origin=origin) as device:
        assert not device.gather(is_dear=True)
    assert origin.sent < len(DATA)


@pytest.mark.parametrize("wants", [True, False])
def test_a_neighbour_that_has_a_part_is_worth_the_rest(tmp_path, wants):
    neighbour = Host(says((0, 8 * CHUNK), wants=wants))
    with scene(tmp_path, neighbour) as device:
        assert device.gather(is_dear=True)
        device.fetch()
    assert neighbour.sent == 8 * CHUNK


def test_who_begins_a_little_later_is_shared_with_all_the_same(tmp_path, monkeypatch):
    monkeypatch.setattr(swarm, "POLL", 0.3)
    first = iter([says(wants=False)()])
    neighbour = Host(lambda: next(first, says((0, len(DATA)))()))
    with scene(tmp_path, neighbour) as device:
        assert device.gather(is_dear=True)
        device.fetch()
    assert device.origin.sent == 0


# --- neighbours that are slow ---------------------------------------------------------------------


def test_a_slow_neighbour_does_not_hold_up_the_file(tmp_path, monkeypatch):
    """It delivers evenly, a piece in less time than anybody is waited for who brings nothing."""
    monkeypatch.setattr(swarm, "STALL", 2.0)
    neighbour = Host(says((1 << 20, len(DATA)), wants=False), drip=0.055, block=32 << 10)
    with scene(tmp_path, neighbour) as device:
        assert device.gather()
        device.fetch()
    assert device.origin.sent > 1 << 20


def test_a_piece_that_is_not_brought_is_brought_from_elsewhere(tmp_path):
    """A neighbour falls silent in the middle of one: no time-out has to pass."""
    gathered = threading.Event()

    def hang(data: bytes) -> bytes:
        gathered.wait(60)
        return data

    with scene(tmp_path, Host(says((0, len(DATA))), spoil=hang)) as device:
        assert device.gather()
        failures = [standing.failures for standing in device.sources.for_blobs()]
        gathered.set()
        device.fetch()
    assert failures == [0, 0]


# --- a repository that falters, beside a neighbour that has nothing -------------------------------


def test_a_repository_that_fails_once_is_asked_again(tmp_path):
    answers = iter([None])
    origin = Host(spoil=lambda data: next(answers, data), error=503)
    with scene(tmp_path, Host(says()), origin=origin) as device:
        assert device.gather()
        device.fetch()


def test_a_repository_that_knows_no_ranges_is_not_asked_for_pieces(tmp_path):
    """It would send all of the file for each."""
    neighbour, origin = Host(says((0, 4 * CHUNK), wants=False)), Host(ranges=False)
    with scene(tmp_path, neighbour, origin=origin) as device:
        assert not device.gather()
        standings = device.sources.for_blobs()
        assert [(each.ranges, each.failures) for each in standings] == [(True, 0), (False, 0)]
        device.fetch()
    assert len([path for path in origin.asked if path.startswith("/blobs/")]) <= 2


@pytest.mark.parametrize("error", [404, 503])
def test_a_repository_that_fails_for_good_is_not_waited_for(tmp_path, error):
    origin = Host(spoil=lambda _: None, error=error)
    with scene(tmp_path, Host(says()), origin=origin) as device:
        assert not device.gather()
    assert len([path for path in origin.asked if path.startswith("/blobs/")]) <= 3


# --- being stopped --------------------------------------------------------------------------------


def test_whoever_stops_it_is_heard(tmp_path):
    def stop() -> None:
        raise KeyboardInterrupt

    with scene(tmp_path, Host(says())) as device, pytest.raises(KeyboardInterrupt):
        device.gather(stop)


def test_where_no_thread_can_be_had_none_is_left(tmp_path, monkeypatch):
    """As where a service may have only so many tasks."""
    start, started = threading.Thread.start, []

    def scarce(thread: threading.Thread) -> None:
        if thread.name == "modelward-swarm":
            if started:
                raise RuntimeError("can't start new thread")
            started.append(thread)
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", scarce)
    with scene(tmp_path, Host(says())) as device:
        with pytest.raises(RuntimeError, match="can't start"):
            device.gather()
        started[0].join(1)  # it waits for neighbours first, for longer
        assert not started[0].is_alive()


def test_whoever_stops_it_waits_for_nobody(tmp_path):
    """Who is in the middle of an answer is hung up on: no time-out has to pass, nobody failed."""
    stopped = threading.Event()

    def hang(data: bytes) -> bytes:
        stopped.wait(60)
        return data

    origin = Host(spoil=hang)

    def stop() -> None:
        if origin.sent:
            raise KeyboardInterrupt

    with scene(tmp_path, Host(says()), origin=origin) as device:
        with pytest.raises(KeyboardInterrupt):
            device.gather(stop)
        failures = [standing.failures for standing in device.sources.for_blobs()]
        stopped.set()
    assert failures == [0, 0]
