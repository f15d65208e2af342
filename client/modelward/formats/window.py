"""Maintenance windows: local times of day such as ``02:00-05:00``; one may reach over midnight."""

import re
from collections.abc import Iterable
from datetime import datetime, timedelta

_WINDOW = re.compile(r"([01]\d|2[0-3]):[0-5]\d-([01]\d|2[0-3]):[0-5]\d", re.ASCII)
_DAY = timedelta(days=1)


def check_window(text: str) -> str:
    """Return a window.

    Raises:
        ValueError: It is not written like ``02:00-05:00``.
    """
    if not _WINDOW.fullmatch(text):
        raise ValueError(f"{text[:80]!r} is not like 02:00-05:00")
    return text


def inside(windows: Iterable[str], now: datetime) -> bool:
    """Tell whether a local time lies in any of the windows; a window's end is outside."""
    clock = now.strftime("%H:%M")
    return any(_holds(clock, *window.split("-")) for window in windows)


def opens_in(windows: Iterable[str], now: datetime) -> float:
    """Return the seconds until the next window opens, by the hands of a local clock.

    Args:
        windows: At least one.
        now: Local time.
    """
    waits = []
    for window in windows:
        hour, minute = map(int, window.partition("-")[0].split(":"))
        opening = now.replace(hour=hour, minute=minute, second=0, microsecond=0)
        waits.append((opening - now) % _DAY)
    return min(waits).total_seconds()


def _holds(clock: str, begin: str, end: str) -> bool:
    if begin <= end:
        return begin <= clock < end
    return clock >= begin or clock < end
