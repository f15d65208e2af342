"""What strangers say by multicast DNS, to the real zeroconf, on this machine's loop only."""

import os
import socket
import struct
from collections.abc import Iterator
from contextlib import suppress
from ipaddress import IPv4Interface
from queue import Empty, SimpleQueue

import pytest

from modelward.serve import discovery

pytest.importorskip("zeroconf")
GROUP = ("224.0.0.251", 5353)
LOOP = "127.0.0.1"
A, PTR, TXT, SRV = 1, 12, 16, 33
PATIENCE = 10  # seconds
SOME = f"test-{os.getpid()}"  # others may run the same tests at the same time

Told = SimpleQueue[tuple[str, ...]]


def packet(*records: bytes) -> bytes:
    """Return an answer that nobody asked for, as all announcements are."""
    return struct.pack("!6H", 0, 0x8400, 0, len(records), 0, 0) + b"".join(records)


def record(name: str, kind: int, data: bytes) -> bytes:
    return labels(name) + struct.pack("!HHIH", kind, 1, 120, len(data)) + data


def labels(name: str) -> bytes:
    parts = [part.encode() for part in name.split(".") if part]
    return b"".join(bytes([len(part)]) + part for part in parts) + b"\0"


def pointer(target: str) -> bytes:
    """Return what says that there is such a service."""
    return record(discovery.SERVICE, PTR, labels(target))


def announcement(name: str, address: str) -> bytes:
    """Return what an honest device says."""
    service, host = f"{name}.{discovery.SERVICE}", f"{name}.local."
    return packet(
        pointer(service),
        record(service, SRV, struct.pack("!3H", 0, 0, 8648) + labels(host)),
        record(service, TXT, b"\0"),
        record(host, A, socket.inet_aton(address)),
    )


@pytest.fixture
def say() -> Iterator[socket.socket]:
    """Return what reaches all who listen on the loop, where there is such a thing."""
    try:
        with (
            socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as mouth,
            socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as ear,
        ):
            mouth.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, socket.inet_aton(LOOP))
            joined = socket.inet_aton(GROUP[0]) + socket.inet_aton(LOOP)
            ear.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, joined)
            ear.bind(("", 0))
            ear.settimeout(PATIENCE)
            mouth.sendto(b"?", (GROUP[0], ear.getsockname()[1]))
            ear.recv(1)
            mouth.connect(GROUP)
            yield mouth
    except OSError as error:
        pytest.skip(f"there is no multicast on this machine's loop: {error}")


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> Iterator[Told]:
    """Discover on the loop, on which everybody counts as near."""
    monkeypatch.setattr(discovery, "_networks", lambda: (IPv4Interface(f"{LOOP}/0"),))
    told: Told = SimpleQueue()
    warned: list[str] = []
    with discovery.announced(SOME, 8648, told.put, warned.append):
        yield told
    assert warned == []


def find(told: Told, say: socket.socket, name: str, address: str) -> None:
    """Announce an honest device until it is found: nobody may have listened yet."""
    for _ in range(PATIENCE):
        say.send(announcement(f"{SOME}-{name}", address))
        with suppress(Empty):
            while f"http://{address}:8648" not in told.get(timeout=1):
                pass
            return
    pytest.fail(f"{name} was not found")


@pytest.mark.parametrize(
    "target",
    ["", "x", f"{SOME}._http._tcp.local.", f"{SOME}._Modelward._tcp.local.",
     f"{SOME}._modelward._udp.local."],
)  # fmt: skip
def test_an_announcement_that_makes_no_sense_is_dropped_alone(say, told, target):
    """Raised in zeroconf's thread, it would end that, and nobody be found any more."""
    find(told, say, "before", "10.0.0.5")
    say.send(packet(pointer(target)))
    find(told, say, "after", "10.0.0.6")
