"""Posting a small document and reading a small answer, within a few seconds or not at all."""

import contextlib
import http.client
import socket
import threading
from dataclasses import dataclass

from modelward.errors import Unavailable
from modelward.transfer.network import Network, parse

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


def post(url: str, body: bytes, network: Network | None = None, seconds: float = SECONDS) -> Answer:
    """Send a document and return the answer, whatever its status. Redirects are not followed.

    Args:
        url: Where to.
        body: The document.
        network: The way there; None for the direct one.
        seconds: Most that all of it may take, however the server drips (attack row 8).

    Raises:
        UsageError: It is not an http or https address.
        Unavailable: Nobody answered in time, or with too much.
    """
    address, network = parse(url), network or Network()
    connection = network.connect(address, seconds)
    # A time-out is one for each read. This ends them all.
    over = threading.Event()
    ending = threading.Timer(seconds, _hang_up, (connection, over))
    ending.daemon = True
    ending.start()
    headers = {"Content-Type": "application/json", "User-Agent": "modelward"}
    try:
        target = network.target(address)
        connection.request("POST", target, body, headers | network.headers(address))
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
