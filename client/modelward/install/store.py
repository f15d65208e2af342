"""The store: every blob once, named by its digest, however many releases share it."""

import hashlib
import os
import re
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from modelward.formats.release import Blob, ReleaseFile
from modelward.formats.seal import Look
from modelward.install import fsops
from modelward.install.file_system import make_writes_show
from modelward.install.opened import Folder, look
from modelward.install.partial import FOLDER, JOURNAL, Partial
from modelward.trust.model_format import Reader

_DIGEST = re.compile("[0-9a-f]{64}")


class Store:
    """Blobs by digest, all in one directory: a device has hundreds at most.

    Args:
        root: The store's directory.
    """

    def __init__(self, root: Path) -> None:
        self._root = root

    def path(self, sha256: str) -> Path:
        """Return where a blob is, or would be."""
        return self._root / sha256

    def has(self, blob: Blob) -> bool:
        """Tell whether a blob of that length is here. Its content is checked when it is used."""
        try:
            status = self.path(blob.sha256).lstat()
        except OSError:
            return False
        return status.st_size == blob.length

    def add(self, blob: Blob, blocks: Iterable[memoryview]) -> None:
        """Write a blob. It appears only if `blocks` ends without an error.

        Args:
            blob: What it is.
            blocks: Its bytes, verified by whoever yields them before the last one returns.
        """
        path = self.path(blob.sha256)
        fsops.make_directory(path.parent)
        with fsops.new_file(path, 0o444) as descriptor:
            fsops.write_blocks(descriptor, blocks)

    def partial(self, blob: Blob) -> Partial:
        """Return a blob that is not whole yet, with what was kept of it; a context manager."""
        return Partial(self._root / FOLDER, self.path(blob.sha256), blob.length)

    def reserve(self, blobs: Iterable[Blob]) -> None:
        """Reserve room for blobs that are about to be brought, where the file system can.

        Raises:
            OSError: There is no room for all of them. None is reserved that was not begun before.
        """
        fresh = []
        for blob in blobs:
            partial = self.partial(blob)
            if not partial.extents:
                fresh.append(blob.sha256)
            try:
                with partial:
                    pass
            except OSError:
                for digest in fresh:
                    fsops.remove(self.partial_path(digest))
                    fsops.remove(self._root / FOLDER / f"{digest}{JOURNAL}")
                raise

    def partial_path(self, sha256: str) -> Path:
        """Return where a blob is, or would be, that is not whole yet."""
        return self._root / FOLDER / sha256

    def begun(self, wanted: Collection[str]) -> int:
        """Return the bytes on disk that blobs take which are not whole yet.

        Args:
            wanted: The digests of those to count.
        """
        paths = [path for digest, path in self.partials() if digest in wanted]
        return sum(path.lstat().st_blocks * 512 for path in paths)  # the unit of stat(2)

    def partials(self) -> list[tuple[str, Path]]:
        """Return the digest and path of all that is here of blobs that are not whole yet."""
        folder = self._root / FOLDER
        paths = sorted(folder.iterdir()) if folder.is_dir() else []
        return [(path.name.removesuffix(JOURNAL), path) for path in paths]

    def look(self, sha256: str) -> Look | None:
        """Return how a blob that is here looks on disk; None if a write to it might not show."""
        with Folder(self._root) as folder:
            descriptor = folder.open(sha256)
        try:
            return look(descriptor) if make_writes_show(descriptor) else None
        finally:
            os.close(descriptor)

    def link(self, blob: Blob, copy: Path) -> None:
        """Take an intact copy, by hard link, for a blob that is missing or damaged."""
        path = self.path(blob.sha256)
        fsops.make_directory(path.parent)
        fsops.remove(path)
        fsops.link(copy, path)
        fsops.sync_directory(path.parent)

    def open(self, sha256: str) -> BinaryIO:
        """Open a blob that is here for reading, unbuffered.

        Raises:
            OSError: It is not here, or cannot be read.
        """
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC
        return os.fdopen(os.open(self.path(sha256), flags), "rb", buffering=0)

    def read(self, blob: Blob) -> bytes | None:
        """Return a small blob's content if it is here and intact, else None."""
        try:
            with Folder(self._root) as folder:
                data = folder.read(blob.sha256, blob.length)
        except OSError:
            return None
        return data if hashlib.sha256(data).hexdigest() == blob.sha256 else None

    @contextmanager
    def reader(self, file: ReleaseFile) -> Iterator[Reader]:
        """Open a file of a release, to be read here and there."""
        with self.path(file.blob.sha256).open("rb") as opened:
            yield Reader(
                file.path,
                os.fstat(opened.fileno()).st_size,
                lambda offset, length: os.pread(opened.fileno(), length, offset),
            )

    def is_intact(self, blob: Blob) -> bool:
        """Tell whether a blob is here and is what its name says."""
        try:
            with Folder(self._root) as folder:
                return folder.digest(blob.sha256) == blob.sha256
        except OSError:
            return False

    def remove(self, sha256: str) -> None:
        """Remove a blob."""
        fsops.remove(self.path(sha256))

    def digests(self) -> Iterator[str]:
        """Yield the digest of every blob that is here."""
        if self._root.is_dir():
            names = sorted(path.name for path in self._root.iterdir())
            yield from filter(_DIGEST.fullmatch, names)

    def lengths(self) -> dict[str, int]:
        """Return the length in bytes of every blob that is here, by digest."""
        return {digest: self.path(digest).lstat().st_size for digest in self.digests()}

    def sweep(self) -> None:
        """Remove what interrupted writes left behind."""
        for folder in (self._root, self._root / FOLDER):
            fsops.sweep(folder)

    def free(self) -> int:
        """Return the free bytes of the store's file system that this user may fill."""
        status = os.statvfs(self._root if self._root.is_dir() else self._root.parent)
        return status.f_bavail * status.f_frsize
