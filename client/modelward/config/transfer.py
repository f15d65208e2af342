"""[transfer] in modelward.toml: where bytes come from, and what bringing them may cost."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from modelward.config.address import check_repository
from modelward.config.table import Table
from modelward.formats.window import check_window

MAX_CONNECTIONS = 8


@dataclass(frozen=True)
class TransferSettings:
    """How to fetch.

    Attributes:
        mirrors: Addresses of repositories that hold the same files, without a final slash.
        connections: How many to open to each source of large files.
        rate: Most bytes a second, over all connections but those to neighbours; 0 for no limit.
        windows: Local times of day in which large files may be fetched; empty for always.
        proxy: Address of an HTTP proxy, ``http://[user:password@]host:port``; empty for none.
        ca: A file of certificates to believe instead of the system's.
        certificate: This device's own certificate, for servers that ask for one.
        key: The private key of `certificate`, if it is not in the same file.
        redirects: Hosts, or host:port, that a server may redirect to.
        timeout: Seconds to connect, and to wait for any single read.
        minimum_rate: Bytes a second below which a source is given up.
        deadline: Most seconds that the large files of one update, or repair, may take.
        memory: Most bytes of memory that making a file from a patch may take.
    """

    mirrors: tuple[str, ...] = ()
    connections: int = 1
    rate: int = 0
    windows: tuple[str, ...] = ()
    proxy: str = field(default="", repr=False)
    ca: Path | None = None
    certificate: Path | None = field(default=None, repr=False)
    key: Path | None = field(default=None, repr=False)
    redirects: tuple[str, ...] = ()
    timeout: float = 10.0
    minimum_rate: int = 1024
    deadline: float = 6 * 3600.0
    memory: int = 64 << 20

    NAME = "transfer"
    KNOWN = frozenset(
        (
            *("mirrors", "connections", "rate", "windows", "proxy", "ca", "certificate", "key"),
            *("redirects", "timeout", "minimum_rate", "deadline", "memory"),
        )
    )

    @classmethod
    def parse(cls, raw: object) -> "TransferSettings":
        """Read the table.

        Raises:
            UsageError: A setting makes no sense.
        """
        table = Table(cls.NAME, raw, cls.KNOWN)
        found = cls(
            mirrors=tuple(map(check_repository, table.texts("mirrors"))),
            connections=table.integer("connections", cls.connections, 1, MAX_CONNECTIONS),
            rate=table.size("rate", cls.rate),
            windows=table.texts("windows"),
            proxy=table.text("proxy", ""),
            ca=table.path("ca"),
            certificate=table.path("certificate"),
            key=table.path("key"),
            redirects=tuple(map(str.lower, table.texts("redirects"))),
            timeout=table.seconds("timeout", cls.timeout),
            minimum_rate=table.size("minimum_rate", cls.minimum_rate),
            deadline=table.seconds("deadline", cls.deadline),
            memory=table.size("memory", cls.memory),
        )
        _check_windows(table, found.windows)
        if found.proxy and not _is_proxy(found.proxy):
            raise table.wrong("proxy", "must be like http://proxy.example.com:3128")
        if found.key and not found.certificate:
            raise table.wrong("key", "needs a `certificate` to belong to")
        if any(set(host) & set("/@?# ") for host in found.redirects):
            raise table.wrong("redirects", "must be hosts, such as cdn.example.com")
        if not 0 < found.timeout <= 600:  # noqa: PLR2004 - ten minutes
            raise table.wrong("timeout", "must be more than 0 and at most 10m")
        if found.deadline < found.timeout:
            raise table.wrong("deadline", "must be more than `timeout`")
        if 0 < found.rate < found.minimum_rate:
            raise table.wrong("rate", f"is below `minimum_rate` ({found.minimum_rate})")
        return found


def _check_windows(table: Table, windows: Iterable[str]) -> None:
    for window in windows:
        try:
            check_window(window)
        except ValueError as error:
            raise table.wrong("windows", f"has one that makes no sense: {error}") from error


def _is_proxy(text: str) -> bool:
    try:
        parts = urlsplit(text)
        host, port = parts.hostname, parts.port
    except ValueError:
        return False
    bare = parts.path in ("", "/") and not parts.query and not parts.fragment
    return parts.scheme == "http" and bool(host) and port != 0 and bare and text.isascii()
