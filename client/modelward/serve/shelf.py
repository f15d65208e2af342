"""What a device has to give, by the paths that a repository has: blobs, metadata, log, targets.

Nothing else of the state directory exists as far as neighbours are concerned: no keys, no
configuration, no reports.
"""

import contextlib
import hashlib
import json
import os
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Any, BinaryIO

from modelward import plain_file
from modelward.device import Device
from modelward.errors import Unavailable
from modelward.formats.have import Have
from modelward.install import hashing, partial
from modelward.install.targets import TargetStore, digest_in
from modelward.neighbours import neighbour_id

METADATA_CAP = 8 << 20  # bytes of a metadata file
IMMUTABLE = "public, max-age=31536000, immutable"
CHANGING = "no-cache"
SELDOM = 20  # times as long as a journal took to read, before it is read for its new lines
_BLOB = re.compile(r"blobs/sha256/([0-9a-f]{2})/(\1[0-9a-f]{62})")
_ROOT = re.compile(r"metadata/([1-9][0-9]{0,15})\.root\.json")
_ROLE = re.compile(r"metadata/([1-9][0-9]{0,15})\.([A-Za-z0-9_%+-][A-Za-z0-9._%+-]*)\.json")


@dataclass(frozen=True)
class Offer:
    """Something that can be served.

    Attributes:
        content: An open file, which whoever takes the offer closes, or bytes.
        length: Bytes.
        etag: What tells it from another version of it, without quotes.
        caching: The value of Cache-Control.
    """

    content: BinaryIO | bytes
    length: int
    etag: str
    caching: str = IMMUTABLE


class Shelf:
    """Looks up what a device has.

    Args:
        device: The device.
        clock: Monotonic seconds.
    """

    def __init__(self, device: Device, clock: Callable[[], float] = time.monotonic) -> None:
        self._device = device
        self._clock = clock
        self._reading = Lock()
        self._read: dict[Path, _Read] = {}
        self._looking = Lock()  # into metadata: for many neighbours it takes the memory of one
        self._targets = TargetStore(device.config.state)
        self.neighbour = neighbour_id(device)
        self._versions: dict[Path, tuple[tuple[int, int, int], int]] = {}

    def find(self, path: str) -> Offer | None:
        """Return what is at a path, or None.

        Args:
            path: As a repository has it, without a first slash.
        """
        if match := _BLOB.fullmatch(path):
            return _file(self._device.store.path(match[2]), match[2])
        if path == "metadata/timestamp.json":
            return self._metadata(self._device.cache / "timestamp.json", caching=CHANGING)
        if path == "log/checkpoint":
            return _bytes(self.checkpoint())
        if match := _ROOT.fullmatch(path):
            return self._metadata(self._device.cache / "root_history" / f"{match[1]}.root.json")
        if match := _ROLE.fullmatch(path):
            return self._metadata(self._device.cache / f"{match[2]}.json", int(match[1]))
        sha256 = digest_in(path)
        return _file(self._targets.path(sha256), sha256) if sha256 else None

    def part(self, sha256: str) -> Offer | None:
        """Return the file of a blob that is here or being fetched; `have` says what is in it."""
        whole = _file(self._device.store.path(sha256), sha256)
        return whole or _file(self._device.store.partial_path(sha256), f"{sha256}-part")

    def have(self, sha256: str) -> Have:
        """Return what there is of a blob. Of one being fetched: what an index checked."""
        for path, is_whole in (
            (self._device.store.path(sha256), True),
            (self._device.store.partial_path(sha256), False),
        ):
            try:
                length = path.lstat().st_size
            except OSError:
                continue
            wants, here, coming = (
                (True, [(0, length)], []) if is_whole else self._there(path, length)
            )
            return Have(self.neighbour, wants=wants, extents=tuple(here), coming=tuple(coming))
        return Have(self.neighbour)

    def checkpoint(self) -> bytes | None:
        """Return the newest checkpoint of the log that this device believes, or None."""
        with contextlib.suppress(Unavailable):  # whoever serves may be another user, who cannot
            state = self._device.log.load()
            return state.signed.to_bytes() if state else None
        return None

    def _there(self, path: Path, length: int) -> tuple[bool, partial.Parts, partial.Parts]:
        """Return what `partial.there` does of a blob that is being fetched.

        All neighbours ask, and ask again for every piece, while its journal grows: of a large blob,
        it would be read all the time. What it said is true until it is begun anew.
        """
        with self._reading:
            now = self._clock()
            try:
                status = partial.journal_of(path).stat()
            except OSError:
                return False, [], []
            known = self._read.get(path)
            if known and known.still_holds(status, now):
                return known.said
            said = partial.there(path, length)
            end = self._clock()
            for gone in [each for each in self._read if not partial.journal_of(each).exists()]:
                del self._read[gone]  # so there are never more than files that are begun
            self._read[path] = _Read(status, end + SELDOM * (end - now), said)
            return said

    def _metadata(
        self, path: Path, version: int | None = None, caching: str = IMMUTABLE
    ) -> Offer | None:
        """Return a file of TUF's cache, if it is of a version, or whichever it is of.

        It may be replaced at any time, but is never written to: tag, version and what is sent are
        of the one file that is opened here.
        """
        file = _open(path)
        if file is None:
            return None
        with self._looking, contextlib.suppress(OSError):
            if version is None or self._version(path, file) == version:
                sha256 = hashing.sha256_of(file.fileno())
                return Offer(file, os.fstat(file.fileno()).st_size, sha256, caching)
        file.close()
        return None

    def _version(self, path: Path, file: BinaryIO) -> int | None:
        """Return which version of a role's metadata a file is; parsed once for each."""
        try:
            status = os.fstat(file.fileno())
            stamp = (status.st_ino, status.st_mtime_ns, status.st_size)
            known = self._versions.get(path)
            if known is None or known[0] != stamp:
                # Its bytes go before it is parsed, and of what is parsed all but the version.
                text = plain_file.content(file.fileno(), METADATA_CAP).decode()
                found = json.loads(text, object_hook=_only_version)
                known = self._versions[path] = (stamp, int(found["signed"]["version"]))
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            return None
        return known[1]


@dataclass(frozen=True)
class _Read:
    """What a journal said: how it looked before, until when its new lines can wait, and that."""

    status: os.stat_result
    until: float
    said: tuple[bool, partial.Parts, partial.Parts]

    def still_holds(self, status: os.stat_result, now: float) -> bool:
        if status.st_ino != self.status.st_ino or status.st_size < self.status.st_size:
            return False
        unchanged = (status.st_size, status.st_mtime_ns) == (
            self.status.st_size,
            self.status.st_mtime_ns,
        )
        return unchanged or now < self.until


def _only_version(value: dict[str, Any]) -> dict[str, Any]:
    return {name: value[name] for name in ("signed", "version") if name in value}


def _bytes(data: bytes | None) -> Offer | None:
    if data is None:
        return None
    return Offer(data, len(data), hashlib.sha256(data).hexdigest(), CHANGING)


def _file(path: Path, sha256: str) -> Offer | None:
    """Return a file that never changes."""
    file = _open(path)
    return Offer(file, os.fstat(file.fileno()).st_size, sha256) if file else None


def _open(path: Path) -> BinaryIO | None:
    """Open a regular file; a symbolic link is not followed."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        plain_file.check(descriptor)
    except OSError:
        os.close(descriptor)
        return None
    return os.fdopen(descriptor, "rb")
