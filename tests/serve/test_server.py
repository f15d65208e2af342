"""A device serves what it has, to neighbours who may be anybody, and nothing else."""

import contextlib
import errno
import hashlib
import http.client
import json
import os
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from modelward.config import load
from modelward.device import Device
from modelward.errors import UsageError
from modelward.formats.have import Have
from modelward.formats.release import Blob
from modelward.install import partial
from modelward.neighbours import neighbour_id
from modelward.serve import run
from modelward.serve.guard import HEAD, MOST_EACH, Guard
from modelward.serve.server import Server
from modelward.serve.shelf import METADATA_CAP, Offer, Shelf
from tests.simulator.ledger import LoggedWorld
from tests.simulator.world import World
from tests.swarm.devices import Device as Neighbour


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory, quiet_logged_world: LoggedWorld) -> LoggedWorld:
    """A device that serves, and has updated since it began to."""
    world = quiet_logged_world.copy(tmp_path_factory.mktemp("serving"))
    (world.device / "targets").mkdir()
    world.publish("1.1.0")
    with world.serve() as server:
        assert world.client_here("update", server).code == 0
    return world


@pytest.fixture(scope="module")
def url(world: World) -> Iterator[str]:
    with run.serving(Device(load(world.device, {})), "127.0.0.1", 0) as url:
        yield url


def ask(
    url: str, path: str, method: str = "GET", body: bytes | None = None, **headers: str
) -> tuple[int, bytes, http.client.HTTPMessage]:
    host, port = url.removeprefix("http://").split(":")
    connection = http.client.HTTPConnection(host, int(port), timeout=20)
    try:
        connection.request(method, path, body, headers)
        answer = connection.getresponse()
        return answer.status, answer.read(), answer.headers
    finally:
        connection.close()


def served_by_the_repository(world: World) -> dict[str, bytes]:
    """Return what a device at the repository's server would be handed."""
    root = world.repository
    current = json.loads((root / "metadata/timestamp.json").read_bytes())["signed"]
    snapshot = current["meta"]["snapshot.json"]["version"]
    listed = json.loads((root / f"metadata/{snapshot}.snapshot.json").read_bytes())["signed"][
        "meta"
    ]
    names = [f"{listed[name]['version']}.{name}" for name in listed if "tokenizer" not in name]
    paths = ["timestamp.json", f"{snapshot}.snapshot.json", "1.root.json", *names]
    return {f"/metadata/{path}": (root / "metadata" / path).read_bytes() for path in paths}


def test_metadata_is_as_the_repository_serves_it(world, url):
    for path, data in served_by_the_repository(world).items():
        status, body, headers = ask(url, path)
        assert (status, body) == (200, data), path
        assert headers["X-Content-Type-Options"] == "nosniff"


def test_blobs_are_served_whole_and_in_ranges(world, url):
    data = world.offered["model.onnx"]
    digest = hashlib.sha256(data).hexdigest()
    path = f"/blobs/sha256/{digest[:2]}/{digest}"
    status, body, headers = ask(url, path)
    assert (status, body, headers["ETag"]) == (200, data, f'"{digest}"')
    status, body, headers = ask(url, path, Range="bytes=3-7")
    assert (status, body) == (206, data[3:8])
    assert headers["Content-Range"] == f"bytes 3-7/{len(data)}"
    assert ask(url, path, Range="bytes=5-")[1] == data[5:]
    assert ask(url, path, Range="bytes=5-999999")[1] == data[5:]
    assert ask(url, path, Range=f"bytes={len(data)}-")[0] == 416
    assert ask(url, path, "HEAD")[:2] == (200, b"")
    assert ask(url, path, **{"If-None-Match": f'"{digest}"'})[0] == 304


def test_targets_that_passed_through_are_served(world, url):
    found = list((world.repository / "targets").rglob("*.release.json"))
    (release,) = (path for path in found if "1.1.0" in path.parts)
    path = f"/{release.relative_to(world.repository)}"
    assert ask(url, path)[:2] == (200, release.read_bytes())


def test_the_checkpoint_is_the_one_it_believes(world, url):
    checkpoint = ask(url, "/log/checkpoint")[1]
    assert checkpoint.decode() == world.client_here("status").json["log"]["checkpoint"]


@pytest.mark.parametrize(
    "path",
    [
        "/", "/device.key", "/modelward.toml", "/root.json", "/current",
        "/reports/000000000001.json", "/targets/x/device.key", "/tuf/timestamp.json",
        "/metadata/../device.key", "/metadata/99.snapshot.json", "/metadata/1.timestamp.json",
        "/metadata/%2e%2e/device.key", "/metadata/0.root.json", "http://x/metadata/timestamp.json",
        "/blobs/sha256/ab/../../device.key", "/blobs/sha256/ab/ab",
        "/blobs/sha256/" + "00/" + "0" * 64, "/targets/" + "0" * 64 + ".x",
    ],
)  # fmt: skip
def test_nothing_else_exists(url, path):
    status, body, _ = ask(url, path)
    assert status == 404
    assert b"PRIVATE" not in body


@pytest.mark.parametrize("method", ["PUT", "DELETE", "POST", "PATCH", "OPTIONS"])
def test_nothing_can_be_changed(world, url, method):
    before = {path: path.read_bytes() for path in world.device.rglob("*") if path.is_file()}
    assert ask(url, "/metadata/timestamp.json", method, b"x")[0] in (404, 501)
    assert before == {path: path.read_bytes() for path in world.device.rglob("*") if path.is_file()}


def test_a_link_in_the_store_is_not_followed(world, url):
    digest = hashlib.sha256(b"elsewhere").hexdigest()
    link = world.device / "store" / digest
    link.symlink_to(world.device / "device.key")
    try:
        assert ask(url, f"/blobs/sha256/{digest[:2]}/{digest}")[0] == 404
    finally:
        link.unlink()


# --- gossip ---------------------------------------------------------------------------------------


def test_gossip_answers_with_ones_own(world, url):
    own = ask(url, "/log/checkpoint")[1]
    for told in (b"", own, b"nonsense", b"\xff" * 1000):
        assert ask(url, "/gossip", "POST", told)[:2] == (200, own)
    assert world.client_here("status").json["log"]["heard"] is None


def test_gossip_is_capped(url):
    assert ask(url, "/gossip", "POST", None, **{"Content-Length": f"{1 << 20}"})[0] == 413
    assert ask(url, "/gossip", "POST", None, **{"Content-Length": "x"})[0] == 404


# --- those who want to keep it busy ---------------------------------------------------------------


class Clock:
    """A clock that a test sets."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def guarded(world: World) -> Iterator[tuple[Server, Clock]]:
    clock = Clock()
    shelf = Shelf(Device(load(world.device, {})))
    server = Server("127.0.0.1", 0, shelf, lambda _: None, Guard(clock))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server, clock
    server.shutdown()
    thread.join()
    server.server_close()


def connect(server: Server) -> socket.socket:
    return socket.create_connection(("127.0.0.1", server.server_address[1]), timeout=20)


def is_closed(connection: socket.socket) -> bool:
    try:
        return connection.recv(1) == b""
    except ConnectionError:
        return True


def test_whoever_drips_a_request_is_cut(guarded):
    server, clock = guarded
    with connect(server) as slow:
        slow.sendall(b"GET /metadata/timestamp.json HTTP/1.1\r\nX: ")
        slow.settimeout(0.2)
        while True:  # pytest's own time-out ends this if nobody is ever cut
            clock.now += 1000.0
            with contextlib.suppress(TimeoutError):
                assert is_closed(slow)
                break
    assert ask(server.url, "/metadata/timestamp.json")[0] == 200


def test_nobody_holds_all_connections(guarded):
    server, _ = guarded
    held = [connect(server) for _ in range(MOST_EACH)]
    for each in held:
        each.sendall(b"GET /log/checkpoint HTTP/1.1\r\nHost: x\r\n\r\n")
        assert each.recv(100).startswith(b"HTTP/1.1 200")
    with connect(server) as one_more:
        assert is_closed(one_more)
    for each in held:
        each.close()
    while server.guard._addresses:
        pass
    assert ask(server.url, "/log/checkpoint")[0] == 200


@pytest.mark.parametrize(
    "request_", [b"\r\n", b"x" * 100_000, b"GET / HTTP/9.9\r\n\r\n", b"\0" * 50, b"GET  \r\n\r\n"]
)
def test_what_is_no_request(guarded, request_):
    server, _ = guarded
    # The server may hang up before all of it is sent.
    with connect(server) as odd, contextlib.suppress(OSError):
        odd.sendall(request_)
        odd.shutdown(socket.SHUT_WR)
        while odd.recv(65536):
            pass
    assert ask(server.url, "/log/checkpoint")[0] == 200


# --- heads ----------------------------------------------------------------------------------------


def head_of(length: int, line: int = 1000) -> bytes:
    """Return a request whose line and headers, the empty line too, take so many bytes."""
    head = b"GET /log/checkpoint HTTP/1.1\r\nHost: x\r\n"
    while (left := length - 2 - len(head)) > 0:
        take = left if left < line + 5 else line  # none is too short to be a header
        head += b"a:".ljust(take - 2, b"x") + b"\r\n"
    return head + b"\r\n"


def status_of(connection: socket.socket) -> int:
    with http.client.HTTPResponse(connection) as answer:
        answer.begin()
        answer.read()
        return answer.status


def test_a_head_may_be_so_long(guarded):
    """Each by itself: a connection that asks often may go on."""
    server, _ = guarded
    with connect(server) as asks:
        for line in (1000, HEAD, 1000):
            request = head_of(HEAD, line)
            assert len(request) == HEAD
            asks.sendall(request)
            assert status_of(asks) == 200


@pytest.mark.parametrize(
    "request_",
    [head_of(HEAD + 1), head_of(HEAD + 1, HEAD), b"GET /".ljust(HEAD + 1, b"x")],
    ids=["many headers", "a long header", "a long request line"],
)
@pytest.mark.parametrize(
    "before", [b"", b"GET /log/checkpoint HTTP/1.1\r\n\r\n"], ids=["first", "later"]
)
def test_and_no_longer(guarded, request_, before):
    server, _ = guarded
    with connect(server) as asks:
        if before:
            asks.sendall(before)
            assert status_of(asks) == 200
        asks.sendall(request_)
        answer = b""
        while more := asks.recv(1 << 16):
            answer += more
    assert answer.startswith(b"HTTP/1.1 431 ")
    assert b"\r\nConnection: close\r\n" in answer
    assert answer.endswith(b"\r\n\r\n431 Request Header Fields Too Large\n")


def test_long_heads_take_no_memory(tmp_path):
    """As many connections as one address may have, and 6 MB of headers on each."""
    configure(tmp_path)
    line = b"a:".ljust(65_000, b"x") + b"\r\n"
    head = b"GET / HTTP/1.1\r\n" + line * 98

    def ask_at_length(port: int) -> None:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)) as asks:
            asks.sendall(head + b"\r\n")
            while asks.recv(1 << 16):
                pass

    device = Neighbour(tmp_path)
    with device.serving("127.0.0.1") as process:
        assert ask(device.url, "/x")[0] == 404
        before = peak_of(process)
        port = int(device.url.rpartition(":")[2])
        asking = [threading.Thread(target=ask_at_length, args=(port,)) for _ in range(MOST_EACH)]
        for each in asking:
            each.start()
        for each in asking:
            each.join()
        assert peak_of(process) - before < 8 << 20
        assert ask(device.url, "/x")[0] == 404


def test_slow_readers_of_metadata_take_no_memory(tmp_path):
    """As many connections as one address may have; each takes the head, and then its time."""
    configure(tmp_path)
    (tmp_path / "tuf").mkdir()
    data = metadata_of(METADATA_CAP - 1000, version=3)
    (tmp_path / "tuf/targets.json").write_bytes(data)
    request = "GET /metadata/3.targets.json HTTP/1.1\r\nRange: bytes={}-\r\n\r\n"
    device = Neighbour(tmp_path)
    with device.serving("127.0.0.1") as process, contextlib.ExitStack() as stack:
        assert ask(device.url, "/x")[0] == 404
        before = peak_of(process)
        port = int(device.url.rpartition(":")[2])
        slow = []
        for start in range(MOST_EACH):
            asks = stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=30))
            asks.sendall(request.format(start).encode())
            slow.append(stack.enter_context(http.client.HTTPResponse(asks)))
        for answer in slow:
            answer.begin()
        for_version = 6 * METADATA_CAP  # it is parsed for that, once
        assert peak_of(process) - before < for_version
        (tmp_path / "next").write_bytes(metadata_of(1000, version=4))
        (tmp_path / "next").rename(tmp_path / "tuf/targets.json")
        for start, answer in enumerate(slow):
            assert answer.headers["ETag"] == f'"{hashlib.sha256(data).hexdigest()}"'
            assert hashlib.sha256(answer.read()).digest() == hashlib.sha256(data[start:]).digest()
        assert peak_of(process) - before < for_version


def metadata_of(length: int, version: int) -> bytes:
    """Return what looks like targets metadata with many targets, of at most so many bytes."""
    target = '"models/{0:06}.json":{{"custom":{{"version":9}},"hashes":{{"sha256":"{0:064x}"}}}}'
    count = (length - 100) // len(target.format(0) + ",")
    targets = ",".join(target.format(number) for number in range(count))
    return f'{{"signatures":[],"signed":{{"targets":{{{targets}}},"version":{version}}}}}'.encode()


def configure(state: Path) -> None:
    """Make a state directory of what can be served without ever having updated."""
    (state / "modelward.toml").write_text('repository = "http://127.0.0.1:9"\ndevice_id = "x"\n')
    (state / "targets").mkdir()


def peak_of(process: int) -> int:
    """Return the most bytes of memory that a process has had."""
    status = Path(f"/proc/{process}/status").read_text()
    (line,) = (line for line in status.splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) << 10


# --- where to listen ------------------------------------------------------------------------------


TAKEN = -1


@pytest.mark.parametrize(
    ("host", "port", "advice"),
    [
        ("127.0.0.1", TAKEN, "stop what listens there"),
        ("127.0.0.1", 99_999, "choose a port from 1 to 65535"),
        ("192.0.2.77", 0, "choose an address that this machine has"),
    ],
)
def test_where_nobody_can_listen(guarded, world, host, port, advice):
    server, _ = guarded
    if port == TAKEN:
        port = int(server.server_address[1])
    with pytest.raises(UsageError, match=f"cannot listen on {host}:{port}: ") as told:
        Server(host, port, Shelf(Device(load(world.device, {}))), lambda _: None)
    assert advice in told.value.advice


def test_a_port_that_this_user_may_not_listen_on(world, monkeypatch):
    def bind(_: Server) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr("socketserver.TCPServer.server_bind", bind)
    with pytest.raises(UsageError, match="80: Permission denied") as told:
        Server("127.0.0.1", 80, Shelf(Device(load(world.device, {}))), lambda _: None)
    assert "from 1024 on" in told.value.advice


def test_a_device_without_anything(tmp_path: Path):
    (tmp_path / "modelward.toml").write_text('repository = "http://127.0.0.1:9"\ndevice_id = "x"\n')
    shelf = Shelf(Device(load(tmp_path, {})))
    for path in ("metadata/timestamp.json", "log/checkpoint", "metadata/1.root.json"):
        assert shelf.find(path) is None


# --- parts of what is still being fetched ---------------------------------------------------------

HAVE = '{{"coming":[],"extents":{},"neighbour":"{}","schema":"modelward/have/1","wants":{}}}\n'


def test_what_it_has_of_a_blob(world, url):
    data = world.offered["model.onnx"]
    whole = hashlib.sha256(data).hexdigest()
    me = neighbour_id(Device(load(world.device, {})))
    status, body, _ = ask(url, f"/have/{whole}")
    assert (status, body.decode()) == (200, HAVE.format(f"[[0,{len(data)}]]", me, "true"))
    assert ask(url, f"/parts/{whole}", Range="bytes=3-7")[1] == data[3:8]
    assert ask(url, f"/parts/{whole}")[1] == data
    nothing = "0" * 64
    assert ask(url, f"/have/{nothing}")[1].decode() == HAVE.format("[]", me, "false")
    assert ask(url, f"/parts/{nothing}")[0] == 404
    assert ask(url, f"/parts/{nothing}", Range="bytes=0-1")[0] == 404


def test_parts_of_a_blob_that_is_being_fetched(world, url):
    """Only what was checked is handed out: the rest is holes, or may be what a mirror made up."""
    store = Device(load(world.device, {})).store
    blob = Blob("7" * 64, 10_000)
    with store.partial(blob) as partial:
        buffer = partial.buffers(1, 4096)[0]
        view = partial.place(buffer, 4096, 4096)
        view[:] = b"p" * 4096
        partial.write(4096, view, checked=True)
        partial.write(0, partial.place(buffer, 0, 4096))
        partial.coming(8192, 9000)
        for wants in (False, True, False):  # not before it is shared, nor after
            deadline = time.monotonic() + 30  # new lines of a journal can wait
            while True:
                told = Have.parse(ask(url, f"/have/{blob.sha256}")[1], blob.length)
                assert (told.extents, told.coming) == (((4096, 8192),), ((8192, 9000),))
                if told.wants == wants or time.monotonic() > deadline:
                    break
            assert told.wants == wants
            partial.share(begins=not wants)
        path = f"/parts/{blob.sha256}"
        status, body, headers = ask(url, path, Range="bytes=5000-6999")
        assert (status, body) == (206, b"p" * 2000)
        assert headers["Content-Range"] == "bytes 5000-6999/10000"
        for outside in ("bytes=0-99", "bytes=4000-4200", "bytes=8000-8192", "bytes=4096-"):
            assert ask(url, path, Range=outside)[0] == 404
        assert ask(url, path)[0] == 404
        assert ask(url, f"/blobs/sha256/77/{blob.sha256}")[0] == 404
        partial.restart()


class SlowJournals:
    """The journals of begun files, and a clock by which each takes a tenth of a second to read."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now, self.reads = 0.0, 0
        self._there = partial.there
        monkeypatch.setattr(partial, "there", self._slowly)

    def _slowly(self, path: Path, length: int) -> tuple[bool, partial.Parts, partial.Parts]:
        self.now, self.reads = self.now + 0.1, self.reads + 1
        return self._there(path, length)


def test_the_journal_of_a_blob_is_not_read_for_every_question(world, monkeypatch):
    """Of a blob of 20 GiB that takes a tenth of a second; and neighbours ask for each MiB."""
    device = Device(load(world.device, {}))
    blob = Blob("8" * 64, 1 << 20)
    journals = SlowJournals(monkeypatch)
    shelf = Shelf(device, lambda: journals.now)
    with device.store.partial(blob) as file:
        buffer = file.buffers(1, 4096)[0]
        for count in range(1, 101):
            file.write(0, file.place(buffer, 0, 4096), checked=True)
            file.write(4096 * count, file.place(buffer, 4096 * count, 4096), checked=True)
            assert shelf.have(blob.sha256).covers(0, 4096)
            journals.now += 0.05
        assert journals.reads <= 4
        journals.now += 10
        assert shelf.have(blob.sha256).covers(0, 4096 * 101)  # what is new is told in time
        file.restart()
        assert not shelf.have(blob.sha256).extents  # what does not count any more, at once


def test_nor_by_asking_about_several_in_turn(tmp_path, monkeypatch):
    """An update begins all files of a release at once, and what was fetched of one is kept."""
    configure(tmp_path)
    store = Device(load(tmp_path, {})).store
    blobs = [Blob(f"{number:064x}", 1 << 20) for number in range(40)]
    journals = SlowJournals(monkeypatch)
    shelf = Shelf(Device(load(tmp_path, {})), lambda: journals.now)
    store.reserve(blobs)
    for _ in range(3):
        for blob in blobs:
            shelf.have(blob.sha256)
    assert journals.reads == len(blobs)
    for blob in blobs[1:]:
        partial.journal_of(store.partial_path(blob.sha256)).unlink()
    with store.partial(blobs[0]) as file:
        journals.now += 10
        file.coming(0, 4096)
        assert shelf.have(blobs[0].sha256).coming == ((0, 4096),)
    assert list(shelf._read) == [store.partial_path(blobs[0].sha256)]  # no more than there are


def test_an_answer_that_an_update_cuts_short_ends_the_connection(world, guarded, monkeypatch):
    """Else the head of the next answer would be taken for the rest of this one."""
    server, _ = guarded
    store = Device(load(world.device, {})).store
    blob = Blob("9" * 64, 10_000)
    part = server.shelf.part

    def cut(sha256: str) -> Offer | None:
        offer = part(sha256)
        os.truncate(store.partial_path(sha256), 5000)
        return offer

    monkeypatch.setattr(server.shelf, "part", cut)
    with store.partial(blob) as partial, connect(server) as asker:
        buffer = partial.buffers(1, 8192)[0]
        partial.write(0, partial.place(buffer, 0, 8192), checked=True)
        asker.sendall(f"GET /parts/{blob.sha256} HTTP/1.1\r\nRange: bytes=0-8191\r\n\r\n".encode())
        answer = asker.makefile("rb").read()
        partial.restart()
    assert b"Content-Length: 8192\r\n" in answer
    assert len(answer.partition(b"\r\n\r\n")[2]) == 5000


@pytest.mark.parametrize(
    "path", ["/have/x", "/parts/" + "g" * 64, "/have/", "/parts/../device.key"]
)
def test_parts_of_nothing(url, path):
    assert ask(url, path)[0] == 404
