"""sd_notify(3): telling systemd, or whoever started this, how things are. A datagram a message."""

import contextlib
import os
import socket
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

STATUS_MOST = 200  # characters
_PATIENCE = 1.0  # seconds for a listener whose queue is full


@dataclass(frozen=True)
class Notifier:
    """Tells the process that supervises this one.

    Attributes:
        address: Path of its socket, or an abstract name that begins with ``@``; None for nobody.
        watchdog: Seconds within which it wants a sign of life; None if it does not ask for any.
    """

    address: str | None = None
    watchdog: float | None = None

    @classmethod
    def of(cls, environment: Mapping[str, str], pid: int) -> Self:
        """Return what the environment asks for (sd_notify(3), sd_watchdog_enabled(3)).

        Args:
            environment: The process's environment.
            pid: The process's id: a watchdog may be meant for another one.
        """
        address = environment.get("NOTIFY_SOCKET") or None
        watchdog = None
        if environment.get("WATCHDOG_PID", str(pid)) == str(pid):
            with contextlib.suppress(ValueError):
                watchdog = int(environment.get("WATCHDOG_USEC", "0")) / 1e6 or None
        if address is None or address[0] not in "/@":
            return cls(None, None)
        return cls(address, watchdog)

    def ready(self) -> None:
        """Say that it has started, or has read its configuration again."""
        self._send("READY=1")

    def reloading(self) -> None:
        """Say that it reads its configuration again; `ready` must follow."""
        now = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
        self._send(f"RELOADING=1\nMONOTONIC_USEC={now}")

    def stopping(self) -> None:
        """Say that it is about to end."""
        self._send("STOPPING=1")

    def alive(self) -> None:
        """Give a sign of life."""
        if self.watchdog is not None:
            self._send("WATCHDOG=1")

    def status(self, text: str) -> None:
        """Say in a line how things are."""
        line = text if text.isprintable() else text.encode("unicode_escape").decode()
        self._send(f"STATUS={line[:STATUS_MOST]}")

    def _send(self, message: str) -> None:
        """Send a message. Whether anybody listens must make no difference."""
        if self.address is None:
            return
        name = os.fsencode(self.address)
        if name.startswith(b"@"):
            name = b"\0" + name[1:]
        with (
            contextlib.suppress(OSError),
            socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sender,
        ):
            sender.settimeout(_PATIENCE)
            sender.sendto(message.encode(), name)
