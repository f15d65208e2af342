"""Times and periods on the command line."""

import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

import click

from modelward.errors import UsageError
from modelward_repo.cli import options

F = TypeVar("F", bound=Callable[..., Any])
_PERIOD = re.compile(r"([1-9]\d{0,4})([dhm])")
_GIVEN = f"{__name__}.given"
_UNITS = {"d": "days", "h": "hours", "m": "minutes"}


def now_option(command: F) -> F:
    """Add ``--now``, as a parameter `now`: for machines whose clock nobody keeps."""

    def read(ctx: click.Context, _param: click.Parameter, value: str | None) -> datetime:
        ctx.meta[_GIVEN] = value is not None
        return _time(value) if value else options.now()

    return click.option(
        "--now",
        metavar="TIME",
        callback=read,
        help="What time it is, such as 2026-11-22T10:00:00Z, where this machine's clock is wrong.",
    )(command)


def is_given() -> bool:
    """Tell whether somebody said what time it is: then no clock needs to be doubted."""
    return bool(click.get_current_context().meta.get(_GIVEN))


def period(text: str) -> timedelta:
    """Return a period such as 365d, 12h or 30m.

    Raises:
        UsageError: It is none.
    """
    match = _PERIOD.fullmatch(text)
    if not match:
        raise UsageError(f"{text!r} is not a period such as 365d, 12h or 30m")
    return timedelta(**{_UNITS[match[2]]: int(match[1])})


def _time(text: str) -> datetime:
    try:
        found = datetime.fromisoformat(text)
    except ValueError as error:
        raise UsageError(f"{text!r} is not a time such as 2026-11-22T10:00:00Z") from error
    if found.tzinfo is None:
        raise UsageError(
            f"{text!r} has no time zone", f"say {text}Z if it is in UTC, or {text}+01:00"
        )
    return found.astimezone(UTC).replace(microsecond=0)
