"""Who has signed what is in force, how long it still is, and when somebody must act.

Monitoring runs on this: each role has a horizon, the time before its expiry from which it asks
for attention. A quarter of its period is enough for machines; people who meet four times a year
are given 30 days.
"""

import textwrap
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import Enum
from typing import Any

from modelward.errors import UsageError
from modelward.formats import strict
from modelward_repo.roles.holders import Holder
from modelward_repo.roles.metadata import Delegator, validity

OFFLINE = frozenset({"root", "targets"})
AUTOMATIC = frozenset({"snapshot", "timestamp"})
CEREMONY = timedelta(days=30)  # what people need to come together
LAYOUT = "layout of "

_UNITS = (("day", 86_400, 2 * 86_400), ("hour", 3600, 2 * 3600), ("minute", 60, 60))


class Urgency(Enum):
    """How soon somebody must act; the value is the exit code that monitoring sees."""

    FINE = 0
    SOON = 1
    NOW = 3


@dataclass(frozen=True)
class Standing:
    """One thing that is signed and expires.

    Attributes:
        name: The role, or ``layout of <model>``.
        version: Its metadata's version; None for a layout.
        threshold: How many must sign.
        keys: Which keys may sign, and which have.
        expires: When it expires; None if it cannot be read.
        period: For how long it is signed each time; None where nothing says so.
        offline: Whether people must come together to sign it.
        revision: Rises with each change: the version, or for a layout that of its targets.
        fault: What else is wrong with it, or None.
    """

    name: str
    version: int | None
    threshold: int
    keys: tuple[Holder, ...]
    expires: datetime | None
    period: timedelta | None = None
    offline: bool = False
    revision: int = 0
    fault: str | None = None

    @property
    def signed(self) -> int:
        """How many valid signatures count."""
        return sum(key.signed for key in self.keys)

    @property
    def horizon(self) -> timedelta:
        """How long before its expiry it asks for attention.

        At most half of its period: an alarm that never stops is not heard.
        """
        if self.period is None:
            return CEREMONY
        least = CEREMONY if self.offline else timedelta()
        return min(max(self.period / 4, least), self.period / 2)

    def problem(self, now: datetime) -> str | None:
        """Return why devices refuse it, or None."""
        if self.fault or self.expires is None:
            return self.fault or "cannot be read"
        if self.signed < self.threshold:
            return "too few signatures"
        return "expired" if now >= self.expires else None

    def urgency(self, now: datetime) -> Urgency:
        """Return how soon somebody must act."""
        if self.expires is None or self.problem(now):
            return Urgency.NOW
        return Urgency.SOON if self.expires - now <= self.horizon else Urgency.FINE

    def remedy(self) -> str:
        """Return what to do about it."""
        if self.name in AUTOMATIC:
            return "run `modelward-repo refresh`, and see why it does not run by itself"
        if self.name in OFFLINE:
            return f"renew it in a ceremony: `modelward-repo ceremony propose renew {self.name}`"
        if self.name.startswith(LAYOUT):
            return (
                "compile and sign a new one with `modelward-repo layout`, then `modelward-repo "
                f"ceremony propose set-layout {self.name.removeprefix(LAYOUT)} LAYOUT`"
            )
        return f"run `modelward-repo refresh {self.name}` where its keys are"

    def to_dict(self, now: datetime) -> dict[str, Any]:
        """Return it as a JSON object."""
        expires = self.expires
        return {
            "name": self.name,
            "version": self.version,
            "threshold": self.threshold,
            "signed": self.signed,
            "keys": [
                {"keyid": key.keyid, "holder": key.name, "signed": key.signed} for key in self.keys
            ],
            "offline": self.offline,
            "expires": strict.rfc3339(expires) if expires else None,
            "expires_in": int((expires - now).total_seconds()) if expires else None,
            "attention_from": strict.rfc3339(expires - self.horizon) if expires else None,
            "urgency": self.urgency(now).name.lower(),
            "problem": self.problem(now),
        }


def period(delegator: Delegator, role: str) -> timedelta | None:
    """Return for how long a role is signed each time, or None where its delegator does not say."""
    try:
        return validity(delegator, role)
    except UsageError:
        return None


def by_urgency(found: Iterable[Standing], now: datetime) -> list[Standing]:
    """Return what must be seen to first, first."""

    def order(item: Standing) -> tuple[int, float, str]:
        left = (item.expires - now).total_seconds() if item.expires else float("-inf")
        return -item.urgency(now).value, left, item.name

    return sorted(found, key=order)


def worst(found: Iterable[Standing], now: datetime) -> Urgency:
    """Return the highest urgency of all."""
    return max((item.urgency(now) for item in found), key=lambda it: it.value, default=Urgency.FINE)


def attention(item: Standing, now: datetime) -> str:
    """Return in one sentence what is about to happen, and what to do; for what is not fine."""
    problem = item.problem(now)
    what = problem or f"expires in {span((item.expires or now) - now)}"
    return f"{item.name}: {what}: {item.remedy()}"


def table(found: Sequence[Standing], now: datetime, width: int) -> Iterator[tuple[Urgency, str]]:
    """Yield the lines of one screen, each with how urgent what it shows is."""
    name = max(len("role"), *(len(item.name) for item in found))
    head = f"{'expires in':<18} {'role':<{name}} {'version':>7}  {'needs':<8} "
    yield Urgency.FINE, f"{head}keys (* has signed)"
    for item in found:
        version = "" if item.version is None else str(item.version)
        needs = f"{item.threshold} of {len(item.keys)}"
        row = f"{_when(item, now):<18} {item.name:<{name}} {version:>7}  {needs:<8} "
        # A holder and the key id stay on one line.
        keys = ", ".join(f"{'*' * key.signed}{key}".replace(" ", "\0") for key in item.keys)
        lines = textwrap.wrap(keys, max(width - len(head), 24)) or [""]
        for number, line in enumerate(lines):
            start = row if number == 0 else " " * len(head)
            yield item.urgency(now), f"{start}{line}".replace("\0", " ").rstrip()


def span(left: timedelta) -> str:
    """Return a length of time as people say it, rounded down."""
    seconds = abs(int(left.total_seconds()))
    for unit, size, least in _UNITS:
        if seconds >= least:
            count = seconds // size
            return f"{count} {unit}{'s' * (count != 1)}"
    return f"{seconds} second{'s' * (seconds != 1)}"


def _when(item: Standing, now: datetime) -> str:
    if item.expires is None or item.fault:
        return "BROKEN"
    if now >= item.expires:
        return f"EXPIRED {span(now - item.expires)}"
    if item.problem(now):
        return "TOO FEW SIGNED"
    return span(item.expires - now) + (" SOON" if item.urgency(now) is Urgency.SOON else "")
