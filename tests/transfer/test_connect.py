"""One limit for all addresses of a name, whatever becomes of them (attack row 8)."""

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress

import pytest

from modelward.errors import Unavailable
from modelward.transfer import connect, direct
from modelward.transfer.http import Http, Patience
from modelward.transfer.post import post

Place = tuple[str, int]
Names = Callable[..., None]
SECONDS = 1.0
URL = "http://many.example/file"


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(direct, "TIMEOUT", SECONDS)


@pytest.fixture
def silent() -> Iterator[Place]:
    """Yield a place that swallows everything: its queue is full, and nobody is let in."""
    with ExitStack() as stack:
        listener = stack.enter_context(socket.socket())
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        for _ in range(2):
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(listener.getsockname())
        yield listener.getsockname()


@pytest.fixture
def good() -> Iterator[Place]:
    """Yield a place that answers everybody."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            with suppress(OSError):
                while True:
                    connection, _ = listener.accept()
                    with connection:
                        if connection.recv(1 << 16):
                            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello")

        threading.Thread(target=serve, daemon=True).start()
        yield listener.getsockname()
        socket.socket.shutdown(listener, socket.SHUT_RDWR)


@pytest.fixture
def refused() -> Place:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        place: Place = listener.getsockname()
    return place


@pytest.fixture
def resolve(monkeypatch: pytest.MonkeyPatch) -> Names:
    """Return what makes every name have these addresses, in this order, after so many seconds."""

    def names(*places: Place, after: float = 0.0) -> None:
        def found(*_args: object, **_options: object) -> list[connect.Address]:
            time.sleep(after)
            return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", place) for place in places]

        monkeypatch.setattr(socket, "getaddrinfo", found)

    return names


@contextmanager
def within(seconds: float) -> Iterator[None]:
    start = time.monotonic()
    yield
    assert time.monotonic() - start < seconds


def fetch(url: str) -> bytes:
    with Http(Patience(connect=SECONDS, first=2 * SECONDS, total=6 * SECONDS, tries=1)) as http:
        return http.fetch(url, 16)


def ask(url: str) -> bytes | None:
    return direct.fetch_unless(url, 16, "d" * 64)


def send(url: str) -> bytes:
    return post(url, b"{}", seconds=SECONDS).body


def reach(name: str, seconds: float) -> socket.socket:
    return connect.connect(connect.look_up((name, 80)), seconds)


@pytest.mark.parametrize("way", [fetch, ask, send])
def test_addresses_that_swallow_everything(way, silent, resolve):
    resolve(*[silent] * 6)
    with within(2 * SECONDS), pytest.raises(Unavailable, match="timed out"):
        way(URL)


@pytest.mark.parametrize("way", [fetch, ask, send])
def test_the_good_one_is_last(way, silent, refused, good, resolve):
    resolve(*[silent] * 5, refused, good)
    with within(2 * SECONDS):
        assert way(URL) == b"hello"


@pytest.mark.parametrize("way", [fetch, ask, send])
def test_looking_the_name_up_comes_on_top(way, good, resolve):
    """The first nameserver is dead: what the server received must not count as not sent."""
    resolve(good, after=2.2 * SECONDS)
    assert way(URL) == b"hello"


def test_a_server_is_not_waited_for_while_its_name_is_looked_up(silent, resolve):
    resolve(silent, after=SECONDS)
    with pytest.raises(Unavailable, match="timed out") as failure:
        fetch(URL)
    assert failure.value.vain < 1.5 * SECONDS


@pytest.mark.parametrize("way", [fetch, send])
def test_tls_is_part_of_it(way, silent, resolve):
    with socket.create_server(("127.0.0.1", 0)) as mute:
        resolve(silent, silent, mute.getsockname())
        with within(1.4 * SECONDS), pytest.raises(Unavailable, match="timed out"):
            way("https://many.example/file")


def test_thousands_of_addresses(silent, resolve):
    resolve(*[silent] * 5000)
    with within(2 * SECONDS), pytest.raises(TimeoutError):
        reach("many.example", SECONDS)


def test_one_that_refuses_costs_nothing(refused, good, resolve):
    resolve(*[refused] * 20, good)
    with within(connect.APART), reach("many.example", SECONDS) as connection:
        assert connection.getpeername() == good
    resolve(*[refused] * 2)
    with within(connect.APART), pytest.raises(ConnectionRefusedError):
        reach("many.example", SECONDS)


def test_a_family_that_this_device_lacks(good, monkeypatch):
    found = [
        (250, socket.SOCK_STREAM, 6, "", ("::1", 9, 0, 0)),
        (socket.AF_INET, socket.SOCK_STREAM, 6, "", good),
    ]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_args, **_options: found)
    with reach("many.example", SECONDS) as connection:
        assert connection.getpeername() == good


def test_one_that_is_slow_is_not_given_up_for_the_next(resolve):
    """Beyond its share of the time, its queue is emptied: it is taken after all."""
    with socket.socket() as slow, socket.socket() as first, socket.socket() as second:
        slow.bind(("127.0.0.1", 0))
        slow.listen(0)
        for waiting in (first, second):
            waiting.setblocking(False)
            waiting.connect_ex(slow.getsockname())
        resolve(*[slow.getsockname()] * 8)
        empty = threading.Timer(0.6, lambda: [slow.accept()[0].close() for _ in range(2)])
        empty.start()
        with reach("many.example", 5) as connection:
            assert connection.getpeername() == slow.getsockname()
            assert 0 < (connection.gettimeout() or 0) < 4.5
        empty.join()


def test_a_name_without_addresses(resolve):
    resolve()
    with pytest.raises(OSError, match="no address"):
        reach("none.example", SECONDS)
