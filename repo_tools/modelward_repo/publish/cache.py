"""What publishing has found out before, so that it is not found out again.

::

    seen/<device>-<inode>.json       what a file was when it was hashed, and its digest
    made/<name>.json                 what was made of a file, or of two, by their digests
    made/<name>.bin                  it, until it is in the repository
    made/<name>.chunks.bin           its own chunk index, if it has one

Every file appears whole, in one rename, as soon as its work is done: a publisher that was killed
finds there what it had done. All of it may be deleted at any time.
"""

import json
import os
import secrets
import stat
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from modelward.errors import FormatError
from modelward.formats import strict
from modelward.formats.release import Blob

SETTLED = 2.0  # seconds: a file changed later than that may change again within one time stamp
_SEEN, _MADE = "seen", "made"
_CAP = 4096  # bytes of a note


@dataclass(frozen=True)
class Made:
    """What was made of a file.

    Attributes:
        blob: What it is; None if it turned out not to be worth having.
        memory: Bytes of memory that using it takes.
        chunks: Its own chunk index, if it has one; kept under `index_name`.
    """

    blob: Blob | None
    memory: int = 0
    chunks: Blob | None = None


def index_name(name: str) -> str:
    """Return under which name the chunk index is kept of what was made under a name."""
    return f"{name}.chunks"


@dataclass(frozen=True)
class Cache:
    """A directory of what was found out.

    Attributes:
        directory: Where it is; made when something is kept.
        trust_times: Whether a file whose status is the same is taken to be the same.
        clock: The time in seconds, as files have it.
    """

    directory: Path
    trust_times: bool = True
    clock: Callable[[], float] = time.time

    # --- files, by their status

    def digest(self, status: os.stat_result) -> str | None:
        """Return the digest of a file that was hashed before and has not changed since."""
        note = self._read(self._seen(status)) if self.trust_times else None
        if note is None or note.get("status") != _identity(status):
            return None
        digest = note.get("sha256")
        return digest if isinstance(digest, str) and strict.SHA256.fullmatch(digest) else None

    def learn(self, status: os.stat_result, sha256: str, *, ours: bool = False) -> None:
        """Keep the digest of a file that has just been hashed and had this status throughout.

        Args:
            status: The file's status.
            sha256: Its digest.
            ours: Whether this program wrote the file, under a name that is never written again.
        """
        changed = max(status.st_mtime_ns, status.st_ctime_ns) / 1e9
        if stat.S_ISREG(status.st_mode) and (ours or self.clock() - changed >= SETTLED):
            # A file changed just now could change again without its times telling.
            self._write(self._seen(status), {"status": _identity(status), "sha256": sha256})

    def carry(self, before: os.stat_result, after: os.stat_result) -> None:
        """Keep what is known of a file to which this program itself gave or took a name.

        That changes the time of its last change of status, and nothing else.
        """
        known = self.digest(before)
        if known and _identity(before)[:-1] == _identity(after)[:-1]:
            self._write(self._seen(after), {"status": _identity(after), "sha256": known})

    # --- what was made, by the digests of what it was made of

    def made(self, name: str) -> Made | None:
        """Return what was made under a name, or None."""
        note = self._read(self._note(name))
        if note is None:
            return None
        try:
            fields = strict.Fields(name, note)
            if not fields.has("sha256"):
                return Made(None)
            blob = Blob(fields.sha256("sha256"), fields.integer("length"))
            index = fields.fields("chunks") if fields.has("chunks") else None
            chunks = Blob(index.sha256("sha256"), index.integer("length")) if index else None
            return Made(blob, fields.integer("memory"), chunks)
        except FormatError:
            return None

    def keep(self, name: str, made: Made) -> None:
        """Note what was made under a name; its content must be at `content` already."""
        note = {"memory": made.memory, **asdict(made.blob)} if made.blob else {}
        if made.chunks:
            note["chunks"] = asdict(made.chunks)
        self._write(self._note(name), note)

    def content(self, name: str) -> Path:
        """Return where the content of what was made is, or is to be."""
        return self.directory / _MADE / f"{name}.bin"

    def aside(self) -> Path:
        """Return a path to make something at before it is renamed to its place."""
        self._make(self.directory / _MADE)
        return self.directory / _MADE / f".tmp-{secrets.token_hex(8)}"

    def forget_content(self, name: str) -> None:
        """Remove the content of what was made: it is in the repository."""
        self.content(name).unlink(missing_ok=True)

    def sweep(self, age: float = 24 * 3600.0) -> None:
        """Remove what killed publishers left half-made."""
        for path in (self.directory / _MADE).glob(".tmp-*"):
            with suppress(OSError):
                if self.clock() - path.stat().st_mtime > age:
                    path.unlink()

    def _seen(self, status: os.stat_result) -> Path:
        return self.directory / _SEEN / f"{status.st_dev}-{status.st_ino}.json"

    def _note(self, name: str) -> Path:
        return self.directory / _MADE / f"{name}.json"

    def _read(self, path: Path) -> Mapping[str, Any] | None:
        try:
            note = json.loads(path.read_bytes()[:_CAP])
        except (OSError, ValueError, RecursionError):
            return None
        return note if isinstance(note, dict) else None

    def _write(self, path: Path, note: Mapping[str, Any]) -> None:
        self._make(path.parent)
        aside = path.with_name(f".tmp-{secrets.token_hex(8)}")
        try:
            aside.write_bytes(strict.dump(note))
            aside.replace(path)
        finally:
            aside.unlink(missing_ok=True)

    def _make(self, directory: Path) -> None:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)


def _identity(status: os.stat_result) -> list[int]:
    return [
        status.st_dev,
        status.st_ino,
        status.st_size,
        status.st_mtime_ns,
        status.st_ctime_ns,
    ]
