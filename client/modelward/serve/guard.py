"""Nobody keeps this server busy: few connections, fewer from one address, and none for ever."""

import contextlib
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable

MOST = 64  # connections
MOST_EACH = 16  # from one address
ASKING = 20.0  # seconds to send a request, from the moment the connection is free for one
GIVING = 60.0  # seconds to take a block of the answer
BLOCK = 1 << 20  # bytes
HEAD = 16 << 10  # bytes of a request's line and headers


class Guard:
    """Counts connections, and ends those that are too slow.

    Args:
        clock: Monotonic seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._deadlines: dict[socket.socket, float] = {}
        self._addresses: dict[socket.socket, str] = {}

    def admit(self, connection: socket.socket, address: str) -> bool:
        """Let a connection in, or say that there are too many."""
        with self._lock:
            each = Counter(self._addresses.values())
            if len(self._addresses) >= MOST or each[address] >= MOST_EACH:
                return False
            self._addresses[connection] = address
            self._deadlines[connection] = self._clock() + ASKING
            return True

    def expect(self, connection: socket.socket, seconds: float) -> None:
        """Give a connection so long for what comes next."""
        with self._lock:
            if connection in self._deadlines:
                self._deadlines[connection] = self._clock() + seconds

    def leave(self, connection: socket.socket) -> None:
        """Forget a connection that has ended."""
        with self._lock:
            self._deadlines.pop(connection, None)
            self._addresses.pop(connection, None)

    def end_late(self) -> int:
        """End every connection whose time is over; return how many."""
        now = self._clock()
        with self._lock:
            late = [each for each, deadline in self._deadlines.items() if deadline <= now]
        for connection in late:
            self._deadlines.pop(connection, None)
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)  # whoever waits for it wakes up
        return len(late)
