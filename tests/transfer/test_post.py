"""A small document and a small answer: soon, or not at all (attack row 8)."""

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import suppress

import pytest

from modelward.errors import Unavailable
from modelward.transfer.network import Network
from modelward.transfer.post import post

HEAD = b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n"
SECONDS = 0.4


@pytest.fixture
def dripping() -> Iterator[tuple[str, int]]:
    """Answer at once, and then send a byte now and then for as long as anybody listens."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(30)

        def serve() -> None:
            connection, _ = listener.accept()
            with connection, suppress(OSError):
                connection.recv(1 << 16)
                connection.sendall(HEAD)
                while True:
                    connection.sendall(b"x")
                    time.sleep(SECONDS / 20)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield listener.getsockname()
        thread.join(30)
        assert not thread.is_alive(), "somebody still listens"


def test_drip(dripping: tuple[str, int]) -> None:
    with pytest.raises(Unavailable, match="took longer than"):
        post(f"http://127.0.0.1:{dripping[1]}/gossip", b"{}", seconds=SECONDS)


def test_silence_after_a_byte_just_in_time() -> None:
    """The last read waits for what is left, not for as long as all of it may take."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(1 << 16)
                time.sleep(SECONDS * 0.8)
                connection.sendall(HEAD)
                while connection.recv(1 << 16):
                    pass  # until the device gives up

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        start = time.monotonic()
        with pytest.raises(Unavailable, match="took longer than"):
            post(f"http://127.0.0.1:{listener.getsockname()[1]}/gossip", b"{}", seconds=SECONDS)
        assert time.monotonic() - start < SECONDS * 1.5
        thread.join(30)


def test_silence_after_a_proxy_that_answers_just_in_time() -> None:
    """TLS gets what is left, not for a second time what the proxy had."""
    seconds = 3.0
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            connection, _ = listener.accept()
            with connection, suppress(OSError):
                connection.recv(1 << 16)
                time.sleep(seconds * 0.8)
                connection.sendall(b"HTTP/1.1 200 Connected\r\n\r\n")
                while connection.recv(1 << 16):
                    pass  # until the device gives up

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        network = Network(proxy=f"http://127.0.0.1:{listener.getsockname()[1]}")
        start = time.monotonic()
        with pytest.raises(Unavailable):
            post("https://127.0.0.1:1/gossip", b"{}", network, seconds)
        assert time.monotonic() - start < seconds * 1.4  # 1.8, were it `seconds` for each
        thread.join(30)


def test_drip_after_an_address_that_swallows_everything(
    dripping: tuple[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket() as silent, socket.socket() as first, socket.socket() as second:
        silent.bind(("127.0.0.1", 0))
        silent.listen(0)
        for waiting in (first, second):  # the queue is full: nobody else gets an answer
            waiting.setblocking(False)
            waiting.connect_ex(silent.getsockname())
        addresses = [
            (socket.AF_INET, socket.SOCK_STREAM, 6, "", address)
            for address in (silent.getsockname(), dripping)
        ]
        monkeypatch.setattr(socket, "getaddrinfo", lambda *_args, **_options: addresses)
        with pytest.raises(Unavailable, match="took longer than"):
            post("http://two.example/gossip", b"{}", seconds=SECONDS)
        with socket.create_connection(dripping, 1):
            pass  # so that it ends, had it never been reached
