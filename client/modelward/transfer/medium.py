"""A bundle on a stick, or any directory that is laid out as a repository, as a source of bytes.

Whoever carried the stick here is trusted with nothing, as a server is. What is opened is a plain
file below the directory, whatever links, pipes or devices somebody put there (attack rows 11, 25),
and no more of it is read than was asked for. A device is not opened even to see that it is one.
"""

import errno
import os
import stat
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Protocol
from urllib.parse import unquote

from modelward import plain_file
from modelward.errors import Gate, NotFound, Refused, TooLong, Unavailable, UsageError
from modelward.formats import archive, bundle
from modelward.formats.bundle import Bundle
from modelward.formats.release import Blob
from modelward.transfer.sources import Kind, Reader, blob_path

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_LINKED = (errno.ELOOP, errno.EMLINK, errno.ENOTDIR)
_TIMESTAMP = "metadata/timestamp.json"
_TIMESTAMP_CAP = 16_384  # bytes
_ADVICE = "somebody tampered with it: make it anew with `modelward-repo export`"


@dataclass(frozen=True)
class Extent:
    """Where a file's bytes are.

    Attributes:
        descriptor: An open file.
        offset: Where in it they begin.
        length: Bytes.
        owned: Whether the file is open for this alone, to be closed after use.
    """

    descriptor: int
    offset: int
    length: int
    owned: bool

    def close(self) -> None:
        """Close what was opened for this alone."""
        if self.owned:
            os.close(self.descriptor)


class Place(Protocol):
    """Where a bundle's files are: a directory, or an archive."""

    def find(self, path: str) -> Extent:
        """Return where a file's bytes are.

        Args:
            path: Parts joined by slashes, none of them empty, ``.`` or ``..``.

        Raises:
            OSError: There is none, or it cannot be opened.
            Refused: It is no plain file.
        """
        ...

    def close(self) -> None:
        """Close what is open."""
        ...


class Directory:
    """A bundle in a directory.

    Args:
        root: The directory.
    """

    def __init__(self, root: Path) -> None:
        self._name = str(root)
        self._root = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)

    def find(self, path: str) -> Extent:
        """Return where a file's bytes are; see `Place`."""
        *folders, name = path.split("/")
        inside = os.dup(self._root)
        try:
            for folder in folders:
                inner = os.open(folder, _FOLDER, dir_fd=inside)
                os.close(inside)
                inside = inner
            descriptor = plain_file.open_of_stranger(name, inside)
        except plain_file.NotRegularError as error:
            what = f"has no plain file {path}, but a link, a pipe, a folder or the like"
            raise _wrong(self._name, what) from error
        except OSError as error:
            if error.errno in _LINKED:
                what = f"has no plain file {path}, but a link or the like on the way to it"
                raise _wrong(self._name, what) from error
            raise
        finally:
            os.close(inside)
        return Extent(descriptor, 0, os.fstat(descriptor).st_size, owned=True)

    def close(self) -> None:
        """Close the directory."""
        os.close(self._root)


class Archive:
    """A bundle in a tar archive; see `modelward.formats.archive`.

    Args:
        file: The archive.

    Raises:
        FormatError: It is damaged, or has what no bundle has.
    """

    def __init__(self, file: Path) -> None:
        self._descriptor = os.open(file, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            self._members = {member.path: member for member in archive.members(self._read)}
        except BaseException:
            os.close(self._descriptor)
            raise

    def find(self, path: str) -> Extent:
        """Return where a file's bytes are; see `Place`."""
        member = self._members.get(path)
        if member is None:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
        return Extent(self._descriptor, member.offset, member.length, owned=False)

    def close(self) -> None:
        """Close the archive."""
        os.close(self._descriptor)

    def _read(self, offset: int, length: int) -> bytes:
        return os.pread(self._descriptor, length, offset)


class Medium:
    """A source that somebody carried here; see `modelward.transfer.sources.Source`.

    Args:
        name: What people call it.
        place: Where its files are.

    Attributes:
        index: Its bundle.json; None for a plain copy of a repository.

    Raises:
        UsageError: There is neither a bundle nor a repository.
        FormatError: Its bundle.json is ill-formed.
        Refused: Its bundle.json is no plain file.
        Unavailable: It cannot be read.
    """

    kind = Kind.MEDIUM

    def __init__(self, name: str, place: Place) -> None:
        self.name = name
        self._place = place
        self._listed: frozenset[str] = frozenset()
        self.index: Bundle | None = None
        self.index = self._read_index()
        if self.index is not None:
            self._listed = frozenset(file.path for file in self.index.files)

    def fetch(self, path: str, limit: int) -> bytes:
        """Return a small document; see `Source`."""
        extent = self._find(path)
        reader = _ExtentReader(self.name, extent, 0, extent.length)
        try:
            if extent.length > limit:
                raise TooLong(f"{path} has {extent.length} bytes, at most {limit} are allowed")
            data = bytearray(extent.length)
            view = memoryview(data)
            while view and (count := reader.readinto(view)):
                view = view[count:]
        finally:
            reader.close()
        return bytes(data)

    def open(self, blob: Blob, start: int, stop: int) -> Reader:
        """Return a reader of a range of a blob; see `Source`."""
        path = blob_path(blob.sha256)
        extent = self._find(path)
        if extent.length != blob.length:
            extent.close()
            raise _wrong(self.name, f"has {extent.length} bytes instead of {blob.length} in {path}")
        return _ExtentReader(self.name, extent, start, stop)

    def close(self) -> None:
        """Close it."""
        self._place.close()

    def _find(self, quoted: str) -> Extent:
        path = unquote(quoted)
        if "\0" in path or any(part in ("", ".", "..") for part in path.split("/")):
            # Attack row 25: a signed name must not lead out of the directory.
            raise NotFound(f"{path!r} is no path in a repository")
        try:
            return self._place.find(path)
        except FileNotFoundError as error:
            raise self._missing(path) from error
        except OSError as error:
            raise _unreadable(self.name, path, error) from error

    def _missing(self, path: str) -> NotFound:
        if path in self._listed:
            error = NotFound(f"{self.name} lacks {path}, though its bundle.json lists that")
            error.advice = "the copy is not whole: copy the bundle again"
            return error
        error = NotFound(f"{self.name} has no {path}")
        if self.index is None:
            error.advice = "the copy of the repository is not whole: copy it again"
        else:
            error.advice = (
                "it was made for devices that have more than this one: export anew, with --have "
                "and this device's `modelward status --json`"
            )
        return error

    def _read_index(self) -> Bundle | None:
        try:
            return Bundle.parse(self.fetch(bundle.FILE, bundle.CAP))
        except NotFound:
            pass
        try:
            self.fetch(_TIMESTAMP, _TIMESTAMP_CAP)
        except NotFound as error:
            raise UsageError(
                f"there is no bundle in {self.name}",
                "make one with `modelward-repo export`; one that was not written to its end has "
                "no bundle.json",
            ) from error
        return None


class _ExtentReader:
    """Reads a range of a file; see `modelward.transfer.sources.Reader`.

    Another thread may close it in the midst of a read: what is read has to stay open till then, for
    its descriptor may be somebody else's the next moment.
    """

    def __init__(self, name: str, extent: Extent, start: int, stop: int) -> None:
        self._name = name
        self._extent = extent
        self._at = extent.offset + start
        self._stop = extent.offset + stop
        self._using = Lock()
        self._closed = self._gone = False

    def readinto(self, buffer: memoryview, /) -> int:
        with self._using:
            count = 0 if self._closed else self._read(buffer[: self._stop - self._at])
        if self._closed:
            self._let_go()
        return count

    def close(self) -> None:
        self._closed = True
        self._let_go()

    def _let_go(self) -> None:
        """Close the file, once, unless it is being read: then its reader does."""
        if self._using.acquire(blocking=False):
            try:
                if not self._gone:
                    self._gone = True
                    self._extent.close()
            finally:
                self._using.release()

    def _read(self, wanted: memoryview) -> int:
        if not wanted:
            return 0
        try:
            count = os.preadv(self._extent.descriptor, [wanted], self._at)
        except OSError as error:
            raise _unreadable(self._name, "a file", error) from error
        if not count:
            raise _wrong(self._name, "has a file that became shorter while it was read")
        self._at += count
        return count


def open_medium(path: Path) -> Medium:
    """Open a bundle: a directory, or a tar archive.

    Raises:
        UsageError: There is none.
        FormatError: It is ill-formed.
        Refused: It has something else in place of a file.
        Unavailable: It cannot be read.
    """
    try:
        return _open(path)
    except Refused as error:
        error.gate = Gate.METADATA  # it says what metadata to ask for
        error.advice = _ADVICE
        raise
    except FileNotFoundError as error:
        raise UsageError(f"there is no {path}", "is the stick mounted?") from error
    except OSError as error:
        raise _unreadable(str(path), "it", error) from error


def _open(path: Path) -> Medium:
    mode = path.stat().st_mode
    if not (stat.S_ISDIR(mode) or stat.S_ISREG(mode)):
        raise UsageError(f"{path} is neither a directory nor a file")
    place: Place = Directory(path) if stat.S_ISDIR(mode) else Archive(path)
    try:
        return Medium(str(path), place)
    except BaseException:
        place.close()
        raise


def _wrong(name: str, what: str) -> Refused:
    return Refused(Gate.FETCH, f"{name} {what}", _ADVICE)


def _unreadable(name: str, what: str, error: OSError) -> Unavailable:
    found = Unavailable(f"{name}: {what} cannot be read: {error.strerror}", gate=None)
    found.advice = "was it pulled out? What was read whole is kept: put it back and try again"
    return found
