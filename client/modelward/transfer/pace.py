"""Deadlines that cannot be dripped (attack row 8), and waits that do not make matters worse."""

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from modelward.config.transfer import TransferSettings
from modelward.errors import Unavailable

Clock = Callable[[], float]  # monotonic seconds
Sleep = Callable[[float], None]


@dataclass(frozen=True)
class Patience:
    """How long to wait for whom.

    Attributes:
        connect: Seconds to connect, a proxy and TLS included, and to wait for any single read.
            Looking a name up comes before, and only the system's resolver limits it.
        first: Seconds until an answer's headers are complete.
        rate: Least bytes of content a second, measured over `window`.
        window: Seconds over which the rate is measured.
        total: Seconds for one small document.
        vain: Seconds for which one server may be waited for in vain, over all that is asked of it.
        tries: How often to try a server that does not answer or is busy.
        pause: Seconds before the second try; doubles each time, with jitter.
        longest: Most seconds that `pause` grows to, and that a server's wish counts for.
    """

    connect: float = 10.0
    first: float = 20.0
    rate: int = 1024
    window: float = 15.0
    total: float = 60.0
    vain: float = 40.0
    tries: int = 4
    pause: float = 0.5
    longest: float = 60.0

    @classmethod
    def of(cls, settings: TransferSettings) -> "Patience":
        """Return the patience that a device's settings describe: all of it follows `timeout`."""
        scale = settings.timeout / cls.connect
        return cls(
            connect=settings.timeout,
            first=cls.first * scale,
            rate=settings.minimum_rate,
            window=cls.window * scale,
            total=cls.total * scale,
            vain=cls.vain * scale,
        )

    def before_try(self, failures: int, wish: float | None = None) -> float:
        """Return how many seconds to wait after so many failures.

        What a server asks for comes on top: a fleet that it sent away as one must not come back
        as one.

        Args:
            failures: Failures so far, at least one.
            wish: Seconds that the server asked to wait (Retry-After), if it did.
        """
        jitter = random.uniform(0.5, 1.5)  # noqa: S311 - spreads a fleet out, no secret
        doubled = self.pause * 2.0 ** min(failures - 1, 20) * jitter
        return min(wish or 0.0, self.longest) + min(doubled, self.longest)


class Pace:
    """Notices a server that is too slow, whether it drips headers, framing or content.

    Args:
        name: What is waited for, for errors.
        patience: How long.
        clock: Monotonic seconds.
        total: Most seconds from the request to the end; None for as long as the rate is kept.
    """

    def __init__(self, name: str, patience: Patience, clock: Clock, total: float | None) -> None:
        self._name = name
        self._patience = patience
        self._clock = clock
        self._total = total
        self._until: float | None = None  # when something must be done; see `within`
        self.start()

    def start(self) -> None:
        """Start anew, with a new request."""
        self._start = self._window = self._rested = self._clock()
        self._content = 0
        self._silent = 0.0  # seconds until it answered
        self._answered = False

    def answered(self) -> None:
        """Note that the headers are complete: from now on its rate counts."""
        now = self._clock()
        self._silent, self._window = now - self._window, now
        self._answered = True

    def arrived(self, count: int) -> None:
        """Note that so many bytes of content have arrived."""
        self._content += count

    def rest(self) -> None:
        """Stop counting time, until `resume`: a slow disk, or resolver, is not a slow server."""
        self._rested = self._clock()

    def resume(self) -> None:
        """Count on."""
        away = self._clock() - self._rested
        self._start += away
        self._window += away

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Do not count the time spent inside."""
        self.rest()
        yield
        self.resume()

    @contextmanager
    def within(self, seconds: float) -> Iterator[None]:
        """Give so many seconds to all that is waited for inside: part of it may not take them all.

        Args:
            seconds: How many, from now on.
        """
        self._until = self._clock() + seconds
        try:
            yield
        finally:
            self._until = None

    @contextmanager
    def told(self) -> Iterator[None]:
        """Note on what fails inside for how long the server was waited for in vain."""
        try:
            yield
        except Unavailable as error:
            error.vain = self._vain()
            raise

    def left(self) -> float | None:
        """Return the seconds that are left until the end; None if they are not limited.

        Raises:
            Unavailable: None are.
        """
        if self._total is None:
            return None
        left = self._start + self._total - self._clock()
        if left <= 0:
            raise Unavailable(f"{self._name}: took longer than {self._total:g} seconds")
        return left

    def wait(self) -> float:
        """Return for how many seconds connecting, or a single read, may wait.

        Raises:
            Unavailable: The server is too slow already.
        """
        self.check()
        limits = [self._patience.connect, self.left()]
        if not self._answered:
            limits.append(self._start + self._patience.first - self._clock())
        if self._until is not None:
            limits.append(self._until - self._clock())
        return max(0.001, min(limit for limit in limits if limit is not None))

    def check(self) -> None:
        """Raise Unavailable if the server is too slow. Called before every read from the network.

        One read waits for no longer than `wait` says, so that no more can pass unchecked.
        """
        now = self._clock()
        self.left()
        if self._until is not None and now > self._until:
            raise Unavailable(f"{self._name}: took too long to connect")
        if not self._answered:
            if now - self._start > self._patience.first:
                raise Unavailable(
                    f"{self._name}: took longer than {self._patience.first:g} seconds to answer"
                )
            return
        seconds = now - self._window
        if seconds >= self._patience.window:
            if self._content < self._patience.rate * seconds:
                raise Unavailable(
                    f"{self._name}: slower than {self._patience.rate} bytes a second over "
                    f"{self._patience.window:g} seconds"
                )
            self._window, self._content, self._silent = now, 0, 0.0

    def _vain(self) -> float:
        """Return the seconds of which, at the least rate, nothing came."""
        worth = self._content / max(self._patience.rate, 1)
        return max(0.0, self._silent + self._clock() - self._window - worth)


class Throttle:
    """A cap on bandwidth, over all connections that share it. Safe to use from many threads.

    Args:
        rate: Bytes a second.
        clock: Monotonic seconds.
        sleep: Waits so many seconds.
    """

    def __init__(self, rate: int, clock: Clock, sleep: Sleep) -> None:
        self._rate = rate
        self._clock = clock
        self._sleep = sleep
        self._free = clock()  # when what was taken so far is paid for

    @property
    def piece(self) -> int:
        """Most bytes to read at once, so that the rate is even."""
        return max(4096, self._rate // 8)

    def spend(self, count: int) -> None:
        """Wait until so many bytes that have arrived are paid for."""
        now = self._clock()
        # Assigning one float is atomic; two threads that race here err by one read at most.
        self._free = max(self._free, now) + count / self._rate
        if self._free > now:
            self._sleep(self._free - now)
