"""What of strangers' multicast DNS reaches zeroconf, and how much of that it keeps.

zeroconf reads all that arrives, from anywhere, and remembers what it read: of one packet of 9 kB,
2.6 MB. So packets are walked through first, none of their names or records decoded, and dropped:

- from outside this machine's networks (RFC 6762, 11);
- answers that do not come from port 5353 (6);
- questions whose known answers go on in further packets, which zeroconf would wait for (7.2, 18.5);
- longer than an Ethernet frame (17 allows 9,000 bytes);
- with an NSEC record of more than one block of types (6.1): each type becomes an object;
- that do not hold what they say they hold.
"""

import math
import struct
from asyncio import DatagramProtocol
from collections.abc import Callable
from ipaddress import IPv4Address
from typing import Any, cast

from zeroconf import Zeroconf, __version__

from modelward.serve.heard import Networks

LONGEST = 1500  # bytes of a packet
MOST = 1000  # questions and records that zeroconf may remember
PORT = 5353

_HEADER = struct.Struct("!6H")  # RFC 1035, 4.1.1: id, flags, numbers of questions and records
_ANSWER, _TRUNCATED = 0x8000, 0x0200
_QUESTION = struct.Struct("!HH")  # 4.1.2, after the name: type, class
_RECORD = struct.Struct("!HHIH")  # 4.1.3, after the name: type, class, TTL, length
_NSEC = 47  # RFC 4034, 4
_BLOCK = 32  # bytes of a block of types

Source = tuple[str, int]


class Sieve:
    """Says what to pass on.

    Args:
        networks: This machine's addresses, with the networks they are in.
        forget: Makes zeroconf forget what it was passed. Called before that is too much.
    """

    def __init__(self, networks: Networks, forget: Callable[[], None]) -> None:
        self._networks = networks
        self._forget = forget
        self._passed = 0  # questions and records since it forgot

    def passes(self, packet: bytes, source: Source) -> bool:
        """Tell whether a packet may be passed on, and count what it holds.

        Args:
            packet: The packet.
            source: The address and port that it came from.
        """
        if len(packet) > LONGEST or not self._is_near(source[0]):
            return False
        try:
            count = _count(packet, source[1])
        except (_BadError, IndexError, struct.error):
            return False
        self._passed += count
        if self._passed > MOST:
            self._forget()
            self._passed = count
        return True

    def _is_near(self, address: str) -> bool:
        return any(IPv4Address(address) in each.network for each in self._networks)


def put_before(zeroconf: Zeroconf, networks: Networks) -> None:
    """Have zeroconf hear only what passes, and forget what it heard until now.

    Nothing of ours asks what it remembers. It looks there itself whether it said something less
    than a second ago (RFC 6762, 6), and may say it once more.

    Raises:
        RuntimeError: This zeroconf is another than is known here.
    """
    try:
        transports = [each.transport for each in zeroconf.engine.readers]
        expire, clear = zeroconf.cache.async_expire, zeroconf.question_history.clear
    except AttributeError as error:
        raise _unknown(str(error)) from error
    if not transports or zeroconf.loop is None:
        raise _unknown("it listens nowhere")

    def forget() -> None:
        expire(math.inf)
        clear()

    sieve = Sieve(networks, forget)
    for transport in transports:
        inner = cast("DatagramProtocol", transport.get_protocol())
        transport.set_protocol(_Sieved(sieve, inner))
    zeroconf.loop.call_soon_threadsafe(forget)


class _Sieved(DatagramProtocol):
    """Stands between a socket and zeroconf."""

    def __init__(self, sieve: Sieve, inner: DatagramProtocol) -> None:
        self._sieve = sieve
        self._inner = inner

    def datagram_received(self, data: bytes, addr: tuple[str | Any, int]) -> None:
        if self._sieve.passes(data, addr):
            self._inner.datagram_received(data, addr)

    def error_received(self, exc: Exception) -> None:
        self._inner.error_received(exc)

    def connection_lost(self, exc: Exception | None) -> None:
        self._inner.connection_lost(exc)


class _BadError(Exception):
    """A packet is not to be passed on."""


def _count(packet: bytes, port: int) -> int:
    """Return how many questions and records a packet holds.

    Raises:
        _BadError: It is not to be passed on.
        IndexError, struct.error: Nor is it if it is cut short.
    """
    _, flags, questions, *records = _HEADER.unpack_from(packet)
    if flags & _ANSWER and port != PORT:
        raise _BadError
    if flags & _TRUNCATED and not flags & _ANSWER:
        raise _BadError
    at = _HEADER.size
    for _ in range(questions):
        at = _after_name(packet, at) + _QUESTION.size
    for _ in range(sum(records)):
        at = _after_name(packet, at)
        kind, _, _, length = _RECORD.unpack_from(packet, at)
        at += _RECORD.size
        if kind == _NSEC:
            _check_types(packet[_after_name(packet, at) : at + length])
        at += length
    if at > len(packet):
        raise _BadError
    count: int = questions + sum(records)
    return count


def _after_name(packet: bytes, at: int) -> int:
    """Return where a name ends (RFC 1035, 4.1.4): at an empty label, or a pointer elsewhere."""
    while length := packet[at]:
        if length >= 0xC0:  # noqa: PLR2004 - the two bits that say so
            return at + 2
        at += 1 + length
    return at + 1


def _check_types(types: bytes) -> None:
    """Check that an NSEC record is of the restricted form: one block, number 0 (RFC 6762, 6.1)."""
    if types[0] != 0 or not 0 < types[1] <= _BLOCK or len(types) != 2 + types[1]:
        raise _BadError


def _unknown(why: str) -> RuntimeError:
    return RuntimeError(
        f"zeroconf {__version__} cannot be kept from what strangers send: {why}; install 0.154"
    )
