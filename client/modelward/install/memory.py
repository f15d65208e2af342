"""Reading the small files that a device remembers by. What cannot be read is not forgotten.

A file that is not there says nothing. What is there and is no file, such as a folder or a pipe,
is damage, like content that does not parse. Any other error hides what is there, for now or for
this user: whoever took that for nothing would accept what is old and write over what is true.
"""

import contextlib
import errno
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from modelward.errors import FormatError, Gate, Unavailable
from modelward.install.fsops import LOST
from modelward.install.opened import read_file
from modelward.install.owner import is_owner, owner_of

CAP = 16 << 20  # bytes: each of them is smaller
_NO_FILE = (errno.EINVAL, errno.EFBIG, errno.ELOOP)  # as `Folder.read` says it
Parse = Callable[[bytes], object]  # raises FormatError


class Unreadable(Unavailable):
    """A file that may well be intact could not be read.

    Args:
        path: The file.
        error: Why.
        gate: Which gate needs it.

    Attributes:
        number: The error's number, as in `errno`.
    """

    def __init__(self, path: Path, error: OSError, gate: Gate) -> None:
        super().__init__(f"{path} cannot be read: {error.strerror}", _advice(path, error), gate)
        self.number = error.errno


def read(path: Path, gate: Gate) -> bytes | None:
    """Return what is in a file, and nothing of what is no file; None only if nothing is there.

    Args:
        path: The file.
        gate: Which gate needs it.

    Raises:
        Unreadable: It cannot be read.
    """
    try:
        return read_file(path, CAP)
    except FileNotFoundError:
        return None
    except OSError as error:
        if error.errno in _NO_FILE:
            return b""
        raise Unreadable(path, error, gate) from error


def read_copies(
    directory: Path, names: Iterable[str], parse: Parse, gate: Gate
) -> Mapping[str, bytes]:
    """Return what is in copies of one file, intact or not, by name: of those that are there.

    A copy that the disk has lost (EIO, say) counts as damaged where another one is intact.

    Args:
        directory: Where they are.
        names: Their names.
        parse: Tells an intact copy from a damaged one.
        gate: Which gate needs them.

    Raises:
        Unreadable: One cannot be read, or the disk has lost one and there is no other.
    """
    copies: dict[str, bytes] = {}
    lost: Unreadable | None = None
    for name in names:
        try:
            data = read(directory / name, gate)
        except Unreadable as error:
            if error.number not in LOST:
                raise
            lost = error
        else:
            if data is not None:
                copies[name] = data
    if lost is not None and not any(_is_intact(data, parse) for data in copies.values()):
        raise lost
    return copies


def _is_intact(data: bytes, parse: Parse) -> bool:
    with contextlib.suppress(FormatError):
        parse(data)
        return True
    return False


def _advice(path: Path, error: OSError) -> str:
    if isinstance(error, PermissionError):
        with contextlib.suppress(OSError):
            owner = owner_of(path.parent)
            if is_owner(path.parent):
                return f"somebody else wrote it: give it back by chown -R {owner} {path.parent}"
            return f"only {owner}, who owns the state directory, may read it: run it as {owner}"
    if error.errno in LOST:
        return (
            "try again; if it stays so, the disk is failing: docs/device.md says what is safe then"
        )
    return "try again; if it stays so, see what takes this device's memory or open files"
