"""The only module that writes lasting state. When a function returns, its work is durable.

Durable means that the file, its directory entry and the directory's own entry have been synced:
after a power cut the change is there, whole. Everything that may be read by others is made aside
and appears in one atomic rename.
"""

import contextlib
import errno
import fcntl
import os
import secrets
import shutil
import stat
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

from modelward.errors import Gate, Unavailable, UsageError

WRITE = 256 << 10  # bytes per write to the page cache
_TEMPORARY = ".tmp-"
_UNABLE = (errno.EPERM, errno.ENOSYS, errno.ENOTSUP, errno.EINVAL)  # of a file system that cannot


def sync_directory(path: Path) -> None:
    """Make a directory's entries durable."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def make_directory(path: Path, mode: int = 0o755) -> None:
    """Create a directory and its missing parents."""
    if path.is_dir():
        return
    make_directory(path.parent, mode)
    with contextlib.suppress(FileExistsError):
        path.mkdir(mode)
    sync_directory(path.parent)


@contextlib.contextmanager
def new_file(path: Path, mode: int = 0o644) -> Iterator[BinaryIO]:
    """Open a file that appears at `path`, whole and durable, if the block ends without error.

    An existing file there is replaced; a reader sees the old one or the new one.
    """
    temporary = path.with_name(f"{_TEMPORARY}{secrets.token_hex(8)}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, mode)
    try:
        with os.fdopen(descriptor, "wb", buffering=0) as file:
            yield file
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync_directory(path.parent)


def write_file(path: Path, data: bytes, mode: int = 0o644) -> None:
    """Write a file whole, replacing an existing one."""
    with new_file(path, mode) as file:
        write_blocks(file, (memoryview(data),))


def write_blocks(file: BinaryIO, blocks: Iterable[memoryview]) -> None:
    """Write all blocks to an unbuffered file, a bounded piece at a time."""
    for block in blocks:
        view = block
        while view:
            view = view[file.write(view[:WRITE]) :]


def link(source: Path, destination: Path) -> None:
    """Give a file a second name; copy it where the file system has no hard links.

    The caller syncs the directory once all its links are made.
    """
    try:
        os.link(source, destination, follow_symlinks=False)
    except OSError as error:
        if error.errno not in (*_UNABLE, errno.EMLINK, errno.EXDEV):
            raise
        shutil.copyfile(source, destination, follow_symlinks=False)
        with destination.open("rb") as file:
            os.fsync(file.fileno())


def switch(path: Path, target: str) -> None:
    """Point the symbolic link `path` at `target`, atomically."""
    temporary = path.with_name(f"{_TEMPORARY}{secrets.token_hex(8)}")
    temporary.symlink_to(target)
    try:
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync_directory(path.parent)


def symlink(path: Path, target: str) -> None:
    """Make a symbolic link in a directory that is not in use yet; the caller syncs it."""
    path.symlink_to(target)


def rename(source: Path, destination: Path) -> None:
    """Move a directory that was made aside to its place."""
    source.rename(destination)
    sync_directory(destination.parent)
    if source.parent != destination.parent:
        sync_directory(source.parent)


def make_read_only(path: Path) -> None:
    """Take away everybody's right to write a file."""
    path.chmod(stat.S_IRUSR | stat.S_IRGRP | stat.S_IROTH)


def remove(path: Path) -> None:
    """Remove a file of any kind, a symbolic link or a whole tree, if it is there."""
    if path.is_dir() and not path.is_symlink():
        for folder, _, _ in os.walk(path):
            Path(folder).chmod(0o755)
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
    if path.parent.is_dir():
        sync_directory(path.parent)


def sweep(directory: Path) -> None:
    """Remove what interrupted writes left behind in a directory."""
    for path in directory.glob(f"{_TEMPORARY}*"):
        remove(path)


def check_file_system(directory: Path) -> None:
    """Require what the atomic switch rests on: symbolic links and atomic rename.

    Raises:
        UsageError: The file system cannot do it.
    """
    probe = directory / f"{_TEMPORARY}probe-{secrets.token_hex(4)}"
    try:
        switch(probe, "a")
        switch(probe, "b")
        works = str(probe.readlink()) == "b"
    except OSError as error:
        if error.errno not in _UNABLE:
            raise
        works = False
    finally:
        with contextlib.suppress(OSError):
            probe.unlink(missing_ok=True)
    if not works:
        raise UsageError(
            f"the file system of {directory} cannot replace a symbolic link atomically",
            "put the state directory on ext4, XFS, btrfs or another POSIX file system",
        )


def never(_holder: str) -> bool:
    """Do not wait for whoever holds a lock."""
    return False


@contextlib.contextmanager
def lock(
    path: Path,
    doing: str = "is updating this device",
    keep_waiting: Callable[[str], bool] = never,
) -> Iterator[None]:
    """Hold a lock of a state directory. It ends with the process, however that ends.

    Args:
        path: The lock's file.
        doing: What somebody who holds it does, for the error.
        keep_waiting: Called with the id of the process that holds it; waits for a moment and
            returns true to try again.

    Raises:
        Unavailable: Another process holds it.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        while not _locked(descriptor):
            holder = os.pread(descriptor, 32, 0).decode(errors="replace").strip() or "unknown"
            if not keep_waiting(holder):
                raise Unavailable(
                    f"another modelward (process {holder}) {doing}",
                    "wait for it to finish, then try again",
                    Gate.RECOVER,
                )
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, str(os.getpid()).encode(), 0)
        yield
    finally:
        os.close(descriptor)


def _locked(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
