"""What strangers say by multicast DNS, to the real zeroconf, on this machine's loop only."""

import os
import socket
import time
from collections.abc import Iterator
from contextlib import suppress
from ipaddress import IPv4Interface
from pathlib import Path
from queue import Empty, SimpleQueue
from threading import Event, Thread

import pytest

from modelward.serve import discovery
from tests.serve.mdns import (
    PTR,
    SERVICE,
    announcement,
    known,
    labels,
    names,
    packet,
    pointer,
    record,
    types,
)

zeroconf = pytest.importorskip("zeroconf")
GROUP = ("224.0.0.251", 5353)
LOOP = "127.0.0.1"
PATIENCE = 10  # seconds
# Others may run the same tests at the same time.
SOME = f"test-{os.getpid()}"
NET = f"10.{os.getpid() >> 8 & 255}.{os.getpid() & 255}"

Told = SimpleQueue[tuple[str, ...]]


def share(port: socket.socket) -> None:
    """Let others have the same port, as all who speak multicast DNS do."""
    for option in (socket.SO_REUSEADDR, socket.SO_REUSEPORT):
        port.setsockopt(socket.SOL_SOCKET, option, 1)


@pytest.fixture
def say() -> Iterator[socket.socket]:
    """Return what reaches all who listen on the loop, where there is such a thing.

    From the port that all answers come from (RFC 6762, 6).
    """
    try:
        with (
            socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as mouth,
            socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as ear,
        ):
            mouth.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, socket.inet_aton(LOOP))
            share(mouth)
            mouth.bind((LOOP, GROUP[1]))
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
    monkeypatch.setattr(discovery, "LOOK", 0.2)
    monkeypatch.setattr(discovery, "_networks", lambda: (IPv4Interface(f"{LOOP}/0"),))
    told: Told = SimpleQueue()
    warned: list[str] = []
    with discovery.announced(SOME, 8648, told.put, warned.append):
        yield told
    assert warned == []


def find(told: Told, say: socket.socket, name: str, address: str) -> tuple[str, ...]:
    """Announce an honest device until it is found, as nobody may have listened yet.

    Return who is there then: all that was said before has been heard.
    """
    for _ in range(PATIENCE):
        say.send(announcement(f"{SOME}-{name}", address))
        again = time.monotonic() + 1
        while time.monotonic() < again:  # it is told all the while, with or without news
            with suppress(Empty):
                if f"http://{address}:8648" in (there := told.get(timeout=1)):
                    return there
    pytest.fail(f"{name} was not found")


@pytest.mark.parametrize(
    "target",
    ["", "x", f"{SOME}._http._tcp.local.", f"{SOME}._Modelward._tcp.local.",
     f"{SOME}._modelward._udp.local."],
    ids=["root", "x", "http", "capital", "udp"],  # the same in all of xdist's workers
)  # fmt: skip
def test_an_announcement_that_makes_no_sense_is_dropped_alone(say, told, target):
    """Raised in zeroconf's thread, it would end that, and nobody be found any more."""
    find(told, say, "before", f"{NET}.5")
    say.send(packet(pointer(target)))
    find(told, say, "after", f"{NET}.6")


def test_whoever_has_many_names_is_asked_once(say, told):
    """Nor does it displace others: neither by its names, nor by saying what is not so of them."""
    find(told, say, "honest", f"{NET}.9")
    for port in range(1000, 1020):
        say.send(announcement(f"{SOME}-{port}", f"{NET}.6", port))
        say.send(announcement(f"{SOME}-honest-{port}", f"{NET}.9", port))
        say.send(announcement(f"{SOME}-honest", f"{NET}.9", port))
    there = find(told, say, "after", f"{NET}.5")
    assert [url for url in there if f"//{NET}." in url] == [
        f"http://{NET}.9:8648",
        f"http://{NET}.6:1000",
        f"http://{NET}.5:8648",
    ]


@pytest.mark.parametrize("address", ["::1", "fe80::1", "2001:db8::5", "::ffff:10.0.0.5"])
def test_an_address_of_which_one_machine_has_any_number_is_not_believed(say, told, address):
    find(told, say, "before", f"{NET}.5")
    say.send(announcement(f"{SOME}-many", address, 7777))
    assert not [url for url in find(told, say, "after", f"{NET}.6") if ":7777" in url]


def test_nobody_can_say_that_another_is_gone(say, told):
    find(told, say, "honest", f"{NET}.9")
    say.send(packet(record(SERVICE, PTR, labels(f"{SOME}-honest.{SERVICE}"), ttl=0)))
    assert f"http://{NET}.9:8648" in find(told, say, "after", f"{NET}.5")


def test_names_that_nobody_answers_for_hold_up_nobody(say, told):
    """Nor does a cache that they fill: zeroconf keeps 10,000 records."""
    find(told, say, "before", f"{NET}.5")
    for start in range(0, 12_000, 100):
        names = (f"{SOME}-{number}.{SERVICE}" for number in range(start, start + 100))
        say.send(packet(*(record(SERVICE, PTR, labels(name), 100_000) for name in names)))
        if start % 1000 == 0:
            find(told, say, f"while-{start}", f"{NET}.{100 + start // 1000}")
    find(told, say, "after", f"{NET}.6")


@pytest.fixture
def contest(say: socket.socket) -> Iterator[None]:
    """Say of each name that is probed for that it is taken (RFC 6762, 8.1)."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as ear:
        share(ear)
        ear.bind(GROUP)
        joined = socket.inet_aton(GROUP[0]) + socket.inet_aton(LOOP)
        ear.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, joined)
        ear.settimeout(0.1)
        over = Event()

        def answer() -> None:
            while not over.is_set():
                with suppress(TimeoutError):
                    heard = zeroconf.DNSIncoming(ear.recv(9000))
                    for each in heard.answers() if heard.is_query() else ():
                        if isinstance(each, zeroconf.DNSPointer) and SOME in each.alias:
                            say.send(packet(pointer(each.alias)))

        thread = Thread(target=answer)
        thread.start()
        yield
        over.set()
        thread.join()


def test_nobody_keeps_a_device_from_finding_others_by_saying_that_its_name_is_taken(
    say, contest, told
):
    find(told, say, "honest", f"{NET}.9")


def resident() -> int:
    """Return the bytes of memory that this process takes."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.parametrize(("said", "times"), [(types, 60), (known, 60), (names, 300)])
def test_nobody_takes_memory_by_what_they_say(say, told, said, times):
    find(told, say, "before", f"{NET}.5")
    before = resident()
    for number in range(times):
        say.send(said(number))
        time.sleep(0.01)
    find(told, say, "after", f"{NET}.6")
    assert resident() - before < 16 << 20


def test_a_device_whose_port_changes_all_the_time_is_told_of_now_and_then(say, told):
    """Each time, flash may be written."""
    find(told, say, "before", f"{NET}.5")
    began, times = time.monotonic(), told.qsize()
    for port in range(1000, 1300):
        say.send(announcement(f"{SOME}-x", f"{NET}.6", port))
        time.sleep(0.003)
    assert told.qsize() - times <= (time.monotonic() - began) / discovery.LOOK + 1


def test_devices_that_were_there_before_are_found_by_asking(say, told):
    """By another zeroconf's whole answer: it announced itself before anybody listened."""
    with zeroconf.Zeroconf([LOOP]) as other:
        other.register_service(
            zeroconf.ServiceInfo(
                SERVICE,
                f"{SOME}-other.{SERVICE}",
                port=8648,
                parsed_addresses=[f"{NET}.77"],
                server=f"{SOME}-other.local.",
            )
        )
        later: Told = SimpleQueue()
        with discovery.announced(f"{SOME}-later", 8648, later.put, lambda _: None):
            for _ in range(100):
                if f"http://{NET}.77:8648" in later.get(timeout=PATIENCE):
                    return
    pytest.fail("nobody answered")
