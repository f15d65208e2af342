"""Posting a small document and reading a small answer, within a few seconds or not at all."""

import contextlib
import http.client
import socket
import ssl
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

from modelward.errors import Unavailable, UsageError

ANSWER_CAP = 256 << 10  # bytes: a signed checkpoint, and a few words
SECONDS = 5.0


@dataclass(frozen=True)
class Answer:
    """What a server answered.

    Attributes:
        status: The HTTP status.
        body: The body, cut off at the cap.
    """

    status: int
    body: bytes


def post(
    url: str, body: bytes, headers: Mapping[str, str] | None = None, seconds: float = SECONDS
) -> Answer:
    """Send a document and return the answer, whatever its status.

    Args:
        url: Where to.
        body: The document.
        headers: Further headers.
        seconds: Most that all of it may take, however the server drips (attack row 8).

    Raises:
        Unavailable: Nobody answered in time, or with too much.
    """
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise UsageError(f"{url!r} is not an http or https address")
    connection: http.client.HTTPConnection
    if parts.scheme == "https":
        context = ssl.create_default_context()
        connection = http.client.HTTPSConnection(
            parts.hostname, parts.port, timeout=seconds, context=context
        )
    else:
        connection = http.client.HTTPConnection(parts.hostname, parts.port, timeout=seconds)
    # A time-out is one for each read. This ends them all.
    over = threading.Event()
    ending = threading.Timer(seconds, _hang_up, (connection, over))
    ending.daemon = True
    ending.start()
    try:
        sent = {"Content-Type": "application/json", "User-Agent": "modelward"}
        connection.request("POST", parts.path or "/", body, sent | dict(headers or {}))
        response = connection.getresponse()
        received = response.read(ANSWER_CAP + 1)
    except (OSError, http.client.HTTPException) as error:
        raise Unavailable(f"{url}: {type(error).__name__}: {error}"[:300]) from error
    finally:
        ending.cancel()
        connection.close()
    if over.is_set():
        raise Unavailable(f"{url}: took longer than {seconds:g} seconds")
    if len(received) > ANSWER_CAP:
        raise Unavailable(f"{url}: the answer has more than {ANSWER_CAP} bytes")
    return Answer(response.status, received)


def _hang_up(connection: http.client.HTTPConnection, over: threading.Event) -> None:
    over.set()
    if connection.sock is not None:
        with contextlib.suppress(OSError):
            connection.sock.shutdown(socket.SHUT_RDWR)
