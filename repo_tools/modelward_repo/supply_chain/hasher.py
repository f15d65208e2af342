"""What a step took and made, by digest: every file, and nothing but files.

in-toto's own recorder leaves out `.git`, `*.pyc`, `*~` and `*.link`, follows symbolic links out of
the tree, skips paths that do not exist, and changes the process's directory. A link must record
what really was there, so here nothing is skipped, and what cannot be recorded is an error.

Symbolic links are refused, also inside the workspace: a link records content under a path, while
a symbolic link can point elsewhere a moment later and means nothing in a release.
"""

import hashlib
import os
import stat
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from modelward.errors import Gate, Refused, UsageError
from modelward.formats.names import check_path, check_tree

PIECE = 1 << 20  # bytes read at a time
THREADS = 4
WORTH_THREADS = 8 << 20  # bytes in all from which on threads pay
ATTEMPTS = 8  # at a file whose status changes while it is read, and its content does not

Progress = Callable[[int, int], None]
"""Told how many bytes are done, and how many there are in all."""


def no_progress(_done: int, _total: int) -> None:
    """Tell nobody."""


class Known(Protocol):
    """Knows files that were hashed before, by their status."""

    def digest(self, status: os.stat_result) -> str | None:
        """Return the digest of a file with this very status, or None."""
        ...

    def learn(self, status: os.stat_result, sha256: str) -> None:
        """Keep the digest of a file that had this status before, while and after it was hashed."""
        ...


@dataclass(frozen=True)
class _File:
    """A file as it was found.

    Attributes:
        path: Where it stands in the workspace, with ``/``.
        place: Where it stands on this machine.
        status: What `lstat` said of it.
    """

    path: str
    place: Path
    status: os.stat_result


def hash_files(
    workspace: Path,
    paths: Sequence[str],
    progress: Progress = no_progress,
    known: Known | None = None,
) -> dict[str, str]:
    """Return the SHA-256 digests of files, and of all files in directories, by path.

    Args:
        workspace: Directory that paths are relative to.
        paths: Files and directories, relative to the workspace.
        progress: Called while it goes on, from any thread, one call at a time.
        known: What was hashed before, and need not be again; None to hash everything.

    Returns:
        Digests in hexadecimal by path relative to the workspace, sorted.

    Raises:
        UsageError: A path is missing, empty, outside of the workspace, or not fit for a release.
        Refused: A symbolic link or a special file, or a file that changed meanwhile.
    """
    root = workspace.resolve()
    found = {file.path: file for path in paths for file in _find(root, path)}
    files = [found[path] for path in sorted(found)]
    try:
        check_tree(file.path for file in files)
    except ValueError as error:
        raise UsageError(str(error), "rename it: not every device can hold both") from error
    return dict(zip((file.path for file in files), _digests(files, progress, known), strict=True))


def relative(workspace: Path, path: str) -> str:
    """Return a path relative to the workspace, with ``/``; `.` for the workspace itself.

    Raises:
        UsageError: It lies outside.
    """
    root = workspace.resolve()
    place = Path(os.path.normpath(root / path))
    if not path or not place.is_relative_to(root):
        raise UsageError(
            f"{path!r} is not inside of the workspace {workspace}",
            "give paths relative to the workspace, or name another with --workspace",
        )
    return place.relative_to(root).as_posix()


def _find(root: Path, path: str) -> Iterator[_File]:
    """Yield a file, or all files of a directory."""
    inside = relative(root, path)
    place = root
    for part in Path(inside).parts:
        place /= part
        status = _status(place)
        _check_kind(place, status)
    files = _walk(root, place)
    first = next(files, None)
    if first is None:
        # in-toto would record nothing, and nobody would notice.
        raise UsageError(f"{path} is an empty directory: there is nothing to record")
    yield first
    yield from files


def _walk(root: Path, place: Path) -> Iterator[_File]:
    status = _status(place)
    _check_kind(place, status)
    inside = place.relative_to(root).as_posix()
    if inside != ".":
        try:
            check_path(inside)
        except ValueError as error:
            raise UsageError(
                str(error), "rename it: a path in evidence must be safe on every device"
            ) from error
    if not stat.S_ISDIR(status.st_mode):
        yield _File(inside, place, status)
        return
    try:
        entries = sorted(place.iterdir())
    except OSError as error:
        raise _unreadable(place, error) from error
    for entry in entries:
        yield from _walk(root, entry)


def _status(place: Path) -> os.stat_result:
    try:
        return place.lstat()
    except FileNotFoundError as error:
        raise UsageError(
            f"{place} does not exist", "a missing file is an error, not an empty record"
        ) from error
    except (OSError, ValueError) as error:
        raise _unreadable(place, error) from error


def _check_kind(place: Path, status: os.stat_result) -> None:
    if stat.S_ISLNK(status.st_mode):
        raise _refused(
            place, "is a symbolic link", "put a copy of the file there: links are never followed"
        )
    if not stat.S_ISDIR(status.st_mode) and not stat.S_ISREG(status.st_mode):
        raise _refused(place, "is a device, pipe or socket", "only files can be recorded")


def _digests(files: Sequence[_File], progress: Progress, known: Known | None) -> Iterable[str]:
    total = sum(file.status.st_size for file in files)
    done = 0
    lock = threading.Lock()

    def advance(count: int) -> None:
        nonlocal done
        with lock:
            done += count
            progress(done, total)

    if len(files) == 1 or total < WORTH_THREADS:
        return [_digest(file, advance, known) for file in files]
    with ThreadPoolExecutor(min(THREADS, os.cpu_count() or 1)) as pool:
        futures = [pool.submit(_digest, file, advance, known) for file in files]
        try:
            return [future.result() for future in futures]
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def _digest(file: _File, advance: Callable[[int], None], known: Known | None) -> str:
    """Hash one file, making sure that it is the one found and stays as it is.

    A hard link elsewhere that is made or removed, say by another publisher of the same file,
    changes a file's status and not its content: then it is read once more, to know.
    """
    before_now = known.digest(file.status) if known else None
    if before_now is not None:
        advance(file.status.st_size)
        return before_now
    read: set[str] = set()
    for _ in range(ATTEMPTS):
        states, digest = _read(file.place, (lambda _count: None) if read else advance)
        read.add(digest)
        if len(read) > 1 or any(_content(state) != _content(file.status) for state in states):
            break
        if len({state.st_ctime_ns for state in states}) == 1:
            if known:
                known.learn(states[0], digest)
            return digest
    raise _refused(
        file.place, "changed while it was hashed", "let nothing else write in the workspace"
    )


def _read(place: Path, advance: Callable[[int], None]) -> tuple[list[os.stat_result], str]:
    """Return what a file's status was before and after it was read, and the digest."""
    digest = hashlib.sha256()
    buffer = memoryview(bytearray(PIECE))
    try:
        # Should a pipe or a link have taken the file's place, opening neither waits nor follows.
        descriptor = os.open(place, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(descriptor, "rb", buffering=0) as source:
            before = os.fstat(source.fileno())
            while count := source.readinto(buffer) if stat.S_ISREG(before.st_mode) else 0:
                digest.update(buffer[:count])
                advance(count)
            return [before, os.fstat(source.fileno()), place.lstat()], digest.hexdigest()
    except OSError as error:
        raise _unreadable(place, error) from error


def _content(status: os.stat_result) -> tuple[int, ...]:
    """Return what a write or a replacement changes, unless somebody resets it."""
    return (
        stat.S_IFMT(status.st_mode),
        status.st_dev,
        status.st_ino,
        status.st_size,
        status.st_mtime_ns,
    )


def _unreadable(place: Path, error: OSError | ValueError) -> UsageError:
    why = error.strerror if isinstance(error, OSError) else str(error)
    return UsageError(f"{str(place)!r} cannot be read: {why}")


def _refused(place: Path, problem: str, advice: str) -> Refused:
    return Refused(Gate.SUPPLY_CHAIN, f"{str(place)!r} {problem}", advice)
