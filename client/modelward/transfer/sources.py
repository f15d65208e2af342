"""Where bytes come from. Any source may lie; every byte is checked by whoever asked for it.

A source serves the files of one repository by their relative path, URL-quoted as in its address:
``metadata/timestamp.json``, ``targets/...``, ``log/tile/...``, ``blobs/sha256/ab/<64 hex>``. Small
documents come whole; of a blob, any range can be read, by many threads at once.
"""

import hashlib
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from enum import IntEnum
from threading import Lock, Semaphore
from typing import Protocol, Self

from modelward.config.transfer import MAX_CONNECTIONS
from modelward.errors import Gate, NotFound, Refused, TooLong, Unavailable
from modelward.formats.chunks import MAX_CHUNK
from modelward.formats.release import Blob
from modelward.transfer.http import Http
from modelward.transfer.pace import Clock, Patience, Sleep

# Where in a repository TUF's metadata, its targets, the transparency log, and blobs are.
METADATA, TARGETS, LOG, BLOBS = "metadata/", "targets/", "log/", "blobs/"
SMALL = 64 << 10  # bytes of blobs that are fetched in one go
ANSWERS = 4  # that make good one wait in vain: a poor link loses one in ten
LOOK = 1.0  # seconds between two looks at whether to go on, while a source is waited for
ADVICE = "that server is broken or hostile: use another mirror"
_SILENT = "see whether it is well and the network lets answers through, or name another mirror"


class Kind(IntEnum):
    """What a source is to this device, in the order in which blobs are asked for."""

    MEDIUM = 1  # a stick or a directory that somebody brought
    NEIGHBOUR = 2  # another device: near, and trusted with nothing
    MIRROR = 3
    ORIGIN = 4  # the repository itself


# How near each is to the origin: the order in which documents are asked for.
_NEAR = {Kind.ORIGIN: 0, Kind.MEDIUM: 1, Kind.MIRROR: 2, Kind.NEIGHBOUR: 3}


class Reader(Protocol):
    """Bytes of one range of a blob, in order."""

    def readinto(self, buffer: memoryview, /) -> int:
        """Put the next bytes at the start of `buffer`, as many as have come; 0 at the range's end.

        Raises:
            Refused: The source is provably wrong, for example about the range.
            Unavailable: It did not deliver.
        """
        ...

    def close(self) -> None:
        """Be done with it, read to its end or not; also from another thread, to wake it up."""
        ...


class Source(Protocol):
    """Serves the files of one repository; see the module."""

    @property
    def name(self) -> str:
        """What people call it: its address, without secrets."""
        ...

    @property
    def kind(self) -> Kind:
        """What it is to this device."""
        ...

    def fetch(self, path: str, limit: int) -> bytes:
        """Return a small document.

        Args:
            path: Where it is, relative to the repository.
            limit: Most bytes it may have.

        Raises:
            TooLong: It is longer; reading stopped there.
            NotFound: There is no such file.
            Unavailable: Anything else went wrong.
        """
        ...

    def open(self, blob: Blob, start: int, stop: int) -> Reader:
        """Return a reader of bytes `start` to `stop`, exclusive. Called from many threads at once.

        Raises:
            Refused: The source is provably wrong, for example about the blob's length.
            NotFound: It has no such blob.
            NoRanges: It only sends all of a blob.
            Unavailable: Anything else went wrong.
        """
        ...

    def close(self) -> None:
        """Close what is open."""
        ...


def blob_path(sha256: str) -> str:
    """Return where a blob is in every repository."""
    return f"{BLOBS}sha256/{sha256[:2]}/{sha256}"


class HttpSource:
    """A repository behind HTTP.

    Args:
        url: Its address, without a final slash.
        http: The client to ask with; whoever made it closes it.
        kind: What it is to this device.
    """

    def __init__(self, url: str, http: Http, kind: Kind = Kind.ORIGIN) -> None:
        self._http = http
        self.name = url
        self.kind = kind

    def fetch(self, path: str, limit: int) -> bytes:
        """Return a small document; see `Source`."""
        url = f"{self.name}/{path}"
        if path.startswith(BLOBS):  # may be megabytes: judged by the rate, as all blobs are
            return b"".join(map(bytes, self._http.stream(url, limit)))
        return self._http.fetch(url, limit)

    def open(self, blob: Blob, start: int, stop: int) -> Reader:
        """Return a reader of a range of a blob; see `Source`."""
        url = f"{self.name}/{blob_path(blob.sha256)}"
        return self._http.open(url, start, stop, blob.length)

    def close(self) -> None:
        """Leave the client open: other sources use it."""


@dataclass
class Standing:
    """What a source has shown of itself in this update.

    Attributes:
        source: The source.
        order: Its place in the configuration.
        failures: Failures since it last delivered.
        rate: Bytes a second that it delivered of late; 0 if not known.
        received: Bytes that it delivered.
        banned: Why nothing more is taken from it; empty if it is not banned.
        ranges: Whether it sends a part where a part is asked for, as far as is known.
        vain: Seconds for which it was waited for in vain, less what its bytes made good.
        waited: When such a wait last ended.
        places: Requests for blobs that it may leave unanswered at a time, of one file or of many.
    """

    source: Source
    order: int
    failures: int = 0
    rate: float = 0.0
    received: int = 0
    banned: str = ""
    ranges: bool = True
    vain: float = 0.0
    waited: float = 0.0
    places: Semaphore = field(default_factory=lambda: Semaphore(MAX_CONNECTIONS))


@dataclass
class Sources:
    """Several sources of one repository: scored, banned, and asked in turn. Safe for many threads.

    Attributes:
        sources: The sources, in the order of the configuration.
        patience: How often to go round them for a document.
        clock: Monotonic seconds.
        sleep: Waits so many seconds.
        latest: The name of the source that delivered last.
    """

    sources: Sequence[Source]
    patience: Patience = field(default_factory=Patience)
    clock: Clock = time.monotonic
    sleep: Sleep = time.sleep
    latest: str = ""

    def __post_init__(self) -> None:
        self._lock = Lock()
        self._standings = [Standing(source, order) for order, source in enumerate(self.sources)]

    def fetch(self, path: str, limit: int) -> bytes:
        """Return a small document: from the origin, else from whoever has it.

        That a document does not exist is believed of the first who answers: mirrors copy, and
        TUF's search for a new root must not ask them all each time. But who copies may lag: while
        somebody nearer to the origin is busy, that one is asked again first. And a target exists
        that is asked for: one neighbour may not have kept it, and the next one has.

        Raises:
            TooLong: It is longer; reading stopped there.
            NotFound: The first source that answered, and is believed, has no such file.
            Unavailable: No source delivered.
        """
        return self._in_turn(
            self._for_documents(),
            lambda source: source.fetch(path, limit),
            everywhere=path.startswith(TARGETS),
        )

    def fetch_blob(self, blob: Blob, go_on: Callable[[], None] | None = None) -> bytes:
        """Return a small blob's bytes, verified, from whoever delivers the right ones.

        Args:
            blob: What.
            go_on: Called now and then, while it arrives and while busy sources are waited for; may
                raise to stop.

        Raises:
            Refused: A source delivered something else, and no other the right bytes.
            Unavailable: No source delivered.
        """

        def ask(source: Source) -> bytes:
            try:
                if go_on and blob.length > SMALL:
                    data = _read(source, blob, go_on)
                else:
                    data = source.fetch(blob_path(blob.sha256), blob.length)
            except TooLong as error:
                raise wrong(source.name, f"more than {blob.length} bytes") from error
            _check(source.name, data, blob)
            return data

        try:
            return self._in_turn(self.for_blobs(blob.length), ask, go_on, everywhere=True)
        except Unavailable as error:
            raise at_fetch(error) from error.__cause__

    def for_blobs(self, unchecked: int = 0) -> list[Standing]:
        """Return the sources that are not out, the most promising first.

        Args:
            unchecked: Bytes that one may send before any of them are checked. If that is more than
                a chunk, neighbours are left out, who are many and anybody's (attack row 11).
        """
        with self._lock:
            usable = [standing for standing in self._standings if not self.is_out(standing)]
        if unchecked > MAX_CHUNK:
            usable = [each for each in usable if each.source.kind is not Kind.NEIGHBOUR]
        return sorted(
            usable,
            key=lambda item: (item.failures, item.source.kind, -item.rate, item.order),
        )

    def is_out(self, standing: Standing) -> bool:
        """Tell whether a source is banned, or was waited for in vain for too long by now."""
        return bool(standing.banned) or self._is_silent(standing)

    def failed(self, standing: Standing, error: Unavailable) -> None:
        """Note that a source did not deliver.

        Who accepts and never answers, or next to nothing, would else cost its time for every file
        and every try (attack row 8). Waits that overlap cost it once.
        """
        now = self.clock()
        with self._lock:
            standing.failures += 1
            standing.vain += max(0.0, min(error.vain, now - standing.waited))
            standing.waited = now

    def delivered(self, standing: Standing, count: int, seconds: float) -> None:
        """Note that a source delivered bytes which were not found wrong."""
        self.made_good(standing, count)
        with self._lock:
            self.latest = standing.source.name
            standing.failures = 0
            standing.received += count
            rate = count / max(seconds, 1e-6)
            standing.rate = rate if not standing.rate else 0.7 * standing.rate + 0.3 * rate

    def made_good(self, standing: Standing, count: int, least: float = 0.0) -> None:
        """Note that bytes came, which make up for what they may take at the least rate.

        Args:
            standing: Where from.
            count: How many.
            least: Seconds that they make up for in any case.
        """
        with self._lock:
            worth = max(least, count / max(self.patience.rate, 1))
            standing.vain = max(0.0, standing.vain - worth)

    def ban(self, standing: Standing, reason: Refused) -> None:
        """Take nothing more from a source that was caught with wrong bytes (attack row 11)."""
        with self._lock:
            standing.banned = standing.banned or reason.reason

    def banned(self) -> dict[str, str]:
        """Return the names of banned sources, and why they are."""
        with self._lock:
            return {item.source.name: item.banned for item in self._standings if item.banned}

    def received(self) -> dict[str, int]:
        """Return how many bytes of blobs each source delivered."""
        with self._lock:
            return {item.source.name: item.received for item in self._standings if item.received}

    def nobody_left(self) -> Unavailable | Refused:
        """Return, for the caller to raise, that every source is out; or that there is none."""
        banned = self.banned()
        silent = [item.source.name for item in self._standings if self._is_silent(item)]
        if silent:
            problem = f"{', '.join(silent)}: waited {self.patience.vain:g} seconds in all, in vain"
            return Unavailable("; ".join([problem, *banned.values()]), _SILENT, Gate.FETCH)
        if banned:
            return Refused(Gate.FETCH, "; ".join(banned.values()), ADVICE)
        return Unavailable("there is no source to fetch from", "name a mirror", Gate.FETCH)

    def close(self) -> None:
        """Close all sources."""
        for source in self.sources:
            with suppress(OSError):
                source.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def pause(self, seconds: float, go_on: Callable[[], None] | None = None) -> None:
        """Wait for a busy source.

        Args:
            seconds: How long.
            go_on: Called now and then, and at the end; may raise to stop.
        """
        while go_on and seconds > 0:
            self.sleep(min(LOOK, seconds))
            seconds -= LOOK
            go_on()
        if seconds > 0:
            self.sleep(seconds)

    def _in_turn(
        self,
        tried: list[Standing],
        ask: Callable[[Source], bytes],
        go_on: Callable[[], None] | None = None,
        *,
        everywhere: bool = False,
    ) -> bytes:
        """Ask one source after the other, and again those with which that may help.

        Args:
            tried: The sources, in order.
            ask: Asks one.
            go_on: See `pause`.
            everywhere: Go on where a source says that there is no such file.
        """
        so_far = _SoFar()
        for attempt in range(1, self.patience.tries + 1):
            data = self._go_round(tried, ask, so_far, everywhere=everywhere)
            if data is not None:
                return data
            tried = [
                standing
                for standing in tried
                if standing.order in so_far.wishes and not self.is_out(standing)
            ]
            if not tried:
                break
            if attempt < self.patience.tries:
                wish = min(so_far.wishes.values())
                self.pause(self.patience.before_try(attempt, wish), go_on)
        raise so_far.error or self.nobody_left()

    def _go_round(
        self,
        tried: list[Standing],
        ask: Callable[[Source], bytes],
        so_far: "_SoFar",
        *,
        everywhere: bool,
    ) -> bytes | None:
        so_far.wishes = {}
        for place, standing in enumerate(tried):
            try:
                data = ask(standing.source)
            except Refused as error:
                self.ban(standing, error)
            except Unavailable as error:
                if isinstance(error, NotFound) and not everywhere:
                    busy = [other for other in tried[:place] if other.order in so_far.wishes]
                    if not self._know_better([*busy, *tried[place + 1 :]], standing):
                        standing.failures = 0
                        raise
                    so_far.absent = so_far.absent or error
                else:
                    self.failed(standing, error)
                    so_far.failed(standing, error)
            else:
                standing.failures = 0
                # Not all: who answers and is silent by turns would cost its time for ever.
                self.made_good(standing, len(data), self.patience.connect / ANSWERS)
                return data
        return None

    def _know_better(self, others: Sequence[Standing], than: Standing) -> bool:
        """Tell whether any of the others is nearer to the origin, and was not given up yet."""
        return any(
            _NEAR[other.source.kind] < _NEAR[than.source.kind]
            and not self.is_out(other)
            and other.failures < self.patience.tries
            for other in others
        )

    def _for_documents(self) -> list[Standing]:
        """Return the order for documents: nearest to the origin first, who just failed last."""
        with self._lock:
            return sorted(
                (standing for standing in self._standings if not self._is_silent(standing)),
                key=lambda item: (
                    bool(item.banned), item.failures, _NEAR[item.source.kind], item.order,
                ),
            )  # fmt: skip

    def _is_silent(self, standing: Standing) -> bool:
        return standing.vain > self.patience.vain


def of_addresses(
    origin: str,
    mirrors: Iterable[str],
    http: Http,
    patience: Patience,
    more: Iterable[Source] = (),
) -> Sources:
    """Return the sources of a configuration: its repository, mirrors of it, and others.

    Args:
        origin: The repository's address.
        mirrors: Addresses of mirrors.
        http: A client that tries each server once.
        patience: How often to go round them.
        more: Further sources, such as neighbours.
    """
    found: list[Source] = [HttpSource(origin, http)]
    found += [HttpSource(url, http, Kind.MIRROR) for url in mirrors]
    return Sources([*found, *more], patience, http.clock, http.sleep)


def wrong(name: str, what: str) -> Refused:
    """Return, for the caller to raise, that a source delivered something else."""
    return Refused(Gate.FETCH, f"{name} delivered {what}", ADVICE)


def at_fetch(error: Unavailable) -> Unavailable:
    """Return an error with the gate and the advice of fetching."""
    error.gate = error.gate or Gate.FETCH
    error.advice = error.advice or "try again: what arrived whole is kept and not fetched twice"
    return error


@dataclass
class _SoFar:
    """How sources failed to deliver a document.

    Attributes:
        problem: The first problem, of who should have it; rather one that may be over soon.
        absent: That somebody says there is no such document, which was not believed yet.
        wishes: After how many seconds to ask again, of whom that may help.
    """

    problem: Unavailable | None = None
    absent: NotFound | None = None
    wishes: dict[int, float] = field(default_factory=dict)

    def failed(self, standing: Standing, error: Unavailable) -> None:
        self.problem = rather(self.problem, error)
        if error.again is not None:
            self.wishes[standing.order] = error.again

    @property
    def error(self) -> Unavailable | None:
        """What to raise. Who might have had it is to blame for absence, too."""
        if self.problem is None or self.absent is None:
            return self.problem or self.absent
        error = NotFound(f"{self.problem.reason}; {self.absent.reason}", self.absent.status)
        error.again = self.problem.again
        return error


def rather(first: Unavailable | None, error: Unavailable) -> Unavailable:
    """Return of two problems the one to tell of: the first, but rather one that may pass."""
    if first is None or (first.again is None and error.again is not None):
        return error
    return first


def _read(source: Source, blob: Blob, go_on: Callable[[], None]) -> bytes:
    """Return a blob that may take a while."""
    data = bytearray(blob.length)
    view, filled = memoryview(data), 0
    reader = source.open(blob, 0, blob.length)
    try:
        while count := reader.readinto(view[filled:] or memoryview(bytearray(1))):
            filled += count
            go_on()
    finally:
        reader.close()
    return bytes(view[:filled])


def _check(name: str, data: bytes, blob: Blob) -> None:
    if len(data) != blob.length:
        raise wrong(name, f"{len(data)} bytes instead of {blob.length}")
    if hashlib.sha256(data).hexdigest() != blob.sha256:
        raise wrong(name, "other content than its name says")
