"""HTTP for a device: bounded, impatient, and trusting nothing.

`http.client` rather than a bigger library: it is part of Python and starts in a fifth of the
time. Redirects are followed only to hosts that are listed; content encodings are not asked for and
not accepted (attack row 11); no answer may drip in for ever, whichever part of it drips (rows 7 and
8).
"""

import http.client
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from email.utils import parsedate_to_datetime
from threading import Lock
from typing import Self
from urllib.parse import SplitResult

from modelward.config.transfer import TransferSettings
from modelward.errors import NotFound, TooLong, Unavailable
from modelward.transfer.body import Body
from modelward.transfer.network import LISTED, SHOWN, Network, parse, why
from modelward.transfer.pace import Clock, Pace, Patience, Sleep, Throttle
from modelward.transfer.response import hang_up, paced

__all__ = ["BLOCK", "Http", "Patience"]

BLOCK = 1 << 20  # bytes
MAX_REDIRECTS = 5
_HEADERS = {"Accept-Encoding": "identity", "User-Agent": "modelward"}
_NOT_FOUND = (403, 404, 410)
_BUSY = (408, 425, 429, 500, 502, 503, 504)
_REDIRECTS = (301, 302, 303, 307, 308)


@dataclass
class Http:
    """An HTTP client for one update; may be used from many threads. Keeps connections open.

    Attributes:
        patience: How long to wait.
        clock: Monotonic seconds.
        sleep: Waits so many seconds.
        network: The way to the servers.
        throttle: A cap on the bandwidth, if there is one.
    """

    patience: Patience = field(default_factory=Patience)
    clock: Clock = time.monotonic
    sleep: Sleep = time.sleep
    network: Network = field(default_factory=Network)
    throttle: Throttle | None = None
    _idle: dict[tuple[str, str], list[http.client.HTTPConnection]] = field(default_factory=dict)
    _lock: Lock = field(default_factory=Lock)

    @classmethod
    def of(
        cls, settings: TransferSettings, patience: Patience | None = None, *, far: bool = True
    ) -> "Http":
        """Return a client that tries each server once, as a device's settings describe it.

        Args:
            settings: The settings.
            patience: What they do not say; None for the default.
            far: Whether it is for servers beyond the proxy and the cap on bandwidth, if any.
        """
        patient = replace(patience or Patience.of(settings), tries=1)
        if not far:
            return cls(patient)
        http = cls(patient, network=Network.of(settings))
        if settings.rate:
            http.throttle = Throttle(settings.rate, http.clock, http.sleep)
        return http

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
        pace = Pace(url, self.patience, self.clock, total)
        with self._response(url, pace) as response:
            declared = response.length
            if declared is not None and declared > limit:
                raise TooLong(f"{url}: the server announces {declared} bytes, at most {limit} fit")
            yield from _blocks(url, response, limit, pace, self.throttle)

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
        pace = Pace(url, self.patience, self.clock, self.patience.total)
        with self._response(url, pace, {"If-None-Match": f'"{sha256}"'}) as response:
            if response.status == http.client.NOT_MODIFIED:
                if not response.chunked:  # else it has a body, which it must not have
                    response.read()
                return None
            blocks = _blocks(url, response, limit, pace, self.throttle)
            return b"".join(map(bytes, blocks))

    def open(self, url: str, start: int, stop: int, length: int) -> Body:
        """Return a reader of bytes `start` to `stop`, exclusive, of a file of known length.

        Raises:
            Refused: The answer is about other bytes, or another length (attack row 11).
            NotFound: The server has no such file.
            NoRanges: It sends the whole file, though a part was asked for.
            Unavailable: Anything else went wrong.
        """
        pace = Pace(url, self.patience, self.clock, None)
        whole = (start, stop) == (0, length)
        headers = {} if whole else {"Range": f"bytes={start}-{stop - 1}"}
        with pace.told():
            key, connection, response = self._ask(url, pace, _HEADERS | headers)

        def end(*, reusable: bool) -> None:
            if reusable:
                self._give(key, connection)
            else:
                hang_up(response)
                connection.close()

        try:
            return Body(url, response, (start, stop, length), pace, self.throttle, end)
        except BaseException:
            _close(connection, response)
            raise

    def close(self) -> None:
        """Close all connections that are not in use."""
        with self._lock:
            idle = [connection for kept in self._idle.values() for connection in kept]
            self._idle.clear()
        for connection in idle:
            connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @contextmanager
    def _response(
        self, url: str, pace: Pace, headers: Mapping[str, str] | None = None
    ) -> Iterator[http.client.HTTPResponse]:
        with pace.told():
            key, connection, response = self._ask(url, pace, _HEADERS | dict(headers or {}))
            try:
                yield response
            except BaseException:
                _close(connection, response)
                raise
        if response.isclosed():
            self._give(key, connection)
        else:
            _close(connection, response)

    def _ask(self, url: str, pace: Pace, headers: Mapping[str, str]) -> "_Asked":
        """Send the request, trying again while the server is absent or busy."""
        asked, redirects, failures = url, 0, 0
        while True:
            pace.start()
            try:
                answer = self._request(parse(asked), pace, headers, redirected=redirects > 0)
                pace.answered()
                if not _is_asked_for(answer[2], headers):
                    pace.start()  # it says so: it was not waited for in vain
                target = self._judge(asked, answer, headers)
            except Unavailable as error:
                if error.again is None:
                    raise
                problem = error
            except (OSError, UnicodeError, http.client.HTTPException) as error:
                problem = _later(f"{asked}{self.network.way}: {why(error)}")
            else:
                if target is None:
                    return answer
                asked, redirects = target, redirects + 1
                if redirects > MAX_REDIRECTS:
                    raise Unavailable(f"{url}: redirected more than {MAX_REDIRECTS} times")
                continue
            failures += 1
            if failures >= self.patience.tries:
                raise problem
            self.sleep(self.patience.before_try(failures, problem.again))

    def _judge(self, asked: str, answer: "_Asked", headers: Mapping[str, str]) -> str | None:
        """Return None if an answer is one to the request, or where it redirects to."""
        _, connection, response = answer
        if _is_asked_for(response, headers):
            encoding = response.getheader("Content-Encoding", "identity")
            if encoding == "identity":
                return None
            _close(connection, response)
            raise Unavailable(f"{asked}: the server sent {encoding[:SHOWN]!r}, which is refused")
        _close(connection, response)
        meaning = http.client.responses.get(response.status, "an unknown status")
        problem = f"{asked}{self.network.way}: the server answered {response.status} ({meaning})"
        if response.status in _NOT_FOUND:
            raise NotFound(problem, response.status)
        if response.status in _BUSY:
            raise _later(problem, _retry_after(response) or 0.0)
        if response.status in _REDIRECTS:
            location = response.getheader("Location", "")
            target = self.network.follow(asked, location)
            if target is not None:
                return target
            raise Unavailable(f"{problem} to {location[:SHOWN]!r}, which is not followed", LISTED)
        raise Unavailable(problem)

    def _request(
        self, address: SplitResult, pace: Pace, headers: Mapping[str, str], *, redirected: bool
    ) -> "_Asked":
        key = (address.scheme, address.netloc)
        connection = None if redirected else self._take(key)
        if connection is not None:
            try:
                return key, connection, self._send(connection, address, pace, headers)
            except (OSError, http.client.HTTPException):
                pass  # a kept connection may have been closed while idle: that is no failed try
        connection = self.network.connect(address, pace.wait(), pace, redirected=redirected)
        if redirected:
            key = ("", "")  # never kept: it was made without this device's certificate
        return key, connection, self._send(connection, address, pace, headers)

    def _send(
        self,
        connection: http.client.HTTPConnection,
        address: SplitResult,
        pace: Pace,
        headers: Mapping[str, str],
    ) -> http.client.HTTPResponse:
        connection.response_class = paced(pace)
        try:
            target, more = self.network.target(address), self.network.headers(address)
            connection.request("GET", target, headers=dict(headers) | more)
            return connection.getresponse()
        except BaseException:
            connection.close()
            raise

    def _take(self, key: tuple[str, str]) -> http.client.HTTPConnection | None:
        with self._lock:
            kept = self._idle.get(key)
            return kept.pop() if kept else None

    def _give(self, key: tuple[str, str], connection: http.client.HTTPConnection) -> None:
        if connection.sock is None or not key[0]:
            connection.close()
            return
        with self._lock:
            self._idle.setdefault(key, []).append(connection)


_Asked = tuple[tuple[str, str], http.client.HTTPConnection, http.client.HTTPResponse]


def _close(connection: http.client.HTTPConnection, response: http.client.HTTPResponse) -> None:
    """Be done with an answer: where the server will close the connection, it has the socket."""
    response.close()
    connection.close()


def _is_asked_for(response: http.client.HTTPResponse, headers: Mapping[str, str]) -> bool:
    """Tell whether an answer is one to the request, whatever it may contain."""
    if response.status == http.client.PARTIAL_CONTENT:
        return "Range" in headers
    if response.status == http.client.NOT_MODIFIED:
        return "If-None-Match" in headers
    return response.status == http.client.OK


def _retry_after(response: http.client.HTTPResponse) -> float | None:
    """Return how many seconds a busy server asks to wait (RFC 9110, 10.2.3), if it does."""
    value = response.getheader("Retry-After", "").strip()
    if value.isascii() and value.isdecimal():
        return float(value[:10])
    with suppress(Exception):  # a parser of mail reads what anybody may write
        date = response.getheader("Date")  # its own clock: this device's may be wrong
        now = parsedate_to_datetime(date) if date else None
        if now is not None:
            return max(0.0, (parsedate_to_datetime(value) - now).total_seconds())
    return None


def _blocks(
    url: str,
    response: http.client.HTTPResponse,
    limit: int,
    pace: Pace,
    throttle: Throttle | None,
) -> Iterator[memoryview]:
    received = 0
    while True:
        try:
            # read1 returns what has come, and does not wait for a block to be full.
            data = response.read1(min(BLOCK, limit + 1))
        except (OSError, http.client.HTTPException) as error:
            raise _later(f"{url}: the connection broke: {why(error)}") from error
        if not data:
            break
        received += len(data)
        if received > limit:
            raise TooLong(f"{url}: the server sends more than {limit} bytes")
        pace.arrived(len(data))
        with pace.paused():
            if throttle:
                throttle.spend(len(data))
            yield memoryview(data)
    if response.length:
        raise _later(f"{url}: the server stopped {response.length} bytes short")
    if response.length == 0:
        response.close()  # until Python 3.11.8, read1 left it open: the connection went to waste


def _later(problem: str, seconds: float = 0.0) -> Unavailable:
    """Return, for the caller to raise, a problem that may be over soon."""
    error = Unavailable(problem)
    error.again = seconds
    return error
