"""[neighbours] in modelward.toml: devices nearby that share what they have, and what we share."""

from dataclasses import dataclass

from modelward.config.address import check_repository
from modelward.config.table import Table

PORT = 8648
MAX_URLS = 64


@dataclass(frozen=True)
class NeighbourSettings:
    """Who is near.

    Attributes:
        urls: Addresses of neighbours, without a final slash.
        discover: Whether `modelward serve` announces itself and finds others by mDNS.
        host: Address that `modelward serve` listens on.
        port: Its port; 0 for any that is free.
    """

    urls: tuple[str, ...] = ()
    discover: bool = False
    host: str = "0.0.0.0"  # noqa: S104 - the local network is whom it is for
    port: int = PORT

    NAME = "neighbours"
    KNOWN = frozenset(("urls", "discover", "host", "port"))

    @classmethod
    def parse(cls, raw: object) -> "NeighbourSettings":
        """Read the table.

        Raises:
            UsageError: A setting makes no sense.
        """
        table = Table(cls.NAME, raw, cls.KNOWN)
        urls = tuple(map(check_repository, table.texts("urls")))
        if len(urls) > MAX_URLS:
            raise table.wrong("urls", f"must name at most {MAX_URLS} neighbours")
        return cls(
            urls=urls,
            discover=table.flag("discover", default=False),
            host=table.text("host", cls.host),
            port=table.integer("port", PORT, most=65_535),
        )
