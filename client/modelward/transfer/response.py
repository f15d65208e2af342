"""Answers of `http.client` that are read in a device's way: at a pace, and all that has come.

Whatever the library trips over is an answer that is not HTTP, and says so.
"""

import http.client
import io
import socket
import ssl
from contextlib import suppress
from typing import Any

from modelward.errors import ModelwardError
from modelward.transfer.pace import Pace

RECORD = 1 << 14  # bytes: the most that one record of TLS holds


class _PacedReader(io.RawIOBase):
    """A connection's unbuffered reader, with a check before every read."""

    def __init__(self, inner: io.RawIOBase, pace: Pace, sock: socket.socket) -> None:
        self._inner = inner
        self._pace = pace
        self._sock = sock
        self._tls = sock if isinstance(sock, ssl.SSLSocket) else None

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        wait = self._pace.wait()
        if wait != self._sock.gettimeout():
            self._sock.settimeout(wait)
        try:
            count = self._inner.readinto(buffer)
        except TimeoutError:
            self._pace.left()  # which says so if it was too slow for all of it, not for one read
            raise
        if self._tls is None or not count or len(buffer) < RECORD:
            return count
        return count + _also_here(self._tls, memoryview(buffer)[count:])

    def shut_down(self) -> None:
        with suppress(OSError):
            # Not the method of a TLS socket, which takes the layer away from under the reader.
            socket.socket.shutdown(self._sock, socket.SHUT_RDWR)

    def close(self) -> None:
        self._inner.close()
        super().close()


def _also_here(sock: ssl.SSLSocket, buffer: memoryview) -> int:
    """Fill a buffer with what has come already; return how much that was.

    TLS hands out one record at a time, and a caller that takes its turn after each is slow.
    """
    patience = sock.gettimeout()
    filled = 0
    try:
        sock.settimeout(0)
        while filled < len(buffer) and (count := sock.recv_into(buffer[filled:])):
            filled += count
    except OSError:
        pass  # nothing more has come; or what is wrong will show when it is waited for
    finally:
        sock.settimeout(patience)
    return filled


def paced(pace: Pace) -> type[http.client.HTTPResponse]:
    """Return the class of a response whose every read, of headers too, is paced."""

    class Response(http.client.HTTPResponse):
        def __init__(self, sock: socket.socket, *args: Any, **options: Any) -> None:
            super().__init__(sock, *args, **options)
            self.fp = io.BufferedReader(_PacedReader(self.fp.detach(), pace, sock))

        def begin(self) -> None:
            try:
                super().begin()
            except (OSError, http.client.HTTPException, ModelwardError):
                raise
            except Exception as error:
                # The library has them read by a parser of mail, which raises TypeError and more.
                what = f"its headers are ill-formed ({type(error).__name__})"
                raise http.client.HTTPException(what) from error

        def _read_next_chunk_size(self) -> int:
            size: int = super()._read_next_chunk_size()  # type: ignore[misc]
            if size < 0:  # which would be read as: all there is, however much that be
                raise ValueError(size)
            return size

    return Response


def hang_up(response: http.client.HTTPResponse) -> None:
    """Have no more of an answer, though another thread may wait for it, whose reading then ends.

    Where the server will close the connection, only the answer still knows the socket.

    Args:
        response: An answer of a class that `paced` returned.
    """
    reader = getattr(response.fp, "raw", None)  # it has none once all of it was read
    if isinstance(reader, _PacedReader):
        reader.shut_down()
    response.close()
