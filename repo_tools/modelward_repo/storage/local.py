"""A repository in a local directory."""

import fcntl
import hashlib
import os
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from modelward.errors import ModelwardError
from modelward.formats.release import Blob
from modelward_repo.storage import Advance, quietly

LOCK = ".lock"
PARTIAL = ".partial"
PIECE = 1 << 20  # bytes copied at a time
POLL = 0.05  # seconds between two looks at a lock that somebody else holds
STALE = 3600  # seconds without a write after which a partial file belongs to nobody
MODE = 0o644  # world-readable: another user's web server may serve the files


class StorageError(ModelwardError):
    """The repository's files cannot be read or written."""


class LocalStorage:
    """A repository in a directory of a local file system.

    New files are written under a hidden name, synced, and only then given their own name, so that
    a reader, a kill or a power cut never meets half a file. Hidden files are never served.

    Args:
        root: The directory.
    """

    def __init__(self, root: Path) -> None:
        self.root = root

    def read(self, path: str) -> bytes:
        """See `Storage.read`."""
        with self.open(path) as file:
            return file.read()

    def open(self, path: str) -> BinaryIO:
        """See `Storage.open`."""
        try:
            return (self.root / path).open("rb")
        except FileNotFoundError as error:
            raise StorageError(f"the repository {self.root} has no file {path}") from error
        except OSError as error:
            raise StorageError(f"{self.root / path} cannot be read: {error.strerror}") from error

    def place(self, path: str) -> Path | None:
        """See `Storage.place`."""
        return self.root / path if self.exists(path) else None

    def exists(self, path: str) -> bool:
        """See `Storage.exists`."""
        return (self.root / path).is_file()

    def size(self, path: str) -> int:
        """See `Storage.size`."""
        try:
            return (self.root / path).stat().st_size
        except OSError as error:
            raise StorageError(f"the repository {self.root} has no file {path}") from error

    def list(self, prefix: str) -> Iterator[str]:
        """See `Storage.list`."""
        for folder, folders, files in os.walk(self.root / prefix):
            folders.sort()
            for name in sorted(files):
                if not name.startswith("."):
                    yield (Path(folder) / name).relative_to(self.root).as_posix()

    def write_new(self, path: str, data: bytes) -> None:
        """See `Storage.write_new`."""
        if self.exists(path):
            if self.read(path) != data:
                raise _changed(path)
            return
        with self._writing(path) as file:
            file.write(data)

    def copy_new(self, path: str, source: BinaryIO, blob: Blob, advance: Advance = quietly) -> None:
        """See `Storage.copy_new`."""
        if self.exists(path):
            with self.open(path) as file:
                if pour(file, None, advance) != blob:
                    raise _changed(path)
            return
        with self._writing(path) as file:
            if pour(source, file, advance) != blob:
                raise StorageError(
                    "a file of the bundle was changed while it was being published",
                    "let nothing else write there, then publish again",
                )

    def replace(self, path: str, data: bytes) -> None:
        """See `Storage.replace`."""
        with self._writing(path) as file:
            file.write(data)

    @contextmanager
    def lock(self, patience: float | None = None) -> Iterator[None]:
        """See `Storage.lock`."""
        with _storage_errors(LOCK):
            descriptor = os.open(self.root / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            _lock(descriptor, patience)
            self._sweep()
            yield
        finally:
            os.close(descriptor)

    @contextmanager
    def _writing(self, path: str) -> Iterator[BinaryIO]:
        """Write a file under a hidden name; it gets its own when the block succeeds."""
        target = self.root / path
        partial = self.root / PARTIAL / secrets.token_hex(16)
        with _storage_errors(path):
            _make_directory(partial.parent)
            _make_directory(target.parent)
        try:
            with _storage_errors(path):
                descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, MODE)
                with os.fdopen(descriptor, "wb") as file:
                    yield file
                    file.flush()
                    os.fsync(file.fileno())
                partial.rename(target)
                sync_directory(target.parent)
        except BaseException:
            partial.unlink(missing_ok=True)
            raise

    def _sweep(self) -> None:
        """Remove what killed publishers left half-written."""
        for partial in (self.root / PARTIAL).glob("*"):
            with suppress(OSError):
                if time.time() - partial.stat().st_mtime > STALE:
                    partial.unlink()


def sync_directory(path: Path) -> None:
    """Make the names in a directory outlive a power cut."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _lock(descriptor: int, patience: float | None) -> None:
    """Lock a file that others may have locked, waiting for as long as there is patience."""
    if patience is None:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        return
    deadline = time.monotonic() + patience
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            if time.monotonic() >= deadline:
                raise StorageError(
                    f"another publisher has kept the repository locked for {patience:g} seconds",
                    "see which modelward-repo is running there, and whether it is stuck",
                ) from error
            time.sleep(POLL)
        else:
            return


def _make_directory(path: Path) -> None:
    """Create a directory, with parents, each name synced."""
    if path.is_dir():
        return
    _make_directory(path.parent)
    path.mkdir(exist_ok=True)
    sync_directory(path.parent)


def pour(source: BinaryIO, target: BinaryIO | None, advance: Advance) -> Blob:
    """Copy, or only read, to the end; return what it was.

    Args:
        source: What to read.
        target: Where to copy it; None to read only.
        advance: Told how many more bytes are done.
    """
    digest = hashlib.sha256()
    length = 0
    while piece := source.read(PIECE):
        digest.update(piece)
        length += len(piece)
        if target is not None:
            target.write(piece)
        advance(len(piece))
    return Blob(digest.hexdigest(), length)


def _changed(path: str) -> StorageError:
    return StorageError(
        f"the repository already has a file {path} with other content",
        "published files never change: find out what wrote or damaged it",
    )


@contextmanager
def _storage_errors(path: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise StorageError(
            f"{path} cannot be written to the repository: {error.strerror}",
            "check permissions and free space; what was published before is untouched",
        ) from error
