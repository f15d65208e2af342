"""The way to a server: addresses, TLS, a proxy, and which redirects may be followed."""

import base64
import http.client
import ssl
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from socket import socket
from typing import Any
from urllib.parse import SplitResult, unquote, urljoin, urlsplit

from modelward.config.transfer import TransferSettings
from modelward.errors import Unavailable, UsageError
from modelward.transfer.connect import connect, look_up
from modelward.transfer.pace import Pace

PORTS = {"http": 80, "https": 443}
LISTED = "if its files are there, list that host in `redirects` of [transfer] in modelward.toml"
SHOWN = 200  # characters: the most of a server's own words that an error quotes


class _Plain(http.client.HTTPConnection):
    """HTTP over `connect`: the library would give every address of a name the whole time."""

    def __init__(self, *args: Any, pace: Pace, **options: Any) -> None:
        super().__init__(*args, **options)
        self._pace = pace
        self._create_connection = partial(_connect, pace)

    def connect(self) -> None:
        super().connect()
        self.sock.settimeout(self._pace.wait())  # to send: TLS took of the same time


class _Secure(_Plain, http.client.HTTPSConnection):
    """HTTPS, where a proxy's answer, and TLS after it, get what is left of the time to connect.

    A proxy is asked for an IPv6 address in brackets (RFC 9112, 3.2.3): the library forgets them
    before Python 3.11.8. The certificate must be for the bare address.
    """

    _tunnel_host: str

    def _tunnel(self) -> None:
        host = self._tunnel_host
        self._tunnel_host = f"[{host}]" if ":" in host else host
        try:
            with self._pace.within(self.sock.gettimeout() or 0.0):
                super()._tunnel()  # type: ignore[misc]
                self.sock.settimeout(self._pace.wait())
        finally:
            self._tunnel_host = host


@dataclass(frozen=True)
class Network:
    """How to reach servers. The default is directly, with the system's authorities.

    Attributes:
        proxy: Address of an HTTP proxy, ``http://[user:password@]host:port``; empty for none.
        ca: A file of certificates to believe instead of the system's.
        certificate: This device's own certificate, for servers that ask for one.
        key: The private key of `certificate`, if not in the same file.
        redirects: Hosts, or host:port, that a server may redirect to.
    """

    proxy: str = field(default="", repr=False)
    ca: Path | None = None
    certificate: Path | None = field(default=None, repr=False)
    key: Path | None = field(default=None, repr=False)
    redirects: tuple[str, ...] = ()

    @classmethod
    def of(cls, settings: TransferSettings) -> "Network":
        """Return the way that a device's settings describe."""
        return cls(
            settings.proxy, settings.ca, settings.certificate, settings.key, settings.redirects
        )

    def connect(
        self, address: SplitResult, timeout: float, pace: Pace, *, redirected: bool = False
    ) -> http.client.HTTPConnection:
        """Return a connection, not yet open, to the server of an address.

        Args:
            address: An address, checked by `parse`.
            timeout: Seconds to connect, a proxy and TLS included, and for any single read.
            pace: What does not count the time that looking the name up takes, and limits how long
                a proxy may take.
            redirected: Another server led here: it is not shown this device's certificate.
        """
        server = address.hostname or "", address.port or PORTS[address.scheme]
        place = self._proxy or server
        if address.scheme == "https":
            context = self._anonymous if redirected else self._context
            connection = _Secure(*place, timeout=timeout, context=context, pace=pace)
            if self._proxy:
                connection.set_tunnel(*server, self._proxy_headers)
            return connection
        return _Plain(*place, timeout=timeout, pace=pace)

    def target(self, address: SplitResult) -> str:
        """Return what to ask for: a path, or a whole address where a proxy forwards it."""
        path = address.path or "/"
        path = f"{path}?{address.query}" if address.query else path
        if self.proxy and address.scheme == "http":
            return f"http://{address.netloc}{path}"
        return path

    def headers(self, address: SplitResult) -> dict[str, str]:
        """Return the headers that a proxy needs."""
        return self._proxy_headers if self.proxy and address.scheme == "http" else {}

    def follow(self, url: str, location: str) -> str | None:
        """Return where a redirect leads, or None if it is not to be followed (attack row 11).

        Args:
            url: The address that answered.
            location: The Location header.
        """
        if not location or not self.redirects:
            return None
        try:
            target = urljoin(url, location)
            address = parse(target)
        except (UsageError, ValueError):
            return None
        port = address.port or PORTS[address.scheme]
        names = {address.hostname, f"{address.hostname}:{port}"}
        if address.port is None:
            names.add(address.netloc)
        safe = address.scheme in ("https", urlsplit(url).scheme) and address.username is None
        return target if safe and names & set(self.redirects) else None

    @property
    def way(self) -> str:
        """Return what errors add to an address: through which proxy, without its password."""
        return ", by the proxy {}:{}".format(*self._proxy) if self._proxy else ""

    @cached_property
    def _proxy(self) -> tuple[str, int] | None:
        if not self.proxy:
            return None
        parts = urlsplit(self.proxy)
        return parts.hostname or "", parts.port or PORTS["http"]

    @cached_property
    def _proxy_headers(self) -> dict[str, str]:
        parts = urlsplit(self.proxy)
        if not parts.username:
            return {}
        pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
        return {"Proxy-Authorization": f"Basic {base64.b64encode(pair.encode()).decode()}"}

    @cached_property
    def _anonymous(self) -> ssl.SSLContext:
        try:
            return ssl.create_default_context(cafile=str(self.ca) if self.ca else None)
        except OSError as error:
            raise Unavailable(
                f"the authorities in {self.ca} cannot be loaded: {error}",
                "mend `ca` in [transfer] of modelward.toml",
            ) from error

    @cached_property
    def _context(self) -> ssl.SSLContext:
        if self.certificate is None:
            return self._anonymous
        try:
            context = ssl.create_default_context(cafile=str(self.ca) if self.ca else None)
            # A passphrase would be asked for on the terminal, where nobody sits.
            context.load_cert_chain(self.certificate, self.key, password=lambda: "")
        except OSError as error:
            raise Unavailable(
                f"the certificate {self.certificate} cannot be loaded: {error}",
                "mend `ca`, `certificate` and `key` in [transfer] of modelward.toml",
            ) from error
        return context


def _connect(
    pace: Pace, place: tuple[str, int], seconds: float, source: tuple[str, int] | None = None
) -> socket:
    with pace.paused():  # if it fails, it was waited for in vain
        addresses = look_up(place)
    return connect(addresses, seconds, source)


def parse(url: str) -> SplitResult:
    """Return the parts of an address.

    Raises:
        UsageError: It is not an http or https address.
    """
    try:
        address = urlsplit(url)
        if address.scheme in PORTS and address.hostname and address.port != 0:
            return address
    except ValueError:
        pass
    raise UsageError(f"{url!r} is not an http or https address", "give it with --repository")


def why(error: BaseException) -> str:
    """Return what went wrong, shortly."""
    return f"{type(error).__name__}: {error}"[:SHOWN] if str(error) else type(error).__name__
