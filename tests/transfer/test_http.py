"""HTTP against a server that does everything wrong: every fault ends, soon, in the right error."""

import gc
import itertools
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace

import pytest

from modelward.errors import ModelwardError, NotFound, TooLong, Unavailable, UsageError
from modelward.transfer.http import Http, Patience
from modelward.transfer.pace import Throttle
from tests.watching import open_files, until

HASTY = Patience(connect=0.4, rate=1000, window=0.4, total=1.2, tries=2, pause=0.001)
STUBBORN = replace(HASTY, tries=3)
SOON = 4  # seconds: the longest that anything below may take

Answer = bytes | Callable[[socket.socket], None]


class Server:
    """Answers each request with the next answer; the last one is for all that follow."""

    def __init__(self, *answers: Answer) -> None:
        self.requests: list[str] = []
        self.connections = 0
        self._answers = iter(itertools.chain(answers, itertools.repeat(answers[-1])))
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}/file"
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                self.connections += 1
                threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with suppress(OSError), connection:
            while request := self._read(connection):
                self.requests.append(request)
                answer = next(self._answers)
                if callable(answer):
                    answer(connection)
                else:
                    connection.sendall(answer)

    def _read(self, connection: socket.socket) -> str:
        data = b""
        while not data.endswith(b"\r\n\r\n"):
            block = connection.recv(4096)
            if not block:
                return ""
            data += block
        return data.decode()

    def close(self) -> None:
        self._listener.close()


@contextmanager
def serving(*answers: Answer) -> Iterator[Server]:
    server = Server(*answers)
    start = time.monotonic()
    try:
        yield server
    finally:
        server.close()
    assert time.monotonic() - start < SOON


def answer(body: bytes = b"hello", *headers: str, status: str = "200 OK") -> bytes:
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *headers]
    return "\r\n".join([*lines, "", ""]).encode() + body


def chunked(*chunks: bytes, end: bytes = b"0\r\n\r\n") -> bytes:
    body = b"".join(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks)
    return b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + body + end


def then_close(data: bytes) -> Answer:
    def send(connection: socket.socket) -> None:
        connection.sendall(data)
        connection.shutdown(socket.SHUT_RDWR)

    return send


def then_reset(data: bytes) -> Answer:
    def send(connection: socket.socket) -> None:
        connection.sendall(data)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        connection.close()

    return send


def then_silence(data: bytes) -> Answer:
    def send(connection: socket.socket) -> None:
        connection.sendall(data)
        connection.recv(1)  # until the client gives up

    return send


def endlessly(start: bytes, again: bytes, pause: float = 0) -> Answer:
    def send(connection: socket.socket) -> None:
        connection.sendall(start)
        while True:
            connection.sendall(again)
            time.sleep(pause)

    return send


def fetch(server: Server, limit: int = 100, patience: Patience = HASTY) -> bytes:
    with Http(patience) as http:
        return http.fetch(server.url, limit)


# --- What is as it should be ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("served", "body"),
    [
        (answer(), b"hello"),
        (answer(b""), b""),
        (answer(b"x" * 100), b"x" * 100),
        (answer(b"hello", "Content-Encoding: identity"), b"hello"),
        (chunked(b"hel", b"lo"), b"hello"),
        (chunked(b"hello", end=b"0;extension\r\nTrailer: 1\r\n\r\n"), b"hello"),
        (chunked(), b""),
        (then_close(b"HTTP/1.1 200 OK\r\n\r\nhello"), b"hello"),
        (then_close(b"HTTP/1.0 200 OK\r\n\r\nhello"), b"hello"),
        (b"HTTP/1.1 100 Continue\r\n\r\n" + answer(), b"hello"),
    ],
)
def test_body(served, body):
    with serving(served) as server:
        assert fetch(server) == body


def test_request():
    with serving(answer()) as server:
        fetch(server)
        assert server.requests[0].startswith("GET /file HTTP/1.1\r\n")
        assert "Accept-Encoding: identity\r\n" in server.requests[0]


def test_large_body_comes_in_blocks():
    body = bytes(range(256)) * 40_000
    with serving(answer(body)) as server, Http(HASTY) as http:
        blocks = list(http.stream(server.url, len(body)))
        assert b"".join(blocks) == body
        assert max(map(len, blocks)) <= 1 << 20


@pytest.mark.parametrize("served", [answer(), answer(b""), chunked(b"hello")])
def test_one_connection_serves_many_requests(served):
    with serving(served) as server, Http(HASTY) as http:
        for _ in range(5):
            http.fetch(server.url, 100)
        assert (server.connections, len(server.requests)) == (1, 5)


@pytest.mark.parametrize("ending", [then_close, then_reset])
def test_connection_that_was_closed_while_idle_is_no_failed_try(ending):
    with serving(answer(), ending(b""), answer()) as server:
        with Http(Patience(tries=1)) as http:
            assert http.fetch(server.url, 100) == b"hello"
            assert http.fetch(server.url, 100) == b"hello"
        assert server.connections == 2


@pytest.mark.parametrize("header", ["Connection: close", "X: y"])
def test_server_that_closes_after_each_answer(header):
    with serving(then_close(answer(b"hello", header))) as server, Http(HASTY) as http:
        for _ in range(3):
            assert http.fetch(server.url, 100) == b"hello"


def test_a_body_that_was_not_read_to_its_end_spoils_nothing():
    with serving(answer(b"x" * 5_000_000), answer()) as server, Http(HASTY) as http:
        next(iter(http.stream(server.url, 5_000_000)))
        assert http.fetch(server.url, 100) == b"hello"


# --- Too much -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "served",
    [
        answer(b"x" * 101),
        answer(b"", "Content-Length: 101").replace(b"Content-Length: 0\r\n", b""),
        chunked(b"x" * 60, b"x" * 60),
        endlessly(b"HTTP/1.1 200 OK\r\n\r\n", b"x" * 1000),
        endlessly(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"5\r\nhello\r\n"),
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffff\r\n" + b"x" * 101,
        endlessly(b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n", b"x" * 1000),
        endlessly(b"HTTP/1.1 200 OK\r\nContent-Length: many\r\n\r\n", b"x" * 1000),
    ],
)
def test_too_long(served):
    with serving(served) as server, pytest.raises(TooLong):
        fetch(server, limit=100)


def test_limit_of_nothing():
    with serving(answer(b"")) as server:
        assert fetch(server, limit=0) == b""
    with serving(chunked(b"x")) as server, pytest.raises(TooLong):
        fetch(server, limit=0)


# --- Too little -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "served",
    [
        then_close(answer()[:-1]),
        then_reset(answer()[:-1]),
        then_silence(answer()[:-1]),
        then_close(chunked(b"hello", end=b"")),
        then_close(chunked(b"hello", end=b"5\r\nhel")),
        then_close(chunked(b"hello", end=b"zz\r\n")),
        then_close(b"HTTP/1.1 2"),
        then_close(b""),
        then_reset(b""),
        then_silence(b""),
        then_silence(b"HTTP/1.1 200 OK\r\n"),
        b"hello\r\n\r\n",
        b"HTTP/9.9 200 OK\r\n\r\n",
        b"HTTP/1.1 OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 1000 + b"\r\n",
        b"HTTP/1.1 200 OK\r\nX: " + b"y" * 100_000 + b"\r\n\r\n",
        b"\0" * 1000,
        then_close(chunked(b"hello", end=b"-1\r\n" + b"x" * 1000)),
        # What Python's parser of mail does not get over.
        answer(b"hello", "Content-Type: multipart/x; a*=1; a*0=2"),
        answer(b"hello", "Content-Type: multipart/x; boundary*=\0''a"),
        answer(b"hello", f"Content-Type: multipart/x; a*{'1' * 5000}=2"),
    ],
)
def test_broken_off(served):
    with serving(served) as server, pytest.raises(Unavailable) as problem:
        fetch(server)
    assert not isinstance(problem.value, NotFound | TooLong)
    assert problem.value.reason.startswith(server.url)
    assert problem.value.reason.isprintable()


OK = b"HTTP/1.1 200 OK\r\n"
CHUNKED = OK + b"Transfer-Encoding: chunked\r\n\r\n"


@pytest.mark.parametrize(
    "served",
    [
        endlessly(OK + b"\r\n", b"x", 0.01),
        endlessly(OK + b"Content-Length: 1000000\r\n\r\n", b"x", 0.01),
        endlessly(CHUNKED, b"1\r\nx\r\n", 0.01),
        endlessly(CHUNKED, b"0", 0.01),
        endlessly(CHUNKED + b"1;", b"x", 0.01),
        endlessly(CHUNKED + b"1\r\nx\r\n0\r\n", b"Trailer: 1\r\n"),
        endlessly(CHUNKED + b"1\r\nx\r\n0\r\nTrailer: ", b"x", 0.01),
        endlessly(OK, b"X", 0.01),
        endlessly(b"", b"H", 0.01),
        endlessly(b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
        endlessly(b"", b"HTTP/1.1 100 Continue\r\n\r\n", 0.01),
    ],
    ids=[
        *("body", "announced body", "chunks", "chunk size", "chunk extension", "trailers fast"),
        *("trailer", "header", "status line", "continue fast", "continue"),
    ],
)
def test_drip(served):
    with serving(served) as server, pytest.raises(Unavailable, match=r"slower than|longer than"):
        fetch(server, limit=10_000_000)


def test_rate_is_kept_but_the_document_takes_too_long():
    with serving(endlessly(OK + b"\r\n", b"x" * 50, 0.01)) as server:
        patience = Patience(connect=1, rate=100, window=0.3, total=0.8)
        with pytest.raises(Unavailable, match=r"took longer than 0\.8 seconds"):
            fetch(server, 10_000_000, patience)


def test_slow_but_fast_enough():
    def send(connection: socket.socket) -> None:
        connection.sendall(OK + b"Content-Length: 2000\r\n\r\n")
        for _ in range(20):
            connection.sendall(b"x" * 100)
            time.sleep(0.05)

    with serving(send) as server, Http(replace(HASTY, rate=200)) as http:
        assert sum(map(len, http.stream(server.url, 2000))) == 2000


def test_a_cap_on_bandwidth_holds_for_documents_too():
    slept: list[float] = []
    throttle = Throttle(1000, lambda: 0.0, slept.append)
    with serving(answer(b"x" * 5000)) as server, Http(HASTY, throttle=throttle) as http:
        assert http.fetch(server.url, 5000) == b"x" * 5000
        assert http.fetch_unless(server.url, 5000, "0" * 64) == b"x" * 5000
    assert slept[-1] == 10.0  # from a clock that stands still: all that was spent


def test_a_slow_disk_is_not_a_slow_server():
    now = 0.0

    def clock() -> float:
        return now

    with serving(answer(b"x" * 3_000_000)) as server, Http(HASTY, clock) as http:
        for _ in http.stream(server.url, 3_000_000, total=60):
            now += 1000


# --- Refusals, and trying again -------------------------------------------------------------------


@pytest.mark.parametrize("status", ["403 Forbidden", "404 Not Found", "410 Gone"])
def test_not_found_is_not_asked_for_again(status):
    with serving(answer(status=status)) as server:
        with pytest.raises(NotFound) as problem:
            fetch(server)
        assert problem.value.status == int(status[:3])
        assert len(server.requests) == 1


@pytest.mark.parametrize(
    "status",
    [
        *("301 Moved", "302 Found", "303 See", "304 Not Modified", "307 T", "308 P", "204 None"),
        *("206 Partial Content", "300 Choices", "400 Bad", "401 Who", "418 Teapot", "299 Odd"),
    ],
)
def test_other_answers_are_not_followed_and_not_asked_for_again(status):
    with serving(answer(b"", "Location: /elsewhere", status=status)) as server:
        with pytest.raises(Unavailable, match=status[:3]):
            fetch(server)
        assert len(server.requests) == 1


LONG = b"x" * 200_000  # more than is read at once


@pytest.mark.parametrize(
    "served",
    [
        *(answer(LONG, "Connection: close", status=each) for each in ("404 No", "500 Oh", "418 I")),
        answer(LONG, "Connection: close", "Location: http://two.example/", status="302 There"),
        answer(LONG, "Connection: close", "Content-Encoding: gzip"),
        answer(LONG, "Connection: close"),
        OK + b"\r\n" + LONG,
    ],
    ids=["404", "500", "418", "302", "gzip", "too long", "endless"],
)
@pytest.mark.parametrize("part", [False, True])
def test_what_is_refused_keeps_no_descriptor(served, part, without_garbage_collection):
    """Though the error is kept: where the server will close, only the answer has the socket."""
    with serving(served) as server, Http(HASTY) as http:
        before, errors = open_files(), []
        for _ in range(5):
            try:
                http.open(server.url, 1, 50, 100) if part else http.fetch(server.url, 100)
            except ModelwardError as error:
                errors.append(error)
        assert until(lambda: open_files() <= before)
        assert len(errors) == 5


@pytest.fixture
def without_garbage_collection() -> Iterator[None]:
    gc.collect()
    gc.disable()
    yield
    gc.enable()


@pytest.mark.parametrize("encoding", ["gzip", "br", "gzip, identity", ""])
def test_content_encodings_are_refused(encoding):
    with serving(answer(b"\x1f\x8b", f"Content-Encoding: {encoding}")) as server:
        with pytest.raises(Unavailable, match="which is refused"):
            fetch(server)
        assert len(server.requests) == 1


@pytest.mark.parametrize(
    "first", [answer(status="503 Busy"), answer(status="429 Slow down"), then_reset(b"")]
)
def test_busy_server_is_asked_again(first):
    with serving(first, first, answer()) as server:
        assert fetch(server, patience=STUBBORN) == b"hello"
        assert len(server.requests) == 3


@pytest.mark.parametrize("status", ["503 Busy", "404 Not Found", "500 Oh"])
def test_who_says_no_was_not_waited_for_in_vain(status):
    def late(connection: socket.socket) -> None:
        time.sleep(0.2)
        connection.sendall(answer(status=status))

    with serving(late) as server, Http(HASTY) as http:
        for ask in (
            lambda: http.fetch(server.url, 100),
            lambda: http.open(server.url, 0, 50, 100),
        ):
            with pytest.raises(Unavailable) as problem:
                ask()
            assert problem.value.vain < 0.15


def test_busy_server_is_asked_so_often_and_no_more():
    pauses: list[float] = []
    http = Http(STUBBORN, sleep=pauses.append)
    with serving(answer(status="503 Busy")) as server, http:
        with pytest.raises(Unavailable, match="answered 503"):
            http.fetch(server.url, 100)
        assert len(server.requests) == STUBBORN.tries
    assert 0.5 <= pauses[0] / STUBBORN.pause <= 1.5
    assert 1 <= pauses[1] / STUBBORN.pause <= 3


def test_nobody_listens():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with Http(HASTY) as http, pytest.raises(Unavailable, match="ConnectionRefusedError"):
        http.fetch(f"http://127.0.0.1:{port}/", 100)


def test_tls_to_a_server_without_it():
    with serving(answer()) as server, Http(HASTY) as http, pytest.raises(Unavailable):
        http.fetch(server.url.replace("http:", "https:"), 100)


@pytest.mark.parametrize("reason", ["\x1b[2J", "\u202e", "a" * 60_000])
def test_what_a_server_says_does_not_reach_the_terminal(reason):
    with serving(answer(status=f"500 {reason}")) as server, pytest.raises(Unavailable) as problem:
        fetch(server)
    assert problem.value.reason.isprintable()
    assert len(problem.value.reason) < 500


@pytest.mark.parametrize(
    "url",
    [
        *("", "ftp://example.com/", "file:///etc/passwd", "example.com", "http://", "http:///x"),
        *("http://[::1", "http://h:port/", "http://h:99999/", "http://h:0/", "//h/x"),
    ],
)
def test_bad_address(url):
    with Http(HASTY) as http, pytest.raises(UsageError, match="is not an http or https address"):
        http.fetch(url, 100)


@pytest.mark.parametrize(
    "url", ["http://a..b/", f"http://{'a' * 70}.example/", "http://127.0.0.1:1/é", "http://h /"]
)
def test_address_that_leads_nowhere(url):
    with Http(HASTY) as http, pytest.raises(Unavailable):
        http.fetch(url, 100)


# --- Conditional requests -------------------------------------------------------------------------


def test_unchanged_document_is_not_sent_again():
    with serving(b"HTTP/1.1 304 Not Modified\r\n\r\n", answer()) as server, Http(HASTY) as http:
        assert http.fetch_unless(server.url, 100, "ab" * 32) is None
        assert f'If-None-Match: "{"ab" * 32}"\r\n' in server.requests[0]
        assert http.fetch_unless(server.url, 100, "ab" * 32) == b"hello"
        assert server.connections == 1


@pytest.mark.parametrize("served", [answer(b"x" * 101), endlessly(OK + b"\r\n", b"x" * 1000)])
def test_conditional_request_is_cut_too(served):
    with serving(served) as server, Http(HASTY) as http, pytest.raises(TooLong):
        http.fetch_unless(server.url, 100, "ab" * 32)


def test_an_unchanged_document_that_comes_all_the_same_is_not_read():
    start = b"HTTP/1.1 304 Not Modified\r\nTransfer-Encoding: chunked\r\n\r\n"
    endless = endlessly(start, b"3e8\r\n" + b"x" * 1000 + b"\r\n")
    with serving(endless) as server, Http(replace(HASTY, total=60)) as http:
        assert http.fetch_unless(server.url, 100, "ab" * 32) is None


# --- Retry-After


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        (["Retry-After: 7"], 7),
        (["Retry-After: 999999999999"], 60),
        (
            [
                "Date: Thu, 01 Jan 2026 00:00:00 GMT",
                "Retry-After: Thu, 01 Jan 2026 00:00:09 GMT",
            ],
            9,
        ),
        (["Date: Thu, 01 Jan 2026 00:00:00 GMT", "Retry-After: Fri, 31 Dec 9999 23:59:59 GMT"], 60),
        (["Retry-After: Thu, 01 Jan 2026 00:00:09 GMT"], 0),  # by a clock that is not known
        (["Date: nonsense", "Retry-After: Thu, 01 Jan 2026 00:00:09 GMT"], 0),
        (["Retry-After: -5"], 0),
        (["Retry-After: soon"], 0),
        (["Retry-After: \u00b2"], 0),
    ],
)
def test_busy_server_says_when_to_come_again(headers, seconds):
    pauses: list[float] = []
    busy = answer(b"", *headers, status="503 Busy")
    with serving(busy, answer()) as server, Http(HASTY, sleep=pauses.append) as http:
        assert http.fetch(server.url, 100) == b"hello"
    assert pauses[0] == pytest.approx(seconds, abs=0.01)
