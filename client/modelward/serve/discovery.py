"""Finding neighbours on the local network by multicast DNS (the extra ``mdns``).

Answers are not trusted: they are addresses to ask. A neighbour that lies is dealt with as any
other source that does.
"""

import ipaddress
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Lock
from typing import Any

from modelward.errors import UsageError

SERVICE = "_modelward._tcp.local."
PATIENCE = 3000  # milliseconds to resolve a name

Tell = Callable[[tuple[str, ...]], None]


@contextmanager
def announced(name: str, port: int, tell: Tell) -> Iterator[None]:
    """Announce this device, and tell of others whenever they come or go.

    Args:
        name: What tells this device from others; no secret, and no id that is used elsewhere.
        port: The port it serves at.
        tell: Told the addresses of all others, from other threads.

    Raises:
        UsageError: zeroconf is not installed.
    """
    try:
        from zeroconf import ServiceBrowser, ServiceInfo, Zeroconf  # noqa: PLC0415 - an extra
    except ImportError as error:
        raise UsageError(
            "finding neighbours takes zeroconf, which is not installed",
            "install modelward[mdns], or name neighbours by `urls` in [neighbours]",
        ) from error
    zeroconf = Zeroconf()
    own = f"{name}.{SERVICE}"
    info = ServiceInfo(
        SERVICE, own, port=port, parsed_addresses=_addresses(), server=f"{name}.local."
    )
    try:
        zeroconf.register_service(info, allow_name_change=True)
        seen = _Seen(info.name, tell)
        ServiceBrowser(zeroconf, SERVICE, handlers=[seen.changed])
        yield
    finally:
        zeroconf.close()


class _Seen:
    """Who is there, as far as zeroconf says."""

    def __init__(self, own: str, tell: Tell) -> None:
        self._own = own
        self._tell = tell
        self._lock = Lock()
        self._urls: dict[str, str] = {}

    def changed(self, zeroconf: Any, service_type: str, name: str, state_change: Any) -> None:
        """Somebody came, moved or left. Zeroconf passes these by name."""
        url = None
        if name != self._own and state_change.name != "Removed":
            info = zeroconf.get_service_info(service_type, name, timeout=PATIENCE)
            url = _url(info) if info is not None else None
        self._note(name, url)

    def _note(self, name: str, url: str | None) -> None:
        with self._lock:
            before = tuple(self._urls.values())
            self._urls.pop(name, None)
            if url is not None:
                self._urls[name] = url
            now = tuple(sorted(set(self._urls.values())))
            if now != tuple(sorted(set(before))):
                self._tell(now)


def _url(info: Any) -> str | None:
    """Return a neighbour's address: only of this network, so that nobody points elsewhere."""
    if not info.port:
        return None
    for text in info.parsed_addresses():
        address = ipaddress.ip_address(text)
        if address.version == 4 and (address.is_private or address.is_link_local):  # noqa: PLR2004
            return f"http://{address}:{info.port}"
    return None


def _addresses() -> list[str]:
    """Return this machine's own addresses on its networks."""
    import ifaddr  # noqa: PLC0415 - comes with zeroconf

    found = [str(ip.ip) for adapter in ifaddr.get_adapters() for ip in adapter.ips if ip.is_IPv4]
    near = [text for text in found if not ipaddress.ip_address(text).is_loopback]
    return near or found or [socket.gethostbyname("localhost")]
