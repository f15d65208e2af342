"""Watching over a repository for as long as the machine runs: nothing expires unnoticed.

Signing anew at half of a role's time leaves the other half to mend whatever is in the way: a key
that is not there, a publisher that hangs, a full disk. None of that ends the watch. It says what
is wrong, tries again, and says until when somebody must have mended it.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum

from modelward.errors import ModelwardError
from modelward.formats import strict
from modelward_repo.publish.refresh import due
from modelward_repo.publish.staging import Staging
from modelward_repo.publish.status import standings
from modelward_repo.roles.expiry import AUTOMATIC, Urgency, attention, by_urgency, span
from modelward_repo.roles.holders import Names
from modelward_repo.storage import Storage

LOOK = 3600.0  # most seconds between two looks: others publish, and clocks are set
FIRST_PAUSE = 15.0  # seconds before the second try; doubles each time
LONGEST_PAUSE = 600.0
REMIND = timedelta(days=1)  # how often the same warning is repeated


class Kind(StrEnum):
    """What a line of the watch's log is."""

    NOTE = "note"
    SIGNED = "signed"
    PROBLEM = "problem"
    ATTENTION = "attention"


@dataclass(frozen=True)
class Line:
    """One line of the watch's log.

    Attributes:
        time: When.
        kind: What it is.
        text: For people.
    """

    time: datetime
    kind: Kind
    text: str

    def __str__(self) -> str:
        loud = f"{self.kind.upper()}: " if self.kind in (Kind.PROBLEM, Kind.ATTENTION) else ""
        return f"{strict.rfc3339(self.time)} {loud}{self.text}"

    def to_dict(self) -> dict[str, str]:
        """Return it as a JSON object."""
        return {"time": strict.rfc3339(self.time), "kind": self.kind, "text": self.text}


Sign = Callable[[datetime, Sequence[str]], Sequence[str]]
"""Signs snapshot, timestamp and the roles given anew at a time; returns what was signed."""


@dataclass
class Watch:
    """Signs a repository's roles anew, each at half of its time, until told to stop.

    Attributes:
        storage: The repository.
        sign: Opens the keys and signs.
        roles: Roles to renew beside snapshot and timestamp.
        clock: Tells the time.
        sleep: Waits so many seconds; returns at once, and true, when the watch is to end.
        tell: Told each line of the log.
        names: Holders of keys whose names were not signed with them.
    """

    storage: Storage
    sign: Sign
    roles: Sequence[str]
    clock: Callable[[], datetime]
    sleep: Callable[[float], bool]
    tell: Callable[[Line], None]
    names: Names = field(default_factory=dict)
    _failures: int = 0
    _deadline: datetime | None = None
    _reminded: dict[str, datetime] = field(default_factory=dict)

    def run(self) -> None:
        """Watch until told to stop."""
        self._say(Kind.NOTE, f"watching: {', '.join(self._watched())} are signed anew in time")
        while not self.sleep(self._round()):
            pass
        self._say(Kind.NOTE, "told to stop: the watch has ended")

    def _round(self) -> float:
        """Look once, do what is to be done, and return for how many seconds to wait."""
        now = self.clock()
        try:
            staging = Staging.of(self.storage, now)
            times = due(staging, self.roles)
            self._deadline = self._first_expiry(now)
            if min(times.values()) <= now or staging.waiting:
                self._sign_anew(now, times)
                staging = Staging.of(self.storage, now)
                times = due(staging, self.roles)
                self._deadline = self._first_expiry(now)
            self._warn(staging, now)
        except Exception as error:  # noqa: BLE001 - whatever it is, the next try may find it mended
            return self._failed(error, now)
        if self._failures:
            self._say(Kind.NOTE, f"all is well again after {self._failures} failed tries")
        self._failures = 0
        left = (min(times.values()) - self.clock()).total_seconds()
        return min(max(left, 1.0), LOOK)

    def _sign_anew(self, now: datetime, times: Mapping[str, datetime]) -> None:
        wanted = [role for role in self.roles if times[role] <= now]
        signed = self.sign(now, wanted)
        after = due(Staging.of(self.storage, now), self.roles)
        role = min(after, key=lambda name: after[name])
        self._say(
            Kind.SIGNED,
            f"signed anew: {', '.join(signed)}; next is {role} at {strict.rfc3339(after[role])}",
        )
        if Staging.of(self.storage, now).waiting:
            self._say(
                Kind.ATTENTION,
                "a change is logged and waits for witnesses: `modelward-repo log publish` says "
                "whose cosignatures are missing; what was published before stays in force",
            )

    def _failed(self, error: Exception, now: datetime) -> float:
        """Say what is wrong, and return for how many seconds to wait before the next try."""
        self._failures += 1
        pause = min(FIRST_PAUSE * 2.0 ** min(self._failures - 1, 16), LONGEST_PAUSE)
        until = ""
        if self._deadline:
            left = self._deadline - now
            pause = min(pause, max(left.total_seconds() / 8, 1.0)) if left > timedelta() else pause
            until = (
                f"; devices refuse the repository from {strict.rfc3339(self._deadline)} on, "
                f"{f'in {span(left)}' if left > timedelta() else 'that is NOW'}"
            )
        why = str(error) or type(error).__name__
        advice = ""
        if isinstance(error, ModelwardError):
            why, advice = error.reason, f" ({error.advice})" if error.advice else ""
        self._say(
            Kind.PROBLEM,
            f"try {self._failures} failed: {why}{advice}; next try in "
            f"{span(timedelta(seconds=pause))}{until}",
        )
        return pause

    def _warn(self, staging: Staging, now: datetime) -> None:
        """Say which of the roles that this watch cannot renew is near its end, once a day."""
        found = by_urgency(standings(staging, self.names), now)
        near = {item.name: item for item in found if item.urgency(now) is not Urgency.FINE}
        self._reminded = {name: time for name, time in self._reminded.items() if name in near}
        for name, item in near.items():
            if name in self._watched() and not item.problem(now):
                continue
            last = self._reminded.get(name)
            if last is None or not now - REMIND < last <= now:
                self._reminded[name] = now
                self._say(Kind.ATTENTION, attention(item, now))

    def _first_expiry(self, now: datetime) -> datetime:
        published = Staging.published(self.storage, now)
        signed = [
            published.snapshot.signed,
            *([published.timestamp.signed] if published.timestamp else []),
        ]
        return min(item.expires for item in signed)

    def _watched(self) -> tuple[str, ...]:
        return (*self.roles, *sorted(AUTOMATIC))

    def _say(self, kind: Kind, text: str) -> None:
        self.tell(Line(self.clock(), kind, " ".join(text.split())))
