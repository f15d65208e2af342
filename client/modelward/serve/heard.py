"""Who was heard nearby: one URL for each address, and not many addresses.

Anybody near may say anything as often as they like, also of others' addresses. So whoever was
heard first stays for as long as they are heard again: nobody displaces another by coming last.
"""

import time
from collections.abc import Callable
from ipaddress import IPv4Address, IPv4Interface
from threading import Lock

from modelward.install.neighbours import MOST

STALE = 1800.0  # seconds after which who was not heard again is gone

Networks = tuple[IPv4Interface, ...]


class Heard:
    """Remembers who was heard.

    Args:
        networks: This machine's addresses, with the networks they are in.
        usual: The port that others most likely serve at, too: the one of this device.
        clock: Monotonic seconds.
    """

    def __init__(
        self, networks: Networks, usual: int, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._networks = networks
        self._usual = usual
        self._clock = clock
        self._lock = Lock()
        self._ports: dict[IPv4Address, tuple[int, float]] = {}  # and when it was heard last

    def is_near(self, address: IPv4Address) -> bool:
        """Tell whether an address is another's in one of these networks.

        Else anybody near could have this device ask itself, or whoever else trusts it.
        """
        own = [each.ip for each in self._networks]
        is_within = any(address in each.network for each in self._networks)
        return is_within and address not in own and not _is_odd(address)

    def note(self, address: IPv4Address, port: int) -> None:
        """Note that somebody near is said to serve there."""
        with self._lock:
            known, _ = self._ports.get(address, (None, 0.0))
            if known is None and len(self._ports) >= MOST:
                return
            # Said of an honest device, another port would hide it. The usual one cannot: whoever
            # says that of it leads to it.
            if port and (known in (None, port) or port == self._usual):
                self._ports[address] = (port, self._clock())

    def urls(self) -> tuple[str, ...]:
        """Return the URLs of all who were heard lately, in the order they were heard first."""
        with self._lock:
            since = self._clock() - STALE
            self._ports = {each: told for each, told in self._ports.items() if told[1] > since}
            return tuple(f"http://{address}:{port}" for address, (port, _) in self._ports.items())


def _is_odd(address: IPv4Address) -> bool:
    """Tell whether an address is no single other machine's, whatever a network is said to have."""
    return (
        address.is_loopback or address.is_unspecified or address.is_multicast or address.is_reserved
    )
