"""The only module that writes lasting state. When a function returns, its work is durable.

Durable means that the file, its directory entry and the directory's own entry have been synced:
after a power cut the change is there, whole. Everything that may be read by others is made aside
and appears in one atomic rename. Its hands are `syscalls`.
"""

import contextlib
import errno
import fcntl
import os
import secrets
import stat
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from modelward.errors import Busy, Gate, Unavailable, UsageError
from modelward.install import syscalls, verity
from modelward.install.owner import check_owner

WRITE = 256 << 10  # bytes per write to the page cache
TEMPORARY = ".tmp-"
DAMAGED = ".damaged"  # what the name of anything ends with that was set aside
FULL = (errno.ENOSPC, errno.EDQUOT)  # what a full disk says
LOST = (errno.EIO, errno.EBADMSG, errno.EUCLEAN)  # what a disk says of what it cannot give back
_DEEPEST = 32  # folders within each other that are held open; no release has so many
_UNABLE = (errno.EPERM, errno.ENOSYS, errno.ENOTSUP, errno.EINVAL)  # of a file system that cannot
_NO_CLONE = (*_UNABLE, errno.ENOTTY, errno.EXDEV)
# Somebody writes to it, or it is another's; and the kernel's tree of hashes takes room, too.
_NO_VERITY = (*_NO_CLONE, errno.ETXTBSY, errno.EACCES, errno.EROFS, errno.ENOSPC, errno.EDQUOT)


def sync_directory(path: Path) -> None:
    """Make a directory's entries durable."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        syscalls.sync(descriptor)
    finally:
        os.close(descriptor)


def make_directory(path: Path, mode: int = 0o755) -> None:
    """Create a directory and its missing parents."""
    if path.is_dir():
        return
    make_directory(path.parent, mode)
    syscalls.make_directory(path, mode)
    sync_directory(path.parent)


def new_name(path: Path) -> Path:
    """Return a temporary name beside a path, which nothing has."""
    return path.with_name(f"{TEMPORARY}{secrets.token_hex(8)}")


def make_aside(path: Path) -> None:
    """Create a directory that is not in use yet; the caller syncs its parent."""
    syscalls.make_directory(path, 0o755)


@contextlib.contextmanager
def new_file(path: Path, mode: int = 0o644) -> Iterator[int]:
    """Make a file that appears at `path`, whole and durable, if the block ends without error.

    An existing file there is replaced; a reader sees the old one or the new one.

    Yields:
        A descriptor, for `write_blocks`.
    """
    with _replacing(path, mode) as descriptor:
        yield descriptor
    sync_directory(path.parent)


@contextlib.contextmanager
def _replacing(path: Path, mode: int) -> Iterator[int]:
    """Do what `new_file` does, but leave it to the caller to sync the directory."""
    temporary = new_name(path)
    descriptor = syscalls.create(temporary, mode)
    try:
        try:
            yield descriptor
            syscalls.sync(descriptor)
        finally:
            os.close(descriptor)
        if path.is_dir() and not path.is_symlink():  # which no rename of a file can replace
            set_aside(path)
        syscalls.rename(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):  # which must not hide what went wrong
            syscalls.unlink(temporary)
        raise


def write_file(path: Path, data: bytes, mode: int = 0o644) -> None:
    """Write a file whole, replacing an existing one."""
    with new_file(path, mode) as descriptor:
        write_blocks(descriptor, (memoryview(data),))


def write_copies(directory: Path, names: Iterable[str], data: bytes, mode: int = 0o644) -> None:
    """Write files of the same content, each whole, replacing existing ones.

    Each is on disk before it takes its name. So after a power cut each is the old one or the new
    one, whichever way their names got there, and one sync makes all of these certain.
    """
    for name in names:
        with _replacing(directory / name, mode) as descriptor:
            write_blocks(descriptor, (memoryview(data),))
    sync_directory(directory)


def write_aside(path: Path, data: bytes, mode: int = 0o644) -> None:
    """Write a file in a directory that is not in use yet; the caller syncs the directory."""
    descriptor = syscalls.create(path, mode)
    try:
        write_blocks(descriptor, (memoryview(data),))
        syscalls.sync(descriptor)
    finally:
        os.close(descriptor)


def write_blocks(descriptor: int, blocks: Iterable[memoryview]) -> None:
    """Write all blocks where a file stands, a bounded piece at a time."""
    for block in blocks:
        view = block
        while view:
            view = view[syscalls.write(descriptor, view[:WRITE]) :]


def link(source: Path, destination: Path) -> None:
    """Give a file a second name; where the file system has no hard links, a second body.

    The caller syncs the directory once all its links are made.
    """
    try:
        syscalls.link(source, destination)
    except OSError as error:
        if error.errno not in (*_UNABLE, errno.EMLINK, errno.EXDEV):
            raise
        _copy(source, destination)


def _copy(source: Path, destination: Path) -> None:
    """Copy a file, sharing its blocks where that can be had (btrfs, XFS)."""
    opened = os.open(source, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        copy = syscalls.create(destination, os.fstat(opened).st_mode & 0o777)
        try:
            try:
                syscalls.clone(opened, copy)
            except OSError as error:
                if error.errno not in _NO_CLONE:
                    raise
                write_blocks(copy, map(memoryview, iter(lambda: os.read(opened, WRITE), b"")))
            syscalls.sync(copy)
        finally:
            os.close(copy)
    finally:
        os.close(opened)


def enable_verity(path: Path) -> bool:
    """Let the kernel check a file's content at every read from now on.

    Returns:
        Whether it does. Most file systems cannot, or were not told to when they were made.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        if verity.measure(descriptor) is not None:
            return True
        _enable_verity(descriptor, path)
        syscalls.sync(descriptor)
    except OSError as error:
        if error.errno not in (*_NO_VERITY, errno.EEXIST):
            raise
        return error.errno == errno.EEXIST
    finally:
        os.close(descriptor)
    return True


def _enable_verity(descriptor: int, path: Path) -> None:
    try:
        syscalls.enable_verity(descriptor)
    except PermissionError:
        # Only who may write may see to it that nobody ever writes again.
        mode = stat.S_IMODE(os.fstat(descriptor).st_mode)
        syscalls.change_mode(path, mode | stat.S_IWUSR)
        try:
            syscalls.enable_verity(descriptor)
        finally:
            syscalls.change_mode(path, mode)


def switch(path: Path, target: str) -> None:
    """Point the symbolic link `path` at `target`, atomically."""
    temporary = new_name(path)
    syscalls.symlink(target, temporary)
    try:
        syscalls.rename(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):  # which must not hide what went wrong
            syscalls.unlink(temporary)
        raise
    sync_directory(path.parent)


def symlink(path: Path, target: str) -> None:
    """Make a symbolic link in a directory that is not in use yet; the caller syncs it."""
    syscalls.symlink(target, path)


def rename(source: Path, destination: Path) -> None:
    """Move what was made aside to its place, where nothing is, or a file or link gives way."""
    syscalls.rename(source, destination)
    sync_directory(destination.parent)
    if source.parent != destination.parent:
        sync_directory(source.parent)


def set_aside(path: Path) -> Path:
    """Give what is damaged, or in the way, another name, for people to look at; return that."""
    aside = path.with_name(f"{path.name}{DAMAGED}")
    remove(aside)  # what was set aside before
    rename(path, aside)
    return aside


def exchange(aside: Path, place: Path) -> None:
    """Let what was made aside take the place of another thing, which is removed.

    In one step where the file system can; else there is a moment in which nothing is there.
    """
    sync_directory(place.parent)  # what takes the place must be certain to be there
    if os.path.lexists(place):
        try:
            syscalls.exchange(aside, place)
        except OSError as error:
            if error.errno not in (*_UNABLE, errno.EXDEV):
                raise
            if _set_aside(place) == place:  # of a lower layer of overlayfs
                _remove_tree(place)
            syscalls.rename(aside, place)
    else:
        syscalls.rename(aside, place)
    sync_directory(place.parent)
    sweep(place.parent)


def remove(*paths: Path) -> None:
    """Remove files of any kind, symbolic links and whole trees, those of them that are there.

    A tree goes in one step, so that nobody ever takes a half of it for the whole. A power cut may
    bring parts of it back, under a temporary name: `sweep` is for them. So is a tree of which the
    disk has lost a folder: what is in that cannot be removed, and must not hold up anything else.
    """
    there = [path for path in paths if os.path.lexists(path)]
    trees = []
    for path in there:
        if path.is_dir() and not path.is_symlink():
            trees.append(_set_aside(path))
        else:
            _unlink(path)
    for directory in dict.fromkeys(path.parent for path in there):
        sync_directory(directory)
    for tree in trees:
        try:
            _remove_tree(tree)
        except OSError as error:
            if error.errno not in LOST or not tree.name.startswith(TEMPORARY):
                raise


def _set_aside(path: Path) -> Path:
    """Take a directory's name away, and return its new one. The caller syncs its parent.

    A directory of a lower layer of overlayfs keeps its name; so its own files go first, durably,
    without which nobody takes it for whole.
    """
    if path.name.startswith(TEMPORARY):
        return path
    aside = new_name(path)
    try:
        syscalls.rename(path, aside)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        for inner in sorted(path.iterdir()):
            if inner.is_symlink() or not inner.is_dir():
                syscalls.unlink(inner)
        sync_directory(path)
        return path
    return aside


def _remove_tree(path: Path) -> None:
    """Remove a tree, however deep it is and however long its paths are."""
    top = _enter(path)
    try:
        while _empty(top, top):
            pass
    finally:
        os.close(top)
    syscalls.remove_directory(path)


def _empty(folder: int, top: int, depth: int = 0) -> bool:
    """Remove what is in an open folder.

    Somebody may have made more folders within each other than may be open, or are allowed in a
    path: those below `_DEEPEST` are moved to the top of the tree (attack row 29).

    Returns:
        Whether any were, and are still to be removed there.
    """
    with os.scandir(folder) as entries:
        inner = sorted(entries, key=lambda entry: entry.name)
    moved = False
    for entry in inner:
        path = Path(entry.name)
        if not entry.is_dir(follow_symlinks=False):
            _unlink(path, folder)
            continue
        below = _enter(path, folder)
        try:
            if depth < _DEEPEST:
                moved |= _empty(below, top, depth + 1)
                syscalls.remove_directory(path, folder)
            else:
                aside = Path(f"{TEMPORARY}{secrets.token_hex(8)}")
                syscalls.rename(path, aside, folder, top)
                moved = True
        finally:
            os.close(below)
    return moved


def _enter(path: Path, folder: int | None = None) -> int:
    """Open a folder, never what a link leads to, and let its owner empty it and move it."""
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        descriptor = os.open(path, flags, dir_fd=folder)
    except PermissionError:
        held = os.open(path, flags | os.O_PATH, dir_fd=folder)
        try:
            syscalls.change_mode(Path(f"/proc/self/fd/{held}"), 0o755)
        finally:
            os.close(held)
        descriptor = os.open(path, flags, dir_fd=folder)
    try:
        syscalls.change_mode(descriptor, 0o755)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def _unlink(path: Path, folder: int | None = None) -> None:
    with contextlib.suppress(FileNotFoundError):
        syscalls.unlink(path, folder)


def lost(directory: Path) -> OSError | None:
    """Return how the disk says that it has lost a folder; None if it has not."""
    try:
        list(directory.iterdir())
    except OSError as error:
        return error if error.errno in LOST else None
    return None


def sweep(directory: Path, age: float = 0.0) -> None:
    """Remove what interrupted writes left behind in a directory; nothing if the disk has lost it.

    Args:
        directory: Where.
        age: Seconds for which it must have lain there, if others write there at any time.
    """
    try:
        found = list(directory.glob(f"{TEMPORARY}*"))
    except OSError as error:
        if error.errno not in LOST:
            raise
        return
    remove(*(path for path in found if not age or _age(path) > age))


def _age(path: Path) -> float:
    """Return for how many seconds nobody has written to a file; 0 if that cannot be told."""
    with contextlib.suppress(OSError):
        return time.time() - path.lstat().st_mtime
    return 0.0


def check_file_system(directory: Path) -> None:
    """Require what the atomic switch rests on: symbolic links and atomic rename.

    Raises:
        UsageError: The file system cannot do it.
    """
    probe = directory / f"{TEMPORARY}probe-{secrets.token_hex(4)}"
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
            syscalls.unlink(probe)
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

    Whoever held it last and was killed, or gave up, may have left names behind that are there but
    not on disk. They are made durable first, for what is done now goes on from them.

    Args:
        path: The lock's file.
        doing: What somebody who holds it does, for the error.
        keep_waiting: Called with the id of the process that holds it; waits for a moment and
            returns true to try again.

    Raises:
        Busy: Another process holds it.
        Unavailable: The state directory cannot be written.
        UsageError: This process runs as another user than the owner of that directory.
    """
    try:
        check_owner(path.parent)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as error:
        if error.errno in (errno.EISDIR, errno.ELOOP):
            raise Unavailable(f"{path} is no file", "move it away", Gate.RECOVER) from error
        raise _unwritable(path.parent, error) from error
    try:
        while not _locked(descriptor):
            holder = os.pread(descriptor, 32, 0).decode(errors="replace").strip() or "unknown"
            if not keep_waiting(holder):
                raise Busy(
                    f"another modelward (process {holder}) {doing}",
                    "wait for it to finish, then try again",
                    Gate.RECOVER,
                )
        # Neither a full disk nor a broken one must keep anybody from going back.
        if os.fstat(descriptor).st_size:
            with contextlib.suppress(OSError):
                syscalls.sync_file_system(descriptor)
        with contextlib.suppress(OSError):
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, str(os.getpid()).encode(), 0)
        yield
        with contextlib.suppress(OSError):
            os.ftruncate(descriptor, 0)
    finally:
        os.close(descriptor)


def _unwritable(state: Path, error: OSError) -> Unavailable:
    advice = {
        errno.EROFS: "mount its file system writable again; the kernel's log (`dmesg`) says "
        "whether a fault made it read-only",
        errno.EACCES: "run this as the owner of the state directory",
        errno.ENOSPC: "make room in the state directory's file system",
        errno.ENOENT: "see that its file system is mounted; `modelward init` sets a device up",
    }.get(error.errno or 0, "see the kernel's log (`dmesg`), then try again")
    return Unavailable(f"{state} cannot be written: {error.strerror}", advice, Gate.RECOVER)


def _locked(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
