"""A server of blobs that does wrong what it is told to, answer by answer; over real HTTP."""

import hashlib
import os
import re
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress

from modelward.formats.chunks import ChunkIndex
from modelward.formats.release import Blob
from modelward.transfer.http import Http, Patience
from modelward.transfer.sources import HttpSource, Kind, Sources

_RANGE = re.compile(r"^Range: bytes=(\d+)-(\d+)\r$", re.MULTILINE)
# Seconds where a device waits for ten, so that a busy machine is no fault.
HASTY = Patience(
    connect=1.5, first=3.0, rate=20_000, window=1.0, total=10.0, tries=3, pause=0.005, longest=0.05
)

Fault = Callable[["Answer"], None]
"""Changes an answer, or sends it itself and raises `Done`."""


class Done(Exception):  # noqa: N818 - no error
    """The answer was sent; the connection is closed."""


class Answer:
    """An answer that is about to be sent."""

    def __init__(self, connection: socket.socket, data: bytes, request: str) -> None:
        self.connection = connection
        self.request = request
        match = _RANGE.search(request)
        self.start, self.stop = (
            (int(match[1]), min(int(match[2]) + 1, len(data))) if match else (0, len(data))
        )
        self.whole = data
        self.status = "206 Partial Content" if match else "200 OK"
        self.body = memoryview(data)[self.start : self.stop]  # not copied: it may be gigabytes
        self.headers = {"Content-Length": str(len(self.body)), "ETag": '"one"'}
        if match:
            self.headers["Content-Range"] = f"bytes {self.start}-{self.stop - 1}/{len(data)}"

    def head(self) -> bytes:
        lines = [f"HTTP/1.1 {self.status}", *(f"{k}: {v}" for k, v in self.headers.items())]
        return ("\r\n".join(lines) + "\r\n\r\n").encode()


class BlobServer:
    """Serves one blob under every path.

    Args:
        data: The blob.
        faults: What goes wrong with the first answer, the second, and so on; None for nothing.
        always: What goes wrong with all that follow.
        rate: Bytes a second that one connection gets; 0 for all it can take.

    Attributes:
        sent: Bytes of content that were sent.
        ranges: What was asked for.
    """

    def __init__(
        self,
        data: bytes,
        faults: Sequence[Fault | None] = (),
        always: Fault | None = None,
        rate: float = 0,
    ) -> None:
        self.data = data
        self.sent = 0
        self.ranges: list[tuple[int, int]] = []
        self.rate = rate
        self._faults = iter(faults)
        self._always = always
        self._lock = threading.Lock()
        self._open: list[socket.socket] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        for sock in [self._listener, *self._open]:
            with suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
            sock.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                self._open.append(connection)
                threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with suppress(OSError, Done), connection:
            while request := self._read(connection):
                answer = Answer(connection, self.data, request)
                with self._lock:
                    self.ranges.append((answer.start, answer.stop))
                    fault = next(self._faults, self._always)
                if fault is not None:
                    fault(answer)
                connection.sendall(answer.head())
                self._send(connection, answer.body)

    def _send(self, connection: socket.socket, body: memoryview) -> None:
        step = 64 << 10 if not self.rate else max(1, int(self.rate / 50))
        for at in range(0, len(body), step):
            connection.sendall(body[at : at + step])
            self.sent += len(body[at : at + step])
            if self.rate:
                time.sleep(step / self.rate)

    def _read(self, connection: socket.socket) -> str:
        data = b""
        while not data.endswith(b"\r\n\r\n"):
            block = connection.recv(4096)
            if not block:
                return ""
            data += block
        return data.decode()


@contextmanager
def serving(*servers: BlobServer, patience: Patience = HASTY) -> Iterator[Sources]:
    """Yield sources of several servers: the last one is the origin, the others are mirrors."""
    once = Patience(**{**patience.__dict__, "tries": 1})
    kinds = [Kind.MIRROR] * (len(servers) - 1) + [Kind.ORIGIN]
    with Http(once) as http:
        found = [HttpSource(s.url, http, kind) for s, kind in zip(servers, kinds, strict=True)]
        try:
            yield Sources(found, patience)
        finally:
            for server in servers:
                server.close()


def blob_of(data: bytes) -> Blob:
    return Blob(hashlib.sha256(data).hexdigest(), len(data))


def index_of(data: bytes, size: int = 100_000) -> ChunkIndex:
    parts = [data[at : at + size] for at in range(0, len(data), size)]
    pieces = [(len(part), hashlib.sha256(part).digest()) for part in parts]
    return ChunkIndex.of(hashlib.sha256(data).hexdigest(), len(data), pieces)


def some_data(length: int) -> bytes:
    return os.urandom(length)


# --- what may go wrong


def _send_and_close(answer: Answer, data: memoryview, *, reset: bool = False) -> None:
    answer.connection.sendall(answer.head())
    answer.connection.sendall(data)
    if reset:
        linger = struct.pack("ii", 1, 0)
        answer.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        answer.connection.close()
    raise Done


def truncate(part: float = 0.5) -> Fault:
    """Announce everything, send a part, hang up."""
    return lambda answer: _send_and_close(answer, answer.body[: int(len(answer.body) * part)])


def hang_up_after(count: int) -> Fault:
    """Announce everything, send so many bytes, hang up."""
    return lambda answer: _send_and_close(answer, answer.body[:count])


def reset(part: float = 0.5) -> Fault:
    """Send a part, then reset the connection."""

    def fault(answer: Answer) -> None:
        _send_and_close(answer, answer.body[: int(len(answer.body) * part)], reset=True)

    return fault


def corrupt(part: float = 0.5) -> Fault:
    """Flip a bit."""

    def fault(answer: Answer) -> None:
        if answer.body:
            at = min(int(len(answer.body) * part), len(answer.body) - 1)
            body = bytearray(answer.body)
            body[at] ^= 1
            answer.body = memoryview(body)

    return fault


def stall(part: float = 0.5) -> Fault:
    """Send a part, then nothing."""

    def fault(answer: Answer) -> None:
        cut = answer.body[: int(len(answer.body) * part)]
        answer.connection.sendall(answer.head() + cut)
        answer.connection.recv(1)
        raise Done

    return fault


def together(all_here: threading.Barrier) -> Fault:
    """Wait until all others have been asked, too."""

    def fault(_answer: Answer) -> None:
        all_here.wait()

    return fault


def silent(answer: Answer) -> None:
    """Answer nothing."""
    answer.connection.recv(1)
    raise Done


def drip(answer: Answer) -> None:
    """Send a byte now and then."""
    answer.connection.sendall(answer.head())
    for at in range(len(answer.body)):
        answer.connection.sendall(answer.body[at : at + 1])
        time.sleep(0.02)
    raise Done


def announce(more: int) -> Fault:
    """Lie about the length, and send what is right."""

    def fault(answer: Answer) -> None:
        answer.headers["Content-Length"] = str(max(0, len(answer.body) + more))
        _send_and_close(answer, answer.body)

    return fault


def ignore_range(answer: Answer) -> None:
    """Send everything, whatever was asked for."""
    answer.status = "200 OK"
    answer.headers.pop("Content-Range", None)
    answer.body = memoryview(answer.whole)
    answer.headers["Content-Length"] = str(len(answer.body))


def other_range(by: int) -> Fault:
    """Say that the answer is about other bytes."""

    def fault(answer: Answer) -> None:
        answer.status = "206 Partial Content"
        start, stop = answer.start + by, answer.stop + by - 1
        answer.headers["Content-Range"] = f"bytes {start}-{stop}/{len(answer.whole)}"

    return fault


def wrong_range_untold(answer: Answer) -> None:
    """Send other bytes, of the same file, under the right range."""
    answer.body = memoryview(bytes(answer.body[1:]) + answer.body[:1])


def change_etag(answer: Answer) -> None:
    """Claim that the file has changed, and send what it was."""
    answer.headers["ETag"] = f'"{time.monotonic_ns()}"'


def status(code: int, *headers: tuple[str, str]) -> Fault:
    """Answer with an error, or whatever it is."""

    def fault(answer: Answer) -> None:
        answer.status, answer.body = f"{code} Whatever", memoryview(b"")
        answer.headers = {"Content-Length": "0", **dict(headers)}

    return fault


def endless(answer: Answer) -> None:
    """Send what is right and go on for ever."""
    answer.headers.pop("Content-Length")
    answer.connection.sendall(answer.head() + answer.body)
    while True:
        answer.connection.sendall(bytes(65536))


def chunked(answer: Answer) -> None:
    """Send what is right, in chunks and without a length."""
    answer.headers.pop("Content-Length")
    answer.headers["Transfer-Encoding"] = "chunked"
    answer.connection.sendall(answer.head())
    for at in range(0, len(answer.body), 7000):
        part = answer.body[at : at + 7000]
        answer.connection.sendall(b"%x\r\n%b\r\n" % (len(part), part))
    answer.connection.sendall(b"0\r\n\r\n")
    raise Done


def noise(answer: Answer) -> None:
    """Send what is not HTTP."""
    answer.connection.sendall(os.urandom(1000))
    raise Done
