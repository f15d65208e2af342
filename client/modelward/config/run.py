"""[run] in modelward.toml: when the daemon looks for updates, and when it may make changes."""

from dataclasses import dataclass

from modelward.config.table import Table
from modelward.formats.window import check_window


@dataclass(frozen=True)
class RunSettings:
    """How `modelward run` goes about it.

    Attributes:
        interval: Seconds between two checks.
        jitter: Most seconds by which each check is late, at random: a fleet must not ask at once.
        backoff: Most seconds between two checks after failures, which double the interval.
        windows: Local times of day in which something may change; empty for always.
        stuck: Seconds without any sign of progress after which a check is ended.
        verify: Seconds after which everything that is kept is read again; None for never.
        serve: Whether to hand neighbours what this device has, as `modelward serve` does.
    """

    interval: float = 600.0
    jitter: float = 120.0
    backoff: float = 21_600.0
    windows: tuple[str, ...] = ()
    stuck: float = 3600.0
    verify: float | None = 86_400.0
    serve: bool = False

    NAME = "run"
    KNOWN = frozenset(("interval", "jitter", "backoff", "windows", "stuck", "verify", "serve"))

    @classmethod
    def parse(cls, raw: object) -> "RunSettings":
        """Read the table.

        Raises:
            UsageError: A setting makes no sense.
        """
        table = Table(cls.NAME, raw, cls.KNOWN)
        found = cls(
            interval=table.seconds("interval", cls.interval),
            jitter=table.seconds("jitter", cls.jitter),
            backoff=table.seconds("backoff", cls.backoff),
            windows=table.texts("windows"),
            stuck=table.seconds("stuck", cls.stuck),
            verify=table.seconds_or_never("verify", 86_400.0),
            serve=table.flag("serve", default=cls.serve),
        )
        for key in ("interval", "stuck", "verify"):
            value = getattr(found, key)
            if value is not None and value < 1:
                raise table.wrong(key, "must be a second or more")
        for window in found.windows:
            try:
                check_window(window)
            except ValueError as error:
                raise table.wrong("windows", f"has one that makes no sense: {error}") from error
        return found
