"""One answer's body, read straight into the reader's own buffers."""

import http.client
import re
from typing import Protocol

from modelward.errors import Gate, NoRanges, Refused, Unavailable
from modelward.transfer.network import why
from modelward.transfer.pace import Pace, Throttle

_CONTENT_RANGE = re.compile(r"bytes (\d{1,19})-(\d{1,19})/(\d{1,19}|\*)")
ADVICE = "that server is broken or hostile: use another mirror"


class End(Protocol):
    """Is told when a body is done with."""

    def __call__(self, *, reusable: bool) -> None:
        """Take the connection back; `reusable` if it was read to its end."""
        ...


class Body:
    """Bytes `start` to `stop`, exclusive, of a file of known length, as they arrive.

    Args:
        url: Where they come from, for errors.
        response: The answer, its headers read.
        extent: Start, stop, and the length of the whole file.
        pace: Notices a server that is too slow.
        throttle: A cap on the bandwidth, or None.
        end: Told once when the body is done with.

    Raises:
        Refused: The answer is about other bytes, or another length (attack row 11).
        NoRanges: It is the whole file, though a part was asked for: what comes before that part
            would have to be read for every one.
    """

    def __init__(  # noqa: PLR0913, PLR0917 - one call site, in http.py
        self,
        url: str,
        response: http.client.HTTPResponse,
        extent: tuple[int, int, int],
        pace: Pace,
        throttle: Throttle | None,
        end: End,
    ) -> None:
        self._url = url
        self._response = response
        self._pace = pace
        self._throttle = throttle
        self._end: End | None = end
        start, stop, length = extent
        self._left = stop - start
        if response.status == http.client.PARTIAL_CONTENT:
            self._check_range(*extent)
        else:
            self._check_whole(length)
            if self._left < length:
                raise NoRanges(f"{url}: the server sends only the whole file, and no part of it")
        # What comes after the last byte that was asked for is not read (attack row 7): where the
        # answer's end was not announced, the connection is of no more use.
        self._reusable = response.length is not None
        pace.rest()

    def _check_whole(self, length: int) -> None:
        declared = self._response.length
        if declared is not None and declared > length:
            raise self._wrong(f"more than {length} bytes ({declared} announced)")
        if declared is not None and declared < length:
            raise self._wrong(f"{declared} bytes instead of {length}")

    def _check_range(self, start: int, stop: int, length: int) -> None:
        given = self._response.getheader("Content-Range", "")
        match = _CONTENT_RANGE.fullmatch(given.strip())
        declared = self._response.length
        if (
            match is None
            or (int(match[1]), int(match[2])) != (start, stop - 1)
            or match[3] not in ("*", str(length))
            or declared not in (None, stop - start)
        ):
            raise self._wrong(
                f"another range: {given[:80]!r}, {declared} bytes, instead of bytes "
                f"{start}-{stop - 1}/{length}"
            )

    def readinto(self, buffer: memoryview) -> int:
        """Read what has come, at most `buffer` and at most what was asked for; 0 at the end.

        Raises:
            Refused: The server sends more than the file has.
            Unavailable: The connection broke, ended early, or is too slow.
        """
        self._pace.resume()
        try:
            if not self._left:
                self._finish()
                return 0
            most = self._throttle.piece if self._throttle else len(buffer)
            with self._pace.told():
                count = self._read(buffer[: min(most, self._left)])
            self._left -= count
        except BaseException:
            self._done(reusable=False)
            raise
        finally:
            self._pace.rest()
        if self._throttle:
            self._throttle.spend(count)
        return count

    def close(self) -> None:
        """Be done with it; also from another thread, whose reading then ends."""
        self._done(reusable=False)

    def _read(self, buffer: memoryview) -> int:
        """Read at least one byte."""
        response = self._response
        try:
            if response.chunked or response.fp is None:
                data = response.read1(len(buffer))
                count = len(data)
                buffer[:count] = data
            else:
                # Straight from the socket to its place: `HTTPResponse.readinto` would wait until
                # the buffer is full, and lose what came before a connection broke.
                count = response.fp.readinto1(buffer)
        except (OSError, http.client.HTTPException) as error:
            raise self._broke(f"the connection broke: {why(error)}") from error
        if not count:
            raise self._broke(f"the server stopped {self._left} bytes short")
        self._pace.arrived(count)
        return count

    def _finish(self) -> None:
        if self._end is None:
            return
        if not self._response.isclosed():
            self._response.close()
        self._done(reusable=self._reusable)

    def _done(self, *, reusable: bool) -> None:
        if self._end is not None:
            self._end(reusable=reusable)
            self._end = None

    def _broke(self, what: str) -> Unavailable:
        error = Unavailable(f"{self._url}: {what}")
        error.again = 0.0
        return error

    def _wrong(self, what: str) -> Refused:
        return Refused(Gate.FETCH, f"{self._url} delivered {what}", ADVICE)
