"""Expiries as a calendar that people subscribe to or import (RFC 5545).

An event keeps its UID for as long as the role exists, and its SEQUENCE rises with every change:
importing the calendar again moves the events, and does not double them.
"""

import hashlib
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta

from modelward_repo.roles.expiry import AUTOMATIC, Standing

MAX_OCTETS = 75  # of a content line, without its line end (RFC 5545, 3.1)
PRODUCT = "-//modelward//modelward-repo//EN"


def calendar(found: Iterable[Standing], title: str, repository: str, now: datetime) -> str:
    """Return an iCalendar file.

    Args:
        found: What expires. Snapshot and timestamp are left out: machines renew them so often
            that an event would be wrong as soon as it is imported.
        title: The calendar's name.
        repository: The repository's id, so that the events of two do not replace each other.
        now: When the calendar is made.
    """
    lines = ["BEGIN:VCALENDAR", "VERSION:2.0", f"PRODID:{PRODUCT}", "CALSCALE:GREGORIAN"]
    lines.append(f"X-WR-CALNAME:{_text(title)}")
    for item in found:
        if item.name not in AUTOMATIC and item.expires:
            lines += _event(item, item.expires, title, repository, now)
    lines.append("END:VCALENDAR")
    return "".join(f"{_fold(line)}\r\n" for line in lines)


def _event(
    item: Standing, expires: datetime, title: str, repository: str, now: datetime
) -> Iterator[str]:
    uid = hashlib.sha256(f"{repository}/{item.name}".encode()).hexdigest()[:32]
    signers = ", ".join(map(str, item.keys))
    description = (
        f"{item.threshold} of {len(item.keys)} must sign: {signers}\n"
        f"What to do: {item.remedy()}\nDevices refuse it from the time of this event on."
    )
    yield "BEGIN:VEVENT"
    yield f"UID:{uid}@modelward"
    yield f"DTSTAMP:{_time(now)}"
    yield f"SEQUENCE:{item.revision}"
    yield f"DTSTART:{_time(expires)}"
    yield f"SUMMARY:{_text(f'{title}: {item.name} expires')}"
    yield f"DESCRIPTION:{_text(description)}"
    yield "TRANSP:TRANSPARENT"
    for before in (item.horizon, item.horizon / 4):
        yield "BEGIN:VALARM"
        yield "ACTION:DISPLAY"
        yield f"TRIGGER:-{_duration(before)}"
        yield f"DESCRIPTION:{_text(f'{item.name} expires soon: {item.remedy()}')}"
        yield "END:VALARM"
    yield "END:VEVENT"


def _time(time: datetime) -> str:
    return f"{time.astimezone(UTC):%Y%m%dT%H%M%SZ}"


def _duration(length: timedelta) -> str:
    """Return a duration (RFC 5545, 3.3.6), to the minute and never nothing."""
    minutes = max(int(length.total_seconds()) // 60, 1)
    days, minutes = divmod(minutes, 24 * 60)
    hours, minutes = divmod(minutes, 60)
    clock = f"T{hours}H{minutes}M" if hours or minutes else ""
    return f"P{f'{days}D' if days else ''}{clock}"


def _text(text: str) -> str:
    """Escape a text value (RFC 5545, 3.3.11)."""
    for char in "\\;,":
        text = text.replace(char, f"\\{char}")
    lines = ("".join(char for char in line if char.isprintable()) for line in text.split("\n"))
    return "\\n".join(lines)


def _fold(line: str) -> str:
    """Fold a content line (RFC 5545, 3.1), between characters, never inside of one."""
    folded, octets = [""], 0
    for char in line:
        length = len(char.encode())
        if octets + length > MAX_OCTETS:
            folded.append(" ")
            octets = 1
        folded[-1] += char
        octets += length
    return "\r\n".join(folded)
