"""What strangers send that does not reach zeroconf, and when it forgets what did."""

from ipaddress import IPv4Interface
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.serve.mdns import (
    ALL_TYPES,
    FOR_EVER,
    NSEC,
    announcement,
    known,
    names,
    packet,
    pointer,
    question,
    record,
    types,
)

pytest.importorskip("zeroconf")
from modelward.serve import sieve

NETWORKS = (IPv4Interface("10.0.0.1/24"), IPv4Interface("198.51.100.9/28"))
NEAR = ("10.0.0.5", 5353)
HONEST = announcement("x", "10.0.0.5")
SOME_TYPES = b"\0" + b"\0\6\x40\0\0\0\0\1"  # a name, then A and NSEC, as every device says


def passes(packet: bytes, source: tuple[str, int] = NEAR) -> bool:
    return sieve.Sieve(NETWORKS, lambda: None).passes(packet, source)


@pytest.mark.parametrize("address", ["10.0.0.5", "10.0.0.1", "198.51.100.2"])
def test_what_honest_devices_say_passes(address):
    for said in (
        HONEST,
        question(),
        question(pointer("x._modelward._tcp.local.")),
        packet(record("x.local.", NSEC, SOME_TYPES)),
        packet(record("x.local.", 41, b"of a type that is not known here")),
        names(1),
    ):
        assert passes(said, (address, 5353))
    assert passes(question(), (address, 40_000))


@pytest.mark.parametrize("address", ["10.0.1.5", "203.0.113.5", "127.0.0.1"])
def test_who_is_on_another_network_is_not_heard(address):
    """Packets come to port 5353 from wherever they are routed from."""
    assert not passes(HONEST, (address, 5353))
    assert not passes(question(), (address, 5353))


@pytest.mark.parametrize(
    "said",
    [
        b"",
        b"?",
        HONEST[:11],
        HONEST[:-1],
        HONEST[:10] + b"\0\1" + HONEST[12:],  # says that there is one record more
        packet(b"\1"),
        types(1),
        known(1),
        packet(record("x.local.", NSEC, b"\0" + ALL_TYPES[34:68])),
        packet(record("x.local.", NSEC, b"\0\0\0")),
        packet(record("x.local.", NSEC, b"\0\0\x21" + b"\xff" * 33)),
        packet(record("x.local.", NSEC, SOME_TYPES + ALL_TYPES[:34])),
        packet(record("x.local.", 16, bytes(1500), FOR_EVER)),
        question(flags=0x0200),
    ],
    ids=[
        "nothing", "x", "half a header", "cut short", "one too many", "half a name", "all types",
        "all types known", "another block", "no types", "too long a block", "two blocks", "long",
        "to be continued",
    ],
)  # fmt: skip
def test_what_takes_memory_or_makes_no_sense_is_dropped(said):
    assert not passes(said)


def test_an_answer_from_another_port_is_dropped():
    assert not passes(HONEST, ("10.0.0.5", 40_000))


@given(st.binary(max_size=100), st.sampled_from([b"", HONEST[:12], question()[:12]]))
def test_nothing_is_raised_in_zeroconfs_thread(data, head):
    passes(head + data)


def test_what_passed_is_forgotten_before_it_is_too_much():
    passed, forgot = 0, []
    strainer = sieve.Sieve(NETWORKS, lambda: forgot.append(passed))
    while passed < 5 * sieve.MOST:
        assert strainer.passes(HONEST, NEAR)
        passed += 4  # records
    assert forgot == [1000, 2000, 3000, 4000]


@pytest.mark.parametrize(
    "other",
    [
        SimpleNamespace(),
        SimpleNamespace(engine=SimpleNamespace(readers=[SimpleNamespace()])),
        SimpleNamespace(
            engine=SimpleNamespace(readers=[]),
            cache=SimpleNamespace(async_expire=None),
            question_history=SimpleNamespace(clear=None),
        ),
    ],
    ids=["nothing", "no transport", "no readers"],
)
def test_a_zeroconf_that_is_not_known_is_not_let_listen(other):
    with pytest.raises(RuntimeError, match=r"zeroconf .* cannot be kept from what strangers send"):
        sieve.put_before(other, NETWORKS)
