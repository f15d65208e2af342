from datetime import UTC, datetime, timedelta

import pytest

from modelward_repo.roles.expiry import (
    Standing,
    Urgency,
    attention,
    by_urgency,
    span,
    table,
    worst,
)
from modelward_repo.roles.holders import Holder

NOW = datetime(2026, 11, 22, 10, tzinfo=UTC)
DAY = timedelta(days=1)
ALICE = Holder("a" * 64, "alice", signed=True)
BOB = Holder("b" * 64, None, signed=False)


def standing(name: str = "root", left: timedelta = 200 * DAY, **more: object) -> Standing:
    values = {
        "version": 3,
        "threshold": 1,
        "keys": (ALICE, BOB),
        "expires": NOW + left,
        "period": 365 * DAY,
        "offline": name in ("root", "targets"),
    }
    return Standing(name, **{**values, **more})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("name", "period", "horizon"),
    [
        ("timestamp", DAY, DAY / 4),
        ("channels", 30 * DAY, 7.5 * DAY),
        ("root", 365 * DAY, 91.25 * DAY),
        ("root", 100 * DAY, 30 * DAY),  # people need a month
        ("root", 40 * DAY, 20 * DAY),  # but no alarm rings for ever
        ("layout of x", None, 30 * DAY),
    ],
)
def test_horizons(name: str, period: timedelta | None, horizon: timedelta) -> None:
    item = standing(name, period=period)
    assert item.horizon == horizon
    edge = standing(name, horizon, period=period)
    assert edge.urgency(NOW) is Urgency.SOON
    assert edge.urgency(NOW - timedelta(seconds=1)) is Urgency.FINE


@pytest.mark.parametrize(
    ("item", "problem"),
    [
        (standing(left=timedelta()), "expired"),
        (standing(left=-DAY), "expired"),
        (standing(threshold=2), "too few signatures"),
        (standing(expires=None), "cannot be read"),
        (standing(fault="is odd"), "is odd"),
    ],
)
def test_what_devices_refuse(item: Standing, problem: str) -> None:
    assert item.problem(NOW) == problem
    assert item.urgency(NOW) is Urgency.NOW
    assert attention(item, NOW).startswith(f"root: {problem}: ")


def test_the_exit_codes_are_those_of_the_help_text() -> None:
    assert [level.value for level in Urgency] == [0, 1, 3]
    assert worst([], NOW) is Urgency.FINE
    assert worst([standing(), standing(left=-DAY), standing(left=DAY)], NOW) is Urgency.NOW


def test_what_must_be_seen_to_first_stands_first() -> None:
    fine, later = standing("a"), standing("b", 300 * DAY)
    soon, expired = standing("c", 40 * DAY), standing("d", -DAY)
    broken = standing("e", expires=None)
    found = by_urgency([later, fine, soon, expired, broken], NOW)
    assert [item.name for item in found] == ["e", "d", "c", "a", "b"]


def test_the_table() -> None:
    many = tuple(Holder(f"{n:064x}", f"holder-{n}", signed=n % 2 == 0) for n in range(9))
    items = [standing(), standing("timestamp", timedelta(hours=30)), standing("x", keys=many)]
    lines = [line for _, line in table(items, NOW, 80)]
    assert max(map(len, lines)) <= 80
    assert lines[1].split() == [
        "200",
        "days",
        "root",
        "3",
        "1",
        "of",
        "2",
        "*alice",
        "aaaaaaaa,",
        "bbbbbbbb",
    ]
    assert lines[2].startswith("30 hours SOON ")
    assert " ".join(lines[3:]).count("*holder-") == 5
    for holder in many:
        assert any(str(holder) in line for line in lines)


@pytest.mark.parametrize(
    ("left", "text"),
    [
        (timedelta(seconds=1), "1 second"),
        (timedelta(seconds=59), "59 seconds"),
        (timedelta(minutes=1), "1 minute"),
        (timedelta(minutes=119), "119 minutes"),
        (timedelta(hours=47), "47 hours"),
        (2 * DAY, "2 days"),
        (-3 * DAY, "3 days"),
    ],
)
def test_spans(left: timedelta, text: str) -> None:
    assert span(left) == text


def test_every_remedy_is_a_command_that_exists() -> None:
    from tests.repo_tools.site import run  # noqa: PLC0415

    assert run("refresh", "--help").code == 0
    assert "refresh model-x`" in standing("model-x").remedy()
    assert "ceremony propose renew targets" in standing("targets").remedy()
    assert run("ceremony", "propose", "renew", "--help").code == 0
    assert "ceremony propose set-layout x LAYOUT" in standing("layout of x").remedy()
    assert run("ceremony", "propose", "set-layout", "--help").code == 0
