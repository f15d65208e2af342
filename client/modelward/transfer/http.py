"""HTTP for a device: bounded, impatient, and trusting nothing.

`http.client` rather than a bigger library: it is part of Python and starts in a fifth of the
time. Redirects are not followed; content encodings are not asked for and not accepted (attack row
11); no answer may drip in for ever, whichever part of it drips (rows 7 and 8).
"""

import http.client
import io
import random
import socket
import ssl
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Self
from urllib.parse import SplitResult, urlsplit

from modelward.errors import NotFound, TooLong, Unavailable, UsageError

BLOCK = 1 << 20  # bytes
_HEADERS = {"Accept-Encoding": "identity", "User-Agent": "modelward"}
_SHOWN = 200  # characters: the most of a server's own words that an error quotes
_NOT_FOUND = (403, 404, 410)
_BUSY = (408, 425, 429, 500, 502, 503, 504)


@dataclass(frozen=True)
class Patience:
    """How long to wait for whom.

    Attributes:
        connect: Seconds to connect, and to wait for any single read.
        rate: Least bytes of content a second, measured over `window`.
        window: Seconds over which the rate is measured.
        total: Seconds for one small document.
        tries: How often to try a server that does not answer or is busy.
        pause: Seconds before the second try; doubles each time, with jitter.
    """

    connect: float = 10.0
    rate: int = 1024
    window: float = 15.0
    total: float = 60.0
    tries: int = 4
    pause: float = 0.5


@dataclass
class Http:
    """An HTTP client for one update. Keeps one connection a server open.

    Attributes:
        patience: How long to wait.
        clock: Monotonic seconds.
        sleep: Waits so many seconds.
    """

    patience: Patience = field(default_factory=Patience)
    clock: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep
    _open: dict[tuple[str, str], http.client.HTTPConnection] = field(default_factory=dict)

    def fetch(self, url: str, limit: int) -> bytes:
        """Return a small document.

        Args:
            url: Where it is.
            limit: Most bytes it may have.

        Raises:
            TooLong: It is longer; reading stopped there.
            NotFound: The server has no such file.
            Unavailable: Anything else went wrong, after all tries.
        """
        return b"".join(map(bytes, self.stream(url, limit, total=self.patience.total)))

    def stream(self, url: str, limit: int, total: float | None = None) -> Iterator[memoryview]:
        """Yield a document's blocks as they arrive.

        Args:
            url: Where it is.
            limit: Most bytes it may have.
            total: Most seconds it may take; None for as long as the rate is kept.

        Raises:
            TooLong: It is longer; reading stopped there.
            NotFound: The server has no such file.
            Unavailable: Anything else went wrong.
        """
        pace = _Pace(url, self.patience, self.clock, total)
        with self._response(url, pace) as response:
            declared = response.length
            if declared is not None and declared > limit:
                raise TooLong(f"{url}: the server announces {declared} bytes, at most {limit} fit")
            yield from _blocks(url, response, limit, pace)

    def fetch_unless(self, url: str, limit: int, sha256: str) -> bytes | None:
        """Return a small document, or None if the server says that it is still the known one.

        Args:
            url: Where it is.
            limit: Most bytes it may have.
            sha256: Digest of the known one: modelward's server uses digests as entity tags.

        Raises:
            TooLong: It is longer; reading stopped there.
            NotFound: The server has no such file.
            Unavailable: Anything else went wrong.
        """
        pace = _Pace(url, self.patience, self.clock, self.patience.total)
        with self._response(url, pace, {"If-None-Match": f'"{sha256}"'}) as response:
            if response.status == http.client.NOT_MODIFIED:
                response.read()
                return None
            return b"".join(map(bytes, _blocks(url, response, limit, pace)))

    def close(self) -> None:
        """Close all connections."""
        while self._open:
            self._open.popitem()[1].close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @contextmanager
    def _response(
        self, url: str, pace: "_Pace", headers: Mapping[str, str] | None = None
    ) -> Iterator[http.client.HTTPResponse]:
        address = _address(url)
        response = self._ask(address, url, pace, _HEADERS | dict(headers or {}))
        try:
            yield response
        except BaseException:
            self._drop(address)
            raise
        if not response.isclosed():
            self._drop(address)

    def _ask(
        self, address: SplitResult, url: str, pace: "_Pace", headers: Mapping[str, str]
    ) -> http.client.HTTPResponse:
        """Send the request, trying again while the server is absent or busy."""
        problem = f"{url}: not tried"
        for attempt in range(1, self.patience.tries + 1):
            pace.start()
            try:
                response = self._request(address, pace, headers)
            except Unavailable:
                self._drop(address)
                raise
            except (OSError, UnicodeError, http.client.HTTPException) as error:
                self._drop(address)
                problem = f"{url}: {_why(error)}"
            else:
                if response.status == http.client.OK or (
                    response.status == http.client.NOT_MODIFIED and "If-None-Match" in headers
                ):
                    encoding = response.getheader("Content-Encoding", "identity")
                    if encoding != "identity":
                        self._drop(address)
                        shown = repr(encoding[:_SHOWN])
                        raise Unavailable(f"{url}: the server sent {shown}, which is refused")
                    return response
                self._drop(address)
                meaning = http.client.responses.get(response.status, "an unknown status")
                problem = f"{url}: the server answered {response.status} ({meaning})"
                if response.status in _NOT_FOUND:
                    raise NotFound(problem, response.status)
                if response.status not in _BUSY:
                    raise Unavailable(problem)
            if attempt < self.patience.tries:
                pause = self.patience.pause * 2 ** (attempt - 1)
                self.sleep(pause * random.uniform(0.5, 1.5))  # noqa: S311 - jitter, no secret
        raise Unavailable(problem)

    def _request(
        self, address: SplitResult, pace: "_Pace", headers: Mapping[str, str]
    ) -> http.client.HTTPResponse:
        key = (address.scheme, address.netloc)
        connection = self._open.get(key)
        if connection is not None and connection.sock is not None:
            try:
                return self._send(connection, address, pace, headers)
            except (OSError, http.client.HTTPException):
                # A kept connection may have been closed while idle: that is no failed try.
                self._drop(address)
        connection = self._open[key] = self._connect(address)
        return self._send(connection, address, pace, headers)

    def _send(
        self,
        connection: http.client.HTTPConnection,
        address: SplitResult,
        pace: "_Pace",
        headers: Mapping[str, str],
    ) -> http.client.HTTPResponse:
        connection.response_class = _paced(pace)
        path = address.path or "/"
        target = f"{path}?{address.query}" if address.query else path
        connection.request("GET", target, headers=dict(headers))
        return connection.getresponse()

    def _connect(self, address: SplitResult) -> http.client.HTTPConnection:
        host, port = address.hostname or "", address.port
        if address.scheme == "https":
            return http.client.HTTPSConnection(
                host, port, timeout=self.patience.connect, context=ssl.create_default_context()
            )
        return http.client.HTTPConnection(host, port, timeout=self.patience.connect)

    def _drop(self, address: SplitResult) -> None:
        connection = self._open.pop((address.scheme, address.netloc), None)
        if connection:
            connection.close()


class _Pace:
    """Notices a server that is too slow, whether it drips headers, framing or content."""

    def __init__(
        self, url: str, patience: Patience, clock: Callable[[], float], total: float | None
    ) -> None:
        self._url = url
        self._patience = patience
        self._clock = clock
        self._total = total
        self.start()

    def start(self) -> None:
        """Start anew, with a new request."""
        self._start = self._window = self._clock()
        self._content = 0

    def arrived(self, count: int) -> None:
        """Note that so many bytes of content have arrived."""
        self._content += count

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Do not count the time spent inside: a slow disk is not a slow server."""
        before = self._clock()
        yield
        away = self._clock() - before
        self._start += away
        self._window += away

    def check(self) -> None:
        """Raise Unavailable if the server is too slow. Called before every read from the network.

        One read waits for at most `Patience.connect` seconds, so that no more can pass unchecked.
        """
        now = self._clock()
        if self._total is not None and now - self._start > self._total:
            raise Unavailable(f"{self._url}: took longer than {self._total:g} seconds")
        seconds = now - self._window
        if seconds >= self._patience.window:
            if self._content < self._patience.rate * seconds:
                raise Unavailable(
                    f"{self._url}: slower than {self._patience.rate} bytes a second over "
                    f"{self._patience.window:g} seconds"
                )
            self._window, self._content = now, 0


class _PacedReader(io.RawIOBase):
    """A connection's unbuffered reader, with a check before every read."""

    def __init__(self, inner: io.RawIOBase, pace: _Pace) -> None:
        self._inner = inner
        self._pace = pace

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        self._pace.check()
        return self._inner.readinto(buffer)

    def close(self) -> None:
        self._inner.close()
        super().close()


def _paced(pace: _Pace) -> type[http.client.HTTPResponse]:
    """Return the class of a response whose every read, of headers too, is paced."""

    class Response(http.client.HTTPResponse):
        def __init__(self, sock: socket.socket, *args: Any, **options: Any) -> None:
            super().__init__(sock, *args, **options)
            self.fp = io.BufferedReader(_PacedReader(self.fp.detach(), pace))

    return Response


def _blocks(
    url: str, response: http.client.HTTPResponse, limit: int, pace: _Pace
) -> Iterator[memoryview]:
    received = 0
    while True:
        try:
            # read1 returns what has come, and does not wait for a block to be full.
            data = response.read1(min(BLOCK, limit + 1))
        except (OSError, http.client.HTTPException) as error:
            raise Unavailable(f"{url}: the connection broke: {_why(error)}") from error
        if not data:
            break
        received += len(data)
        if received > limit:
            raise TooLong(f"{url}: the server sends more than {limit} bytes")
        pace.arrived(len(data))
        with pace.paused():
            yield memoryview(data)
    if response.length:
        raise Unavailable(f"{url}: the server stopped {response.length} bytes short")
    if response.length == 0:
        response.close()  # until Python 3.11.8, read1 left it open: the connection went to waste


def _address(url: str) -> SplitResult:
    try:
        address = urlsplit(url)
        if address.scheme in ("http", "https") and address.hostname and address.port != 0:
            return address
    except ValueError:
        pass
    raise UsageError(f"{url!r} is not an http or https address", "give it with --repository")


def _why(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"[:_SHOWN] if str(error) else type(error).__name__
