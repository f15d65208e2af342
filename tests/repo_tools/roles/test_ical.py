"""The calendar, read by a parser of its own that forgives nothing (RFC 5545)."""

import re
from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from modelward_repo.roles.expiry import Standing
from modelward_repo.roles.holders import Holder
from modelward_repo.roles.ical import calendar

NOW = datetime(2026, 11, 22, 10, tzinfo=UTC)
DAY = timedelta(days=1)
LINE = re.compile(r"([A-Z][A-Z-]*):((?:[^\x00-\x08\x0a-\x1f\x7f])*)")
DURATION = re.compile(r"-P(?:(\d+)D)?(?:T(?=\d)(?:(\d+)H)?(?:(\d+)M)?)?")
ONCE = {
    "VCALENDAR": {"VERSION", "PRODID", "CALSCALE"},
    "VEVENT": {"UID", "DTSTAMP", "DTSTART", "SUMMARY", "DESCRIPTION", "SEQUENCE", "TRANSP"},
    "VALARM": {"ACTION", "TRIGGER", "DESCRIPTION"},
}
TEXTS = {"SUMMARY", "DESCRIPTION", "X-WR-CALNAME"}

Component = tuple[str, dict[str, str], list["Component"]]


def parse(text: str) -> Component:
    """Parse a calendar, or fail."""
    raw = text.encode()
    assert raw.endswith(b"\r\n")
    physical = raw[:-2].split(b"\r\n")
    assert all(len(line) <= 75 and b"\n" not in line and b"\r" not in line for line in physical)
    for line in physical:
        line.decode()  # no character is split
    lines: list[str] = []
    for line in physical:
        if line.startswith(b" "):
            lines[-1] += line[1:].decode()
        else:
            lines.append(line.decode())
    component, rest = take(lines)
    assert not rest
    return component


def take(lines: list[str]) -> tuple[Component, list[str]]:
    match = LINE.fullmatch(lines[0])
    assert match
    assert match[1] == "BEGIN"
    kind, values, inner = match[2], {}, []
    lines = lines[1:]
    while lines[0] != f"END:{kind}":
        match = LINE.fullmatch(lines[0])
        assert match, lines[0]
        name, value = match.groups()
        if name == "BEGIN":
            component, lines = take(lines)
            inner.append(component)
            continue
        assert name not in values, name
        values[name] = unescape(value) if name in TEXTS else value
        lines = lines[1:]
    assert values.keys() >= ONCE[kind]
    return (kind, values, inner), lines[1:]


def unescape(value: str) -> str:
    assert re.fullmatch(r"(?:[^\\;,]|\\[\\;,nN])*", value), value
    return re.sub(r"\\(.)", lambda m: "\n" if m[1] in "nN" else m[1], value)


def standing(name: str, **more: object) -> Standing:
    values = {
        "version": 1,
        "threshold": 1,
        "keys": (Holder("a" * 64, "Zoë; the \\ 2nd, of her name", signed=True),),
        "expires": NOW + 100 * DAY,
        "period": 120 * DAY,
        "offline": True,
        "revision": 1,
    }
    return Standing(name, **{**values, **more})  # type: ignore[arg-type]


def test_events_and_their_alarms() -> None:
    found = [standing("root"), standing("timestamp"), standing("x", expires=None, fault="broken")]
    kind, values, events = parse(calendar(found, "my, repo", "id", NOW))
    assert kind == "VCALENDAR"
    assert values["VERSION"] == "2.0"
    assert values["X-WR-CALNAME"] == "my, repo"
    ((kind, event, alarms),) = events  # machines renew the timestamp; x has no date
    assert kind == "VEVENT"
    assert event["DTSTAMP"] == "20261122T100000Z"
    assert event["DTSTART"] == "20270302T100000Z"
    assert event["SUMMARY"] == "my, repo: root expires"
    assert "Zoë; the \\ 2nd, of her name aaaaaaaa\nWhat to do: renew it" in event["DESCRIPTION"]
    triggers = []
    for kind, alarm, inner in alarms:
        assert (kind, alarm["ACTION"], inner) == ("VALARM", "DISPLAY", [])
        match = DURATION.fullmatch(alarm["TRIGGER"])
        assert match
        days, hours, minutes = (int(part or 0) for part in match.groups())
        triggers.append(timedelta(days=days, hours=hours, minutes=minutes))
    assert triggers == [30 * DAY, 7.5 * DAY]


def test_importing_it_again_moves_the_events() -> None:
    def event(item: Standing, repository: str = "id") -> dict[str, str]:
        return parse(calendar([item], "title", repository, NOW))[2][0][1]

    before, after = event(standing("root")), event(standing("root", revision=2))
    assert before["UID"] == after["UID"]
    assert int(before["SEQUENCE"]) < int(after["SEQUENCE"])
    assert event(standing("targets"))["UID"] != before["UID"]
    assert event(standing("root"), "another")["UID"] != before["UID"]


@given(st.text(max_size=200), st.text(max_size=200), st.integers(1, 10**8))
def test_whatever_names_there_are(title: str, holder: str, seconds: int) -> None:
    text = title.encode(errors="replace").decode()
    item = standing(
        "root",
        keys=(Holder("a" * 64, holder.encode(errors="replace").decode(), signed=False),),
        period=timedelta(seconds=seconds),
    )
    _, values, ((_, event, alarms),) = parse(calendar([item], text, "id", NOW))
    shown = "".join(char for char in text.replace("\n", "") if char.isprintable())
    assert values["X-WR-CALNAME"].replace("\n", "") == shown
    assert event["SUMMARY"].endswith(": root expires")
    assert len(alarms) == 2
