"""The one small question: two answers end a check, and any other is a reason to ask properly."""

import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from threading import Thread

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelward.errors import TooLong, Unavailable
from modelward.transfer import direct

DIGEST = "d" * 64
LIMIT = 16


@contextmanager
def answering(answer: bytes, asked: list[bytes] | None = None) -> Iterator[str]:
    """Answer one connection with these bytes, then close it."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            connection, _ = server.accept()
            with connection:
                request = connection.recv(65536)
                if asked is not None:
                    asked.append(request)
                connection.sendall(answer)

        thread = Thread(target=serve)
        thread.start()
        yield f"http://127.0.0.1:{server.getsockname()[1]}/metadata/timestamp.json"
        thread.join()


def ask(answer: bytes) -> bytes | None:
    with answering(answer) as url:
        return direct.fetch_unless(url, LIMIT, DIGEST)


def test_unchanged():
    asked: list[bytes] = []
    with answering(b"HTTP/1.1 304 NOT MODIFIED\r\nETag: x\r\n\r\n", asked) as url:
        assert direct.fetch_unless(url, LIMIT, DIGEST) is None
    request = asked[0].decode()
    assert request.startswith("GET /metadata/timestamp.json HTTP/1.1\r\nHost: 127.0.0.1:")
    assert f'If-None-Match: "{DIGEST}"' in request
    assert request.endswith("\r\n\r\n")


def test_changed():
    assert ask(b"HTTP/1.0 200 OK\r\ncontent-LENGTH: 5\r\n\r\nhello") == b"hello"


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"SSH-2.0-OpenSSH_9.2\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n",
        b"HTTP/1.1 200 OK\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\nContent-Length: %s\r\n\r\nhello" % (b"5" * 5000),
        b"HTTP/1.1 302 Found\r\nLocation: http://elsewhere/\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nX: %s\r\n\r\nhello" % (b"x" * direct.HEAD),
    ],
)
def test_anything_else_means_asking_properly(answer):
    with pytest.raises(Unavailable):
        ask(answer)


def test_too_long():
    with pytest.raises(TooLong):
        ask(b"HTTP/1.1 200 OK\r\nContent-Length: 17\r\n\r\n" + bytes(17))


def test_an_endless_answer_is_cut():
    """Attack row 7."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        sent = 0

        def pour() -> None:
            nonlocal sent
            connection, _ = server.accept()
            with connection, suppress(ConnectionError):
                while True:
                    sent += connection.send(bytes(4096))

        thread = Thread(target=pour)
        thread.start()
        with pytest.raises(Unavailable):
            direct.fetch_unless(f"http://127.0.0.1:{server.getsockname()[1]}/x", LIMIT, DIGEST)
        thread.join()
    assert sent < 32 << 20


def test_a_dripping_answer_is_cut(monkeypatch):
    """Attack row 8: however often a byte comes, it ends."""
    monkeypatch.setattr(direct, "TIMEOUT", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as server:

        def drip() -> None:
            connection, _ = server.accept()
            with connection, suppress(ConnectionError):
                while True:
                    connection.sendall(b"H")
                    time.sleep(0.01)

        thread = Thread(target=drip)
        thread.start()
        with pytest.raises(Unavailable):
            direct.fetch_unless(f"http://127.0.0.1:{server.getsockname()[1]}/x", 1 << 40, DIGEST)
        thread.join()


def test_nobody_there():
    with pytest.raises(Unavailable):
        direct.fetch_unless("http://127.0.0.1:9/metadata/timestamp.json", LIMIT, DIGEST)


@pytest.mark.fuzz
@given(st.binary(max_size=200), st.sampled_from([b"", b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 304 "]))
def test_whatever_it_answers(answer, start):
    try:
        body = direct._body("url", start + answer, LIMIT)
    except Unavailable:
        return
    assert body is None or len(body) <= LIMIT
