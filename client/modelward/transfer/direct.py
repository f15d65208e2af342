"""One small question over a plain connection, for checks that find nothing new.

`modelward.transfer.http` does far more and is needed for everything else; but `http.client` loads
TLS and a mail parser, which takes longer than all the rest of such a check. Any answer but the
two that end a check is a reason to start anew with the real thing.
"""

import socket
import time
from urllib.parse import urlsplit

from modelward.errors import TooLong, Unavailable
from modelward.transfer.connect import connect, look_up

TIMEOUT = 10.0  # seconds for everything together, but for looking the name up
HEAD = 8192  # bytes: the most that an answer's headers may have
_UNCHANGED = b"304"
_OK = b"200"


def fetch_unless(url: str, limit: int, sha256: str) -> bytes | None:
    """Return a small document, or None if the server says that it is still the known one.

    Args:
        url: Where it is: an http address.
        limit: Most bytes it may have.
        sha256: Digest of the known one: modelward's server uses digests as entity tags.

    Raises:
        TooLong: It is longer; reading stopped there.
        Unavailable: Anything else went wrong, or is not as simple as that.
    """
    address = urlsplit(url)
    request = (
        f"GET {address.path} HTTP/1.1\r\n"
        f"Host: {address.netloc}\r\n"
        f'If-None-Match: "{sha256}"\r\n'
        "Accept-Encoding: identity\r\nUser-Agent: modelward\r\nConnection: close\r\n\r\n"
    )
    try:
        place = (address.hostname or "", address.port or 80)
        with connect(look_up(place), TIMEOUT) as connection:
            connection.sendall(request.encode("ascii"))
            answer = _read(connection, HEAD + limit)
    except (OSError, ValueError) as error:
        raise Unavailable(f"{url}: {error}") from error
    return _body(url, answer, limit)


def _read(connection: socket.socket, limit: int) -> bytes:
    """Read to the end, but no more than is too much and no longer than is left to connect."""
    until = time.monotonic() + (connection.gettimeout() or 0.0)
    answer = bytearray()
    while len(answer) <= limit and (block := connection.recv(HEAD)):
        answer += block
        left = until - time.monotonic()
        if left <= 0:
            raise TimeoutError("the answer drips in")
        connection.settimeout(left)
    return bytes(answer)


def _body(url: str, answer: bytes, limit: int) -> bytes | None:
    head, end, body = answer.partition(b"\r\n\r\n")
    status, *lines = head.split(b"\r\n")
    version, _, code = status.partition(b" ")
    if not end or len(head) > HEAD or not version.startswith(b"HTTP/1."):
        raise Unavailable(f"{url}: the answer is not HTTP, or its headers are too long")
    if code[:3] == _UNCHANGED:
        return None
    fields = dict(_field(line) for line in lines)
    whole = fields.get(b"content-length") == str(len(body)).encode()
    if code[:3] != _OK or not whole or b"transfer-encoding" in fields:
        raise Unavailable(f"{url}: the answer is not as simple as expected")
    if len(body) > limit:
        raise TooLong(f"{url}: the server sends more than {limit} bytes")
    return body


def _field(line: bytes) -> tuple[bytes, bytes]:
    name, _, value = line.partition(b":")
    return name.strip().lower(), value.strip()
