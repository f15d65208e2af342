"""When to look next. Pure: settings, what happened so far and a random number in, seconds out."""

from dataclasses import dataclass, replace
from datetime import datetime
from typing import Self

from modelward.config.run import RunSettings
from modelward.formats import window

_DOUBLINGS = 32  # more make no difference: the cap has long been reached


@dataclass(frozen=True)
class Schedule:
    """The state of a daemon's patience.

    Attributes:
        settings: The settings.
        failures: How many checks in a row have failed.
    """

    settings: RunSettings
    failures: int = 0

    def first(self, chance: float) -> float:
        """Return the seconds until the first check: a fleet that boots as one must not ask as one.

        Args:
            chance: A random number from 0 to 1.
        """
        return self.settings.jitter * chance

    def succeeded(self) -> Self:
        """Return the schedule after a check that ended well."""
        return replace(self, failures=0)

    def failed(self) -> Self:
        """Return the schedule after a check that failed."""
        return replace(self, failures=self.failures + 1)

    def delay(self, chance: float, retry_after: float | None = None) -> float:
        """Return the seconds until the next check.

        Args:
            chance: A random number from 0 to 1.
            retry_after: Seconds that a server asked to wait. It is heard, but never longer than
                `backoff`: a hostile one must not silence a device (attack row 4).
        """
        interval, most = self.settings.interval, max(self.settings.backoff, self.settings.interval)
        wait = interval
        if self.failures:
            wait = min(most, interval * 2.0 ** min(self.failures - 1, _DOUBLINGS))
        if retry_after is not None:
            wait = max(wait, min(retry_after, most))
        return wait + self.settings.jitter * chance

    def may_change(self, now: datetime) -> bool:
        """Tell whether something may change at a local time."""
        return not self.settings.windows or window.inside(self.settings.windows, now)

    def opening(self, now: datetime, chance: float) -> float | None:
        """Return the seconds until something may change again; None if it may always.

        Args:
            now: Local time.
            chance: A random number from 0 to 1.
        """
        if not self.settings.windows:
            return None
        return window.opens_in(self.settings.windows, now) + self.settings.jitter * chance
