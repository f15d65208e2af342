"""[reports] in modelward.toml: what this device tells of itself, and whom."""

from dataclasses import dataclass

from modelward.config.address import check_repository
from modelward.config.table import Table


@dataclass(frozen=True)
class ReportSettings:
    """Where reports go.

    Attributes:
        send: Whether any are made at all.
        url: Address of the server that takes them, without a final slash; empty for the
            repository's.
        period: Seconds after which a device reports though nothing has happened.
    """

    send: bool = True
    url: str = ""
    period: float = 86_400.0

    NAME = "reports"
    KNOWN = frozenset(("send", "url", "period"))

    @classmethod
    def parse(cls, raw: object) -> "ReportSettings":
        """Read the table.

        Raises:
            UsageError: A setting makes no sense.
        """
        table = Table(cls.NAME, raw, cls.KNOWN)
        url = table.text("url", "")
        return cls(
            send=table.flag("send", default=True),
            url=check_repository(url) if url else "",
            period=table.seconds("period", 86_400.0),
        )
