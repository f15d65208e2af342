"""Packets of multicast DNS, as honest devices and others send them."""

import socket
import struct

A, PTR, TXT, AAAA, SRV, NSEC = 1, 12, 16, 28, 33, 47
SERVICE = "_modelward._tcp.local."
FOR_EVER = 0x7FFFFFFF  # seconds
ALL_TYPES = b"".join(bytes([block, 32]) + b"\xff" * 32 for block in range(255))
LONG = ("\U0001f600" + "x" * 50 + ".") * 4  # four bytes a character in memory


def packet(*records: bytes) -> bytes:
    """Return an answer that nobody asked for, as all announcements are."""
    return struct.pack("!6H", 0, 0x8400, 0, len(records), 0, 0) + b"".join(records)


def record(name: str, kind: int, data: bytes, ttl: int = 120) -> bytes:
    return labels(name) + struct.pack("!HHIH", kind, 1, ttl, len(data)) + data


def labels(name: str) -> bytes:
    parts = [part.encode() for part in name.split(".") if part]
    return b"".join(bytes([len(part)]) + part for part in parts) + b"\0"


def pointer(target: str) -> bytes:
    """Return what says that there is such a service."""
    return record(SERVICE, PTR, labels(target))


def announcement(name: str, address: str, port: int = 8648) -> bytes:
    """Return what an honest device says."""
    service, host = f"{name}.{SERVICE}", f"{name}.local."
    family, kind = (socket.AF_INET6, AAAA) if ":" in address else (socket.AF_INET, A)
    return packet(
        pointer(service),
        record(service, SRV, struct.pack("!3H", 0, 0, port) + labels(host)),
        record(service, TXT, b"\0"),
        record(host, kind, socket.inet_pton(family, address)),
    )


def question(*known: bytes, kind: int = PTR, flags: int = 0) -> bytes:
    """Return who asks for devices, and says which are known already."""
    head = struct.pack("!6H", 0, flags, 1, len(known), 0, 0)
    return head + labels(SERVICE) + struct.pack("!2H", kind, 1) + b"".join(known)


def types(number: int) -> bytes:
    """Return what zeroconf takes 2.6 MB for."""
    return packet(record(f"x{number}.local.", NSEC, b"\0" + ALL_TYPES, FOR_EVER))


def known(number: int) -> bytes:
    """Return a question with that as an answer which is known."""
    answer = record(f"x{number}.local.", NSEC, b"\0" + ALL_TYPES, FOR_EVER)
    return question(answer, kind=PTR if number % 2 else 255)


def names(number: int) -> bytes:
    """Return many short records with long names."""
    first = struct.pack("!H", 0xC000 | 12)  # a pointer to the first name, after the header
    end = struct.pack("!HHIH", PTR, 1, FOR_EVER, len(first)) + first
    more = (b"\4" + struct.pack("!HH", number, each) + first + end for each in range(60))
    return packet(labels(LONG) + end, *more)
