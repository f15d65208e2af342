"""The HTTP server of a device, for its neighbours: GET what it has, POST /gossip.

Python's own, a thread a connection: the guard keeps them few. Files go out by sendfile.
"""

import contextlib
import errno
import io
import re
import socket
from collections.abc import Callable
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Event, Thread
from typing import Any

from modelward.errors import ModelwardError, UsageError
from modelward.formats import note
from modelward.serve.guard import ASKING, BLOCK, GIVING, HEAD, Guard
from modelward.serve.shelf import Offer, Shelf

GOSSIP = "/gossip"
_RANGE = re.compile(r"bytes=(\d{1,18})-(\d{1,18})?")
_PARTS = re.compile(r"/(have|parts)/([0-9a-f]{64})")
_TICK = 0.5  # seconds between two looks for connections that are too slow

Hear = Callable[[bytes], None]
"""Is told of a neighbour's checkpoint; raises `ModelwardError` if it is none, or a lie."""


class Server(ThreadingHTTPServer):
    """Serves a shelf until `shutdown`.

    Args:
        host: Address to listen on.
        port: Port to listen on; 0 for any that is free.
        shelf: What there is.
        hear: Is told of checkpoints.
        guard: Ends what is too slow.

    Raises:
        UsageError: The port is taken or none, or the address is not one of this machine.
    """

    daemon_threads = True
    block_on_close = False
    request_queue_size = 32

    def __init__(
        self, host: str, port: int, shelf: Shelf, hear: Hear, guard: Guard | None = None
    ) -> None:
        self.shelf = shelf
        self.hear = hear
        self.guard = guard or Guard()
        self._over = Event()
        if ":" in host:
            self.address_family = socket.AF_INET6
        try:
            super().__init__((host, port), _Handler)
        except (OSError, OverflowError) as error:
            why = error.strerror if isinstance(error, OSError) else str(error)
            raise UsageError(f"cannot listen on {host}:{port}: {why}", _advice(error)) from error

    @property
    def url(self) -> str:
        """Where it is, as seen from this machine."""
        host, port = self.server_address[:2]
        shown = f"[{host!s}]" if ":" in str(host) else str(host)
        return f"http://{shown}:{port}"

    def serve_forever(self, poll_interval: float = 0.2) -> None:
        """Serve, and end what is too slow."""
        watch = Thread(target=self._watch, name="modelward-guard", daemon=True)
        watch.start()
        try:
            super().serve_forever(poll_interval)
        finally:
            self._over.set()
            watch.join()

    def verify_request(self, request: Any, client_address: Any) -> bool:
        """Turn away whoever comes when there are too many (attack row 8)."""
        return self.guard.admit(request, str(client_address[0]))

    def shutdown_request(self, request: Any) -> None:
        """Forget a connection."""
        self.guard.leave(request)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Neighbours come and go: a connection that breaks is no news."""
        del request, client_address

    def _watch(self) -> None:
        while not self._over.wait(_TICK):
            self.guard.end_late()


class _HeadTooLongError(Exception):
    pass


class _Asked(io.BufferedReader):
    """What a neighbour sends; lines are read for a head only, and of one no more than `HEAD` bytes.

    Python's own limit is 100 lines of 64 KiB, and its parser copies them several times.
    """

    _left = HEAD

    def begin_head(self) -> None:
        self._left = HEAD

    def readline(self, size: int | None = -1, /) -> bytes:
        most = self._left + 1
        line = super().readline(most if size is None or size < 0 else min(size, most))
        self._left -= len(line)
        if self._left < 0:
            raise _HeadTooLongError
        return line


class _Handler(BaseHTTPRequestHandler):
    server: Server
    rfile: _Asked
    protocol_version = "HTTP/1.1"
    server_version = "modelward"
    sys_version = ""
    timeout = GIVING  # for a single read or write; the guard's deadlines are the narrower ones

    def setup(self) -> None:
        super().setup()
        self.rfile = _Asked(self.rfile.detach())

    def handle_one_request(self) -> None:
        self.server.guard.expect(self.connection, ASKING)
        self.rfile.begin_head()
        try:
            super().handle_one_request()
        except _HeadTooLongError:
            self.close_connection = True
            # What was read of it says nothing; of the request before, nothing holds any more.
            self.command = self.requestline = ""
            self.request_version = self.protocol_version
            self._say(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE)

    def do_GET(self) -> None:
        path = self.path.split("?", 1)[0]
        if match := _PARTS.fullmatch(path):
            if match[1] == "have":
                body = self.server.shelf.have(match[2]).to_bytes()
                self._send(HTTPStatus.OK, body, {"Cache-Control": "no-store"})
                return
            offer = self._part(match[2])
        else:
            offer = self.server.shelf.find(path[1:]) if path.startswith("/") else None
        if offer is None:
            self._say(HTTPStatus.NOT_FOUND)
            return
        try:
            self._give(offer)
        finally:
            _close(offer)

    do_HEAD = do_GET  # noqa: N815 - as `http.server` calls it

    def do_POST(self) -> None:
        """Compare a neighbour's checkpoint with one's own, and answer with that."""
        length = self.headers.get("Content-Length", "")
        if self.path != GOSSIP or not length.isdecimal() or len(length) > 9:  # noqa: PLR2004
            self.close_connection = True  # the body was not read
            self._say(HTTPStatus.NOT_FOUND)
            return
        if int(length) > note.CAP:
            self.close_connection = True
            self._say(HTTPStatus.REQUEST_ENTITY_TOO_LARGE)
            return
        told = self.rfile.read(int(length))
        own = self.server.shelf.checkpoint()
        if told and told != own:
            with contextlib.suppress(ModelwardError, OSError):
                self.server.hear(told)
        self._send(HTTPStatus.OK, own or b"", {"Cache-Control": "no-store"})

    def log_message(self, *_: Any) -> None:
        """Say nothing: what neighbours ask for is no news."""

    def _part(self, sha256: str) -> Offer | None:
        """Return a blob's file if the range that is asked for is in it, checked and written."""
        asked = _RANGE.fullmatch(self.headers.get("Range", ""))
        have = self.server.shelf.have(sha256)
        if asked and asked[2]:
            there = have.covers(int(asked[1]), int(asked[2]) + 1)
        else:
            there = bool(have.extents) and have.extents[0][0] == 0 and not asked
        offer = self.server.shelf.part(sha256) if there else None
        if offer and not asked and not have.is_whole(offer.length):
            _close(offer)
            return None
        return offer

    def _give(self, offer: Offer) -> None:
        headers = {
            "ETag": f'"{offer.etag}"',
            "Cache-Control": offer.caching,
            "Accept-Ranges": "bytes",
        }
        if self.headers.get("If-None-Match") == f'"{offer.etag}"':
            self._send(HTTPStatus.NOT_MODIFIED, None, headers)
            return
        start, stop, status = 0, offer.length, HTTPStatus.OK
        asked = _RANGE.fullmatch(self.headers.get("Range", ""))
        if asked:
            start = int(asked[1])
            stop = min(offer.length, int(asked[2]) + 1) if asked[2] else offer.length
            status = HTTPStatus.PARTIAL_CONTENT
            if start >= stop:
                headers["Content-Range"] = f"bytes */{offer.length}"
                self._send(HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE, b"", headers)
                return
            headers["Content-Range"] = f"bytes {start}-{stop - 1}/{offer.length}"
        if isinstance(offer.content, bytes):
            self._send(status, offer.content[start:stop], headers)
            return
        self._begin(status, stop - start, headers)
        if self.command != "HEAD":
            for offset in range(start, stop, BLOCK):
                self.server.guard.expect(self.connection, GIVING)
                due = min(BLOCK, stop - offset)
                if self.connection.sendfile(offer.content, offset, due) < due:
                    # An update began the file anew. What comes next is not the rest of this answer.
                    self.close_connection = True
                    return

    def _say(self, status: HTTPStatus) -> None:
        self._send(status, f"{status.value} {status.phrase}\n".encode(), {})

    def _send(self, status: HTTPStatus, body: bytes | None, headers: dict[str, str]) -> None:
        self._begin(status, None if body is None else len(body), headers)
        if body and self.command != "HEAD":
            self.server.guard.expect(self.connection, GIVING)
            self.wfile.write(body)

    def _begin(self, status: HTTPStatus, length: int | None, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        if length is not None:
            self.send_header("Content-Length", str(length))
        self.send_header("X-Content-Type-Options", "nosniff")
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()


def _advice(error: OSError | OverflowError) -> str:
    """Return what to do where nobody can listen."""
    if isinstance(error, OverflowError):
        return "choose a port from 1 to 65535, or 0 for any that is free"
    if error.errno == errno.EADDRINUSE:
        return "stop what listens there, or choose another port (0 takes any free one)"
    if error.errno == errno.EACCES:
        return "choose a port from 1024 on: this user may not listen on those below"
    return "choose an address that this machine has now, or 0.0.0.0 for all of them"


def _close(offer: Offer) -> None:
    if not isinstance(offer.content, bytes):
        offer.content.close()
