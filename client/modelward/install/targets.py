"""TUF targets that this device was handed, by digest: to hand them on to neighbours.

Nothing here is believed by anybody: whoever gets one verifies it from root on.
"""

import contextlib
import hashlib
import re
from pathlib import Path
from typing import Protocol

from modelward.install import fsops

FOLDER = "targets"
MAX_FILES = 64
MAX_BYTES = 16 << 20  # of all together; the oldest give way
_BY_DIGEST = re.compile(r"targets/(?:.*/)?([0-9a-f]{64})\.[^/]*")


class TargetStore:
    """Keeps targets.

    Args:
        state: The state directory.
    """

    def __init__(self, state: Path) -> None:
        self._folder = state / FOLDER

    def path(self, sha256: str) -> Path:
        """Return where a target is, or would be."""
        return self._folder / sha256

    def prepare(self) -> None:
        """Keep targets from now on: somebody may ask for them."""
        fsops.make_directory(self._folder)

    def is_kept(self) -> bool:
        """Tell whether targets are kept: nobody may ever have asked for that here."""
        return self._folder.is_dir()

    def keep(self, path: str, data: bytes) -> None:
        """Keep what was served under a path, if it is a target that has the digest in its name."""
        sha256 = digest_in(path)
        if not self.is_kept():
            return  # this device serves nobody
        if sha256 is None or len(data) > MAX_BYTES or self.path(sha256).exists():
            return
        if hashlib.sha256(data).hexdigest() == sha256:
            fsops.write_file(self.path(sha256), data)
            self._drop()

    def _drop(self) -> None:
        fsops.sweep(self._folder)
        total = 0
        newest = sorted(self._folder.iterdir(), key=_age, reverse=True)
        for number, path in enumerate(newest):
            with contextlib.suppress(OSError):
                total += path.stat().st_size
                if number >= MAX_FILES or total > MAX_BYTES:
                    fsops.remove(path)


class Fetcher(Protocol):
    """Fetches small documents by their path in a repository."""

    def fetch(self, url: str, limit: int) -> bytes:
        """Return a document of at most `limit` bytes."""
        ...


class Keeping:
    """Fetches documents, and keeps those that are targets.

    Args:
        fetcher: Fetches them.
        store: Where they are kept.
    """

    def __init__(self, fetcher: Fetcher, store: TargetStore) -> None:
        self._fetcher = fetcher
        self._store = store

    def fetch(self, url: str, limit: int) -> bytes:
        """Return a document; see `Fetcher`."""
        data = self._fetcher.fetch(url, limit)
        with contextlib.suppress(OSError):
            self._store.keep(url, data)
        return data


def digest_in(path: str) -> str | None:
    """Return the SHA-256 digest in the path of a target as it is served, or None."""
    match = _BY_DIGEST.fullmatch(path)
    return match[1] if match else None


def _age(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0
