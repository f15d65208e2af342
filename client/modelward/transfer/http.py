"""HTTP for a device: bounded, impatient, and trusting nothing.

`http.client` rather than a bigger library: it is part of Python and starts in a fifth of the
time. Redirects are not followed; content encodings are not
asked for and not accepted (attack row 11); no answer may drip in for ever (rows 7 and 8).
"""

import http.client
import random
import ssl
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Self
from urllib.parse import SplitResult, urlsplit

from modelward.errors import NotFound, TooLong, Unavailable, UsageError

BLOCK = 1 << 20  # bytes
_NOT_FOUND = (403, 404, 410)
_BUSY = (408, 425, 429, 500, 502, 503, 504)


@dataclass(frozen=True)
class Patience:
    """How long to wait for whom.

    Attributes:
        connect: Seconds to connect, and to wait for any single read.
        rate: Least bytes a second, measured over `window`.
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
        with self._response(url) as response:
            declared = response.length
            if declared is not None and declared > limit:
                raise TooLong(f"{url}: the server announces {declared} bytes, at most {limit} fit")
            yield from self._blocks(url, response, limit, total)

    def close(self) -> None:
        """Close all connections."""
        while self._open:
            self._open.popitem()[1].close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _blocks(
        self, url: str, response: http.client.HTTPResponse, limit: int, total: float | None
    ) -> Iterator[memoryview]:
        start = window_start = self.clock()
        received = window_bytes = 0
        while True:
            try:
                # read1 returns what has come: the checks below run however slowly it comes.
                data = response.read1(min(BLOCK, limit + 1))
            except (OSError, http.client.HTTPException) as error:
                raise Unavailable(f"{url}: the connection broke: {_why(error)}") from error
            if not data:
                break
            count = len(data)
            received += count
            window_bytes += count
            if received > limit:
                raise TooLong(f"{url}: the server sends more than {limit} bytes")
            now = self.clock()
            if total is not None and now - start > total:
                raise Unavailable(f"{url}: took longer than {total:g} seconds")
            if now - window_start >= self.patience.window:
                if window_bytes < self.patience.rate * (now - window_start):
                    raise Unavailable(
                        f"{url}: slower than {self.patience.rate} bytes a second over "
                        f"{self.patience.window:g} seconds"
                    )
                window_start, window_bytes = now, 0
            yield memoryview(data)
        if response.length:
            raise Unavailable(f"{url}: the server stopped {response.length} bytes short")

    @contextmanager
    def _response(self, url: str) -> Iterator[http.client.HTTPResponse]:
        address = _address(url)
        response = self._ask(address, url)
        try:
            yield response
        except BaseException:
            self._drop(address)
            raise
        if not response.isclosed():
            self._drop(address)

    def _ask(self, address: SplitResult, url: str) -> http.client.HTTPResponse:
        """Send the request, trying again while the server is absent or busy."""
        problem = f"{url}: not tried"
        for attempt in range(1, self.patience.tries + 1):
            try:
                response = self._request(address)
            except (OSError, http.client.HTTPException) as error:
                self._drop(address)
                problem = f"{url}: {_why(error)}"
            else:
                if response.status == http.client.OK:
                    encoding = response.getheader("Content-Encoding", "identity")
                    if encoding != "identity":
                        self._drop(address)
                        raise Unavailable(f"{url}: the server sent {encoding!r}, which is refused")
                    return response
                self._drop(address)
                problem = f"{url}: the server answered {response.status} {response.reason}"
                if response.status in _NOT_FOUND:
                    raise NotFound(problem, response.status)
                if response.status not in _BUSY:
                    raise Unavailable(problem)
            if attempt < self.patience.tries:
                pause = self.patience.pause * 2 ** (attempt - 1)
                self.sleep(pause * random.uniform(0.5, 1.5))  # noqa: S311 - jitter, no secret
        raise Unavailable(problem)

    def _request(self, address: SplitResult) -> http.client.HTTPResponse:
        key = (address.scheme, address.netloc)
        fresh = key not in self._open
        if fresh:
            self._open[key] = self._connect(address)
        try:
            return self._send(self._open[key], address)
        except (OSError, http.client.HTTPException):
            if fresh:
                raise
            # A kept connection may have been closed while idle: that is no failed try.
            self._drop(address)
            self._open[key] = self._connect(address)
            return self._send(self._open[key], address)

    def _send(
        self, connection: http.client.HTTPConnection, address: SplitResult
    ) -> http.client.HTTPResponse:
        path = address.path or "/"
        target = f"{path}?{address.query}" if address.query else path
        connection.request(
            "GET", target, headers={"Accept-Encoding": "identity", "User-Agent": "modelward"}
        )
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


def _address(url: str) -> SplitResult:
    address = urlsplit(url)
    if address.scheme not in ("http", "https") or not address.hostname:
        raise UsageError(f"{url!r} is not an http or https address", "give it with --repository")
    return address


def _why(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
