"""Who gets which version, and when: the same answer for anyone who asks."""

import hashlib
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelward.errors import Gate, Refused
from modelward.formats.channel import MILLION, Channel, Entry, Rollout, Stage
from modelward.trust.rollout import bucket, decide
from tests.formats import strategies

START = datetime(2026, 11, 22, 10, tzinfo=UTC)
HOUR = timedelta(hours=1)


def rollout(*stages: Stage, **changes) -> Rollout:
    fields = {"salt": b"salt", "not_before": START, "urgent": False, "halted": False}
    return Rollout(**{**fields, "stages": stages, **changes})


def ask(entry: Entry, *, running=None, device="device", labels=None, now=START):
    return decide(
        Channel("stable", {"m": entry}),
        "m",
        running=running,
        device_id=device,
        labels=labels or {},
        now=now,
    )


def test_bucket_is_the_documented_one():
    digest = hashlib.sha256(b"salt\x00device").digest()
    assert bucket(b"salt", "device") == int.from_bytes(digest[:8], "big") % MILLION


def test_buckets_are_even():
    places = [bucket(b"salt", f"device-{number}") for number in range(20_000)]
    tenths = [sum(place * 10 // MILLION == tenth for place in places) for tenth in range(10)]
    assert all(1800 < count < 2200 for count in tenths), tenths


def test_a_fresh_salt_changes_the_canaries():
    def canaries(salt):
        return {n for n in range(5000) if bucket(salt, f"device-{n}") < MILLION // 10}

    both = canaries(b"one") & canaries(b"two")
    assert len(both) < 100  # 1 % of 5000 are expected


def test_without_a_rollout_everyone_gets_the_version():
    assert ask(Entry("2")).version == "2"


def test_unknown_model():
    with pytest.raises(Refused, match="does not offer") as refusal:
        decide(Channel("stable", {}), "m", running=None, device_id="d", labels={}, now=START)
    assert refusal.value.gate is Gate.CHANNEL


@pytest.mark.parametrize(
    ("stages", "changes", "now", "reached"),
    [
        ((Stage(MILLION),), {}, START, True),
        ((Stage(MILLION),), {}, START - HOUR, False),
        ((Stage(MILLION),), {"halted": True}, START, False),
        ((Stage(MILLION),), {"halted": True, "urgent": True}, START, False),
        ((Stage(0),), {}, START, False),
        ((), {}, START, False),
        ((Stage(MILLION, after=HOUR),), {}, START, False),
        ((Stage(MILLION, after=HOUR),), {}, START + HOUR, True),
        ((Stage(0), Stage(MILLION, after=HOUR)), {}, START + HOUR, True),
        ((Stage(MILLION, promotion="a" * 64),), {}, START + 1000 * HOUR, False),
        ((Stage(MILLION, {"site": ("a", "b")}),), {}, START, True),
        ((Stage(MILLION, {"site": ("b",)}),), {}, START, False),
        ((Stage(MILLION, {"site": ()}),), {}, START, False),
        ((Stage(MILLION, {"other": ("a",)}),), {}, START, False),
        ((Stage(MILLION, {"site": ("a",), "other": ("a",)}),), {}, START, False),
    ],
)
def test_stage(stages, changes, now, reached):
    entry = Entry("2", previous="1", rollout=rollout(*stages, **changes))
    decision = ask(entry, labels={"site": "a"}, now=now)
    assert decision.version == ("2" if reached else "1")
    assert ask(entry, running="1", labels={"site": "a"}, now=now).version == (
        "2" if reached else None
    )


@pytest.mark.parametrize(
    ("windows", "clock", "switches"),
    [
        (("02:00-05:00",), "02:00", True),
        (("02:00-05:00",), "04:59", True),
        (("02:00-05:00",), "05:00", False),
        (("02:00-05:00",), "01:59", False),
        (("23:00-01:00",), "23:30", True),
        (("23:00-01:00",), "00:59", True),
        (("23:00-01:00",), "01:00", False),
        (("02:00-03:00", "12:00-13:00"), "12:30", True),
        (("02:00-03:00", "12:00-13:00"), "11:30", False),
        (("02:00-02:00",), "02:00", False),
    ],
)
def test_maintenance_windows(windows, clock, switches):
    hour, minute = map(int, clock.split(":"))
    now = (START + 24 * HOUR).replace(hour=hour, minute=minute)
    entry = Entry("2", previous="1", rollout=rollout(Stage(MILLION), windows=windows))
    decision = ask(entry, running="1", now=now)
    assert decision.version == ("2" if switches else None)
    assert decision.windows == (windows if switches else ())
    assert switches or "waits for a maintenance window" in decision.reason
    assert ask(entry, now=now) == ask(entry, running="2", now=now)
    assert ask(entry, now=now).version == "2"  # with nothing to interrupt there is no waiting
    assert not ask(entry, now=now).windows
    urgent = rollout(Stage(MILLION), windows=windows, urgent=True)
    decision = ask(Entry("2", rollout=urgent), running="1", now=now)
    assert (decision.version, decision.windows) == ("2", ())


def test_ppm_is_a_strict_bound():
    place = bucket(b"salt", "device")
    assert ask(Entry("2", rollout=rollout(Stage(place)))).version is None
    assert ask(Entry("2", rollout=rollout(Stage(place + 1)))).version == "2"


@pytest.mark.parametrize(
    ("previous", "revoked", "running", "expected"),
    [
        (None, (), None, None),
        ("1", (), None, "1"),
        ("1", (), "1", None),
        ("1", (), "2", None),  # reached before a halt: stays
        ("1", ("0",), "0", "1"),
        ("1", ("1",), "1", None),  # never to nothing
        ("1", ("0", "1"), "0", None),
        (None, ("1",), "1", None),
    ],
)
def test_before_its_stage(previous, revoked, running, expected):
    entry = Entry("2", previous, revoked, rollout(halted=True))
    assert ask(entry, running=running).version == expected


def test_revoked_moves_to_the_version_when_it_may():
    assert ask(Entry("2", "1", ("1",), rollout(Stage(MILLION))), running="1").version == "2"


@given(
    strategies.entries,
    st.none() | strategies.versions,
    st.text(),
    st.dictionaries(strategies.texts, strategies.texts),
    strategies.times,
)
def test_a_decision_is_deterministic_and_never_revoked(entry, running, device, labels, now):
    asked = {"running": running, "device": device, "labels": labels, "now": now}
    decision = ask(entry, **asked)
    assert decision == ask(entry, **asked)
    assert decision.version in {entry.version, entry.previous, None}
    assert decision.version not in entry.revoked
    assert decision.reason


@given(st.integers(0, MILLION), st.integers(0, MILLION), st.text(max_size=5))
def test_who_is_in_a_stage_stays_in_when_it_grows(small, large, device):
    small, large = sorted((small, large))
    if ask(Entry("2", rollout=rollout(Stage(small))), device=device).version:
        assert ask(Entry("2", rollout=rollout(Stage(large))), device=device).version
