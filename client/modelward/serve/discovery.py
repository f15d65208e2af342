"""Finding neighbours on the local network by multicast DNS (the extra ``mdns``).

Answers are not trusted: they are addresses to ask. A neighbour that lies is dealt with as any
other source that does.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from ipaddress import IPv4Interface
from pathlib import Path
from threading import Event, Thread

from modelward.errors import UsageError
from modelward.serve.heard import Heard, Networks

LOOK = 5.0  # seconds between two looks at this machine's networks, and at who was heard
ASK = 600.0  # seconds between two questions who is there; less at the start

Tell = Callable[[tuple[str, ...]], None]
Warn = Callable[[str], None]
Ask = Callable[[], None]


@contextmanager
def announced(name: str, port: int, tell: Tell, warn: Warn) -> Iterator[None]:
    """Announce this device, and tell every few seconds which others are there.

    A network may come, go or change at any time: all begins anew on what is there then.

    Args:
        name: What tells this device from others, random and unique: nobody is asked whether it is
            free. No secret, and no id that is used elsewhere.
        port: The port it serves at.
        tell: Told the URLs of all others, whether or not that is new, from another thread.
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
    networks: Networks | None = None
    heard = Heard((), port)
    while not over.is_set():
        try:
            found = _networks()
            if found != networks:  # else whoever was heard before is there still
                networks, heard = found, Heard(found, port)
                tell(())
            with _announced_on(networks, name, port, heard) as ask:
                is_said = False
                _listen(networks, heard, ask, tell, over)
        except (OSError, RuntimeError, Error) as error:
            if not is_said:
                warn(str(error) or type(error).__name__)
            is_said = True
            over.wait(LOOK)


def _listen(networks: Networks, heard: Heard, ask: Ask, tell: Tell, over: Event) -> None:
    """Tell who is there until this machine's networks are others, or all is over."""
    due, pause = time.monotonic(), LOOK
    while _networks() == networks:
        if time.monotonic() >= due:
            ask()
            due, pause = time.monotonic() + pause, min(2 * pause, ASK)
        if over.wait(LOOK):
            return
        tell(heard.urls())


@contextmanager
def _announced_on(networks: Networks, name: str, port: int, heard: Heard) -> Iterator[Ask]:
    """Announce this device on networks, and note who is heard there; yield what asks them all."""
    from zeroconf import ServiceInfo, Zeroconf  # noqa: PLC0415 - an extra

    from modelward.serve import sieve  # noqa: PLC0415 - an extra
    from modelward.serve.announcements import SERVICE, Listener, question  # noqa: PLC0415 - an extra

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
        sieve.put_before(zeroconf, networks)
        zeroconf.add_listener(Listener(heard), None)
        # Without asking first whether the name is another's (RFC 6762, 8.1): it is random, and
        # whoever near says yes each time would keep this device from ever being announced.
        zeroconf.register_service(info, cooperating_responders=True)
        yield lambda: zeroconf.send(question())
    finally:
        zeroconf.close()


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
