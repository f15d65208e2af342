"""Posting a small document and reading a small answer, within a few seconds or not at all."""

import http.client
import time
from dataclasses import dataclass

from modelward.errors import Unavailable
from modelward.transfer.network import Network, parse
from modelward.transfer.pace import Pace, Patience
from modelward.transfer.response import paced

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
        seconds: Most that all of it may take, however the server drips (attack row 8). Looking its
            name up comes on top: only the system's resolver limits that.

    Raises:
        UsageError: It is not an http or https address.
        Unavailable: Nobody answered in time, or with too much.
    """
    address, network = parse(url), network or Network()
    pace = Pace(url, Patience(connect=seconds, first=seconds), time.monotonic, seconds)
    connection = network.connect(address, seconds, pace)
    connection.response_class = paced(pace)
    headers = {"Content-Type": "application/json", "User-Agent": "modelward"}
    try:
        target = network.target(address)
        connection.request("POST", target, body, headers | network.headers(address))
        response = connection.getresponse()
        received = response.read(ANSWER_CAP + 1)
    except (OSError, http.client.HTTPException) as error:
        raise Unavailable(f"{url}: {type(error).__name__}: {error}"[:300]) from error
    finally:
        connection.close()
    if len(received) > ANSWER_CAP:
        raise Unavailable(f"{url}: the answer has more than {ANSWER_CAP} bytes")
    return Answer(response.status, received)
