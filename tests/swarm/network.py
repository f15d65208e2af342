"""A local network of namespaces behind one slow uplink; needs root, iproute2 and tbf.

::

    [uplink: the repository's server] -- tbf --+
                                               | bridge, in a namespace of its own
    [device 0]  [device 1]  [device 2] ... ----+

Nothing of it is visible outside: all interfaces live in these namespaces.
"""

import contextlib
import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

UPLINK = "10.77.0.1"


@dataclass(frozen=True)
class Network:
    """The network.

    Attributes:
        name: What the names of its namespaces begin with.
        count: Number of devices.
    """

    name: str
    count: int

    def within_uplink(self) -> list[str]:
        """Return what a command is started with where the repository is."""
        return ["ip", "netns", "exec", f"{self.name}-up"]

    def within(self, device: int) -> list[str]:
        """Return what a command of a device is started with."""
        return ["ip", "netns", "exec", f"{self.name}-{device}"]

    def address(self, device: int) -> str:
        """Return a device's address."""
        return f"10.77.0.{10 + device}"

    def unplug(self, device: int) -> None:
        """Take a device's cable."""
        ip("-n", f"{self.name}-{device}", "link", "set", "eth0", "down")

    def forget(self, device: int) -> None:
        """Take all addresses of a device, its loop's too."""
        for link in ("lo", "eth0"):
            ip("-n", f"{self.name}-{device}", "addr", "flush", "dev", link)

    def plug_in(self, device: int, address: str) -> None:
        """Give a device its network back, with some address."""
        name = f"{self.name}-{device}"
        ip("-n", name, "addr", "replace", f"{address}/24", "dev", "eth0")
        ip("-n", name, "link", "set", "eth0", "up")

    def sent(self) -> int:
        """Return how many bytes went over the uplink towards the devices, headers and all."""
        shown = json.loads(ip("-n", f"{self.name}-up", "-s", "-j", "link", "show", "eth0"))
        return int(shown[0]["stats64"]["tx"]["bytes"])


def problem() -> str | None:
    """Return why there can be no such network here, or None."""
    if os.geteuid() != 0:
        return "network namespaces need root"
    if not (shutil.which("ip") and shutil.which("tc")):
        return "network namespaces need iproute2"
    try:
        with network(1, "1mbit"):
            return None
    except subprocess.CalledProcessError as error:
        return f"there can be no network namespaces here: {error.stderr.strip()}"


def ip(*arguments: str) -> str:
    return subprocess.run(
        ["ip", *arguments], check=True, capture_output=True, text=True, timeout=20
    ).stdout


@contextmanager
def network(count: int, rate: str) -> Iterator[Network]:
    """Make a network.

    Args:
        count: Number of devices.
        rate: Of the uplink, as tc has it: ``16mbit``.
    """
    made = Network(f"mw{os.getpid()}", count)
    switch = f"{made.name}-sw"
    names = {f"{made.name}-up": UPLINK}
    names |= {f"{made.name}-{number}": made.address(number) for number in range(count)}
    with contextlib.ExitStack() as stack:
        for name in (switch, *names):
            ip("netns", "add", name)
            stack.callback(ip, "netns", "del", name)
        ip("-n", switch, "link", "add", "bridge", "type", "bridge", "mcast_snooping", "0")
        ip("-n", switch, "link", "set", "bridge", "up")
        for port, (name, address) in enumerate(names.items()):
            ip("-n", name, "link", "add", "eth0", "type", "veth",
               "peer", "name", f"port{port}", "netns", switch)  # fmt: skip
            ip("-n", switch, "link", "set", f"port{port}", "master", "bridge", "up")
            ip("-n", name, "addr", "add", f"{address}/24", "dev", "eth0")
            ip("-n", name, "link", "set", "lo", "up")
            ip("-n", name, "link", "set", "eth0", "up")
        limit = ["tbf", "rate", rate, "burst", "256kb", "latency", "300ms"]
        subprocess.run(
            ["tc", "-n", f"{made.name}-up", "qdisc", "add", "dev", "eth0", "root", *limit],
            check=True,
            capture_output=True,
            text=True,
            timeout=20,
        )
        yield made
