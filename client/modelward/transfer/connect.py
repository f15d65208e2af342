"""Connecting within one limit, however many addresses a name has (attack row 8).

The next address is tried beside those that have not answered yet (RFC 8305, 5): one that swallows
everything costs a moment, and one that is only slow is not given up for it. Imports nothing that
`socket` does not: `modelward.transfer.direct` is in a hurry.
"""

import errno
import os
import selectors
import socket
import time
from collections.abc import Sequence

APART = 0.25  # seconds until the next address is tried as well
MOST = 32  # addresses of one name that are tried

Address = tuple[int, int, int, str, tuple[object, ...]]  # as `socket.getaddrinfo` describes it


def look_up(place: tuple[str, int]) -> Sequence[Address]:
    """Return the addresses of a name; only the system's resolver limits how long it takes.

    Args:
        place: Name or address, and port.

    Raises:
        OSError: It has none.
    """
    return socket.getaddrinfo(*place, type=socket.SOCK_STREAM)[:MOST]


def connect(
    addresses: Sequence[Address], seconds: float, source: tuple[str, int] | None = None
) -> socket.socket:
    """Return a connection to whichever address of a name takes it first.

    Args:
        addresses: What `look_up` returned.
        seconds: Most that connecting may take. What is left of it is the connection's timeout, so
            that TLS, if there is any, is part of connecting.
        source: Where from; None for anywhere.

    Raises:
        OSError: None takes it, or none in time.
    """
    left = list(addresses)
    until = time.monotonic() + seconds
    turn = 0.0  # when the next address is tried
    failure = OSError("the name has no address")
    with selectors.DefaultSelector() as pending:
        try:
            while left or pending.get_map():
                now = time.monotonic()
                if now >= until:
                    raise TimeoutError("timed out")
                try:
                    if left and now >= turn:
                        turn = now + min(APART, (until - now) / len(left))
                        _begin(pending, left.pop(0), source)
                    sock = _taken(pending, (turn if left else until) - now)
                    if sock is not None:
                        sock.settimeout(max(until - time.monotonic(), 0.001))
                        return sock
                except OSError as error:
                    failure, turn = error, 0.0
        finally:
            for key in pending.get_map().values():
                key.data.close()
    raise failure


def _begin(
    pending: selectors.BaseSelector, address: Address, source: tuple[str, int] | None
) -> None:
    """Try an address."""
    family, kind, protocol, _, where = address
    sock = socket.socket(family, kind, protocol)
    try:
        sock.settimeout(0)
        if source:
            sock.bind(source)
        _check(sock.connect_ex(where), errno.EINPROGRESS)
        pending.register(sock, selectors.EVENT_WRITE, sock)
    except BaseException:
        sock.close()
        raise


def _taken(pending: selectors.BaseSelector, seconds: float) -> socket.socket | None:
    """Return a connection that was taken, if one is before so many seconds have passed.

    Raises:
        OSError: One was refused; it is no longer pending.
    """
    for key, _ in pending.select(seconds):
        sock: socket.socket = key.data
        pending.unregister(sock)
        try:
            _check(sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR))
        except OSError:
            sock.close()
            raise
        return sock
    return None


def _check(number: int, *harmless: int) -> None:
    if number and number not in harmless:
        raise OSError(number, os.strerror(number))
