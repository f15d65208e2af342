"""[transfer] in modelward.toml: where bytes come from, and what bringing them may cost."""

from dataclasses import dataclass

from modelward.config.address import check_repository
from modelward.config.table import Table


@dataclass(frozen=True)
class TransferSettings:
    """How to fetch.

    Attributes:
        mirrors: Addresses of repositories that hold the same files, without a final slash.
    """

    mirrors: tuple[str, ...] = ()

    NAME = "transfer"
    KNOWN = frozenset(("mirrors",))

    @classmethod
    def parse(cls, raw: object) -> "TransferSettings":
        """Read the table.

        Raises:
            UsageError: A setting makes no sense.
        """
        table = Table(cls.NAME, raw, cls.KNOWN)
        return cls(mirrors=tuple(map(check_repository, table.texts("mirrors"))))
