"""Finding neighbours on the local network by multicast DNS (the extra ``mdns``).

Answers are not trusted: they are addresses to ask. A neighbour that lies is dealt with as any
other source that does.
"""

from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from ipaddress import IPv4Address, IPv4Interface, IPv6Address, ip_address
from pathlib import Path
from threading import Event, Lock, Thread
from typing import Any

from modelward.errors import UsageError

SERVICE = "_modelward._tcp.local."
PATIENCE = 3000  # milliseconds to resolve a name
LOOK = 30.0  # seconds between two looks at this machine's networks

Tell = Callable[[tuple[str, ...]], None]
Warn = Callable[[str], None]
Networks = tuple[IPv4Interface, ...]


@contextmanager
def announced(name: str, port: int, tell: Tell, warn: Warn) -> Iterator[None]:
    """Announce this device, and tell of others whenever they come or go.

    A network may come, go or change at any time: all begins anew on what is there then.

    Args:
        name: What tells this device from others; no secret, and no id that is used elsewhere.
        port: The port it serves at.
        tell: Told the addresses of all others, from other threads.
        warn: Told why nobody can be found for now; once, until somebody can.

    Raises:
        UsageError: zeroconf is not installed.
    """
    try:
        import zeroconf  # noqa: F401, PLC0415 - an extra
    except ImportError as error:
        raise UsageError(
            "finding neighbours takes zeroconf, which is not installed",
            "install modelward[mdns], or name neighbours by `urls` in [neighbours]",
        ) from error
    over = Event()
    thread = Thread(
        target=_announce, args=(name, port, tell, warn, over), name="modelward-mdns", daemon=True
    )
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def _announce(name: str, port: int, tell: Tell, warn: Warn, over: Event) -> None:
    from zeroconf import Error  # noqa: PLC0415 - an extra

    is_said = False
    while not over.is_set():
        try:
            tell(())  # whoever was there before may be gone
            networks = _networks()
            with _announced_on(networks, name, port, tell):
                is_said = False
                while _networks() == networks and not over.wait(LOOK):
                    pass
        except (OSError, RuntimeError, Error) as error:
            if not is_said:
                warn(str(error) or type(error).__name__)
            is_said = True
            over.wait(LOOK)


@contextmanager
def _announced_on(networks: Networks, name: str, port: int, tell: Tell) -> Iterator[None]:
    from zeroconf import ServiceBrowser, ServiceInfo, Zeroconf  # noqa: PLC0415 - an extra

    if not networks:
        raise OSError("this machine has no network")
    addresses = [str(each.ip) for each in networks]
    zeroconf = Zeroconf(addresses)
    info = ServiceInfo(
        SERVICE,
        f"{name}.{SERVICE}",
        port=port,
        parsed_addresses=addresses,
        server=f"{name}.local.",
    )
    try:
        zeroconf.register_service(info, allow_name_change=True)
        seen = _Seen(info.name, networks, tell)
        # Its thread would outlive zeroconf. Its end waits for the name that it is looking up.
        with ServiceBrowser(zeroconf, SERVICE, handlers=[seen.changed]), closing(seen):
            yield
    finally:
        zeroconf.close()


class _Seen:
    """Who is there, as far as zeroconf says."""

    def __init__(self, own: str, networks: Networks, tell: Tell) -> None:
        self._own = own
        self._networks = networks
        self._tell = tell
        self._lock = Lock()
        self._urls: dict[str, str] = {}
        self._is_over = False

    def close(self) -> None:
        """Look nobody up any more: each may take as long as `PATIENCE`."""
        self._is_over = True

    def changed(self, zeroconf: Any, service_type: str, name: str, state_change: Any) -> None:
        """Somebody came, moved or left. Zeroconf passes these by name.

        An announcement that zeroconf cannot make sense of is dropped alone: anybody may send one.
        """
        if self._is_over:
            return
        url = None
        if name != self._own and state_change.name != "Removed":
            try:
                info = zeroconf.get_service_info(service_type, name, timeout=PATIENCE)
                url = _url(info, self._networks) if info is not None else None
            except Exception:  # noqa: BLE001 - it would end zeroconf's thread: nobody else be found
                return
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


def _url(info: Any, networks: Networks) -> str | None:
    """Return a neighbour's address: one of these networks, so that nobody points elsewhere.

    Else anybody near could have this device ask itself, or whoever else trusts it.
    """
    if not info.port:
        return None
    own = [each.ip for each in networks]
    for text in info.parsed_addresses():
        address = ip_address(text)
        is_near = any(address in each.network for each in networks)
        if is_near and address not in own and not _is_odd(address):
            return f"http://{address}:{info.port}"
    return None


def _is_odd(address: IPv4Address | IPv6Address) -> bool:
    """Tell whether an address is no single other machine's, whatever a network is said to have."""
    return (
        address.is_loopback or address.is_unspecified or address.is_multicast or address.is_reserved
    )


def _networks() -> Networks:
    """Return this machine's own addresses on the networks it is connected to, with these."""
    import ifaddr  # noqa: PLC0415 - comes with zeroconf

    found = {
        IPv4Interface(f"{ip.ip}/{ip.network_prefix}")
        for adapter in ifaddr.get_adapters()
        if _is_connected(adapter.name)
        for ip in adapter.ips
        if ip.is_IPv4
    }
    return tuple(sorted(each for each in found if not each.ip.is_loopback))


def _is_connected(adapter: str) -> bool:
    """Tell whether an adapter has its cable or its cell; one may have an address without."""
    path = Path("/sys/class/net", adapter.partition(":")[0], "operstate")  # eth0:1 is of eth0
    try:
        return path.read_text().strip() not in ("down", "lowerlayerdown", "notpresent", "dormant")
    except OSError:
        return True
