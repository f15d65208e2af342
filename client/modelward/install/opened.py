"""Opening what is installed: the file itself, never what somebody made its path lead to.

Below a folder that was opened no symbolic link is followed, and nothing but a regular file is
read: a pipe would make the reader wait for ever, a device would never end (attack row 29).
"""

import errno
import io
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO, Self

from modelward import plain_file
from modelward.errors import Unavailable
from modelward.formats.seal import Look
from modelward.install.hashing import sha256_of

DEEPEST = 64  # folders within each other that are looked into; no release has so many
_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC
# What a process may not do says nothing about the files.
EXHAUSTED = (errno.EMFILE, errno.ENFILE, errno.ENOMEM)
NOT_ALLOWED = (*EXHAUSTED, errno.EACCES, errno.EPERM)


class Folder:
    """A folder that is held open, so that all its files are of one release.

    Args:
        path: Where it is. Links in this path are followed: it is where one was told to look.

    Raises:
        OSError: There is no such folder.
    """

    def __init__(self, path: Path) -> None:
        self._descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)

    def enter(self, path: str) -> None:
        """Go into a folder below.

        Raises:
            OSError: There is none, or a part of the path is a symbolic link.
        """
        for part in path.split("/"):
            inner = os.open(part, _FLAGS | os.O_DIRECTORY, dir_fd=self._descriptor)
            os.close(self._descriptor)
            self._descriptor = inner

    def open(self, path: str) -> int:
        """Open a regular file below and return its descriptor.

        Raises:
            OSError: There is none, it is something else, or a part of the path is a link.
        """
        *parents, name = path.split("/")
        folder = self._descriptor
        try:
            for part in parents:
                inner = os.open(part, _FLAGS | os.O_DIRECTORY, dir_fd=folder)
                self._leave(folder)
                folder = inner
            # Not to wait for somebody who never writes: the name may be a pipe's.
            return _regular(os.open(name, _FLAGS | os.O_NONBLOCK, dir_fd=folder))
        finally:
            self._leave(folder)

    def read(self, path: str, cap: int) -> bytes:
        """Return a small file's content.

        Raises:
            OSError: It cannot be opened, or is longer than `cap` bytes.
        """
        descriptor = self.open(path)
        try:
            return plain_file.content(descriptor, cap)
        finally:
            os.close(descriptor)

    def names(self) -> list[str]:
        """Return the names that it has.

        Raises:
            OSError: They cannot be read.
        """
        with os.scandir(self._descriptor) as entries:
            return [entry.name for entry in entries]

    def digest(self, path: str, progress: Callable[[int], object] | None = None) -> str:
        """Return the SHA-256 digest of a regular file below.

        Args:
            path: The file.
            progress: Told of bytes as they are hashed.

        Raises:
            OSError: It cannot be opened or read.
        """
        descriptor = self.open(path)
        try:
            return sha256_of(descriptor, progress)
        finally:
            os.close(descriptor)

    def look(self, path: str) -> Look:
        """Return how a regular file below looks.

        Raises:
            OSError: It cannot be opened.
        """
        descriptor = self.open(path)
        try:
            return look(descriptor)
        finally:
            os.close(descriptor)

    def close(self) -> None:
        """Let go of it."""
        os.close(self._descriptor)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _leave(self, descriptor: int) -> None:
        if descriptor != self._descriptor:
            os.close(descriptor)


def open_file(folder: Path, path: str) -> BinaryIO:
    """Open a regular file below a folder for reading; see `Folder.open`."""
    with Folder(folder) as opened:
        return os.fdopen(opened.open(path), "rb")


def problem_of(error: OSError) -> str:
    """Return what is wrong with a file that its owner could not read.

    Raises:
        Unavailable: Nothing: the device is short of memory, or of files that may be open.
    """
    if error.errno in EXHAUSTED:
        raise Unavailable(
            f"what is kept cannot be read now: {error.strerror}", "see what takes so much, and wait"
        ) from error
    return f"cannot be read: {error.strerror}"


def read_file(path: Path, cap: int) -> bytes:
    """Return a small file's content. Links to it are followed, unlike below a `Folder`.

    Raises:
        OSError: It cannot be opened, is something else than a file, or is longer than `cap` bytes.
    """
    real = Path(os.path.realpath(path))
    with Folder(real.parent) as folder:
        return folder.read(real.name, cap)


def files_below(folder: Path, unread: Callable[[OSError], object] | None = None) -> Iterator[Path]:
    """Yield everything below a folder but folders; links are not followed.

    Of folders within each other, that which is `DEEPEST` is yielded, and not looked into: somebody
    may have made any number of them (attack row 29).

    Args:
        folder: The folder.
        unread: Is told of each folder that cannot be read, whose files are left out.
    """
    ahead = [(folder, 0)]
    while ahead:
        place, depth = ahead.pop()
        try:
            with os.scandir(place) as entries:
                inner = [(entry.name, entry.is_dir(follow_symlinks=False)) for entry in entries]
        except OSError as error:
            if unread:
                unread(error)
            continue
        for name, is_folder in inner:
            if is_folder and depth + 1 < DEEPEST:
                ahead.append((place / name, depth + 1))
            else:
                yield place / name


def _regular(descriptor: int) -> int:
    try:
        plain_file.check(descriptor)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def look(descriptor: int) -> Look:
    """Return how an open file looks."""
    status = os.fstat(descriptor)
    return Look(
        status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns
    )


def content(descriptor: int) -> bytes:
    """Return all of an open file, wherever it stands: threads and forked processes share that."""
    data = io.BytesIO(bytes(os.fstat(descriptor).st_size))  # hands out what it has, without a copy
    offset = 0
    with data.getbuffer() as view:
        while count := os.preadv(descriptor, [view[offset:]], offset):
            offset += count
    data.truncate(offset)
    return data.getvalue()


def same_content(one: Look, other: Look) -> bool:
    """Tell whether nobody wrote to a file between two looks at it, though it got a second name."""
    return one._replace(changed=other.changed) == other
