"""A signing request as a file, on a stick that is pulled out too early, full, or read-only."""

import errno
import os
import secrets
from contextlib import suppress
from pathlib import Path

from modelward.errors import FormatError, UsageError
from modelward_repo.roles.ceremony import merge
from modelward_repo.roles.request import CAP, Request
from modelward_repo.roles.state import Rejected


def read(path: Path, cap: int = CAP) -> bytes:
    """Return a small file.

    Raises:
        UsageError: It cannot be read, or is longer than `cap` bytes.
    """
    try:
        with path.open("rb") as file:
            data = file.read(cap + 1)
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}", "check the name") from error
    if len(data) > cap:
        raise UsageError(
            f"{path} is longer than {cap} bytes", "this cannot be the right file: check the name"
        )
    return data


def load(path: Path) -> Request:
    """Return the signing request in a file.

    Raises:
        UsageError: The file cannot be read.
        FormatError: It is not a signing request.
        Rejected: Something in it does not hold.
    """
    data = read(path)
    try:
        return Request.parse(data)
    except FormatError as error:
        error.reason = f"{path}: {error.reason}"
        error.advice = (
            "the file was damaged on its way or tampered with: ask whoever gave it to you for "
            "another copy"
        )
        raise
    except Rejected as error:
        error.reason = f"{path}: {error.reason}"
        raise


def save(path: Path, request: Request) -> Request:
    """Write a request: all of it or nothing, and without losing signatures that are there.

    Returns:
        The request as written, with any signatures that the file already had.

    Raises:
        UsageError: The file cannot be written, or holds something else.
    """
    if path.exists():
        try:
            there = load(path)
            request = merge({str(path): there, "this request": request})
        except (UsageError, FormatError, Rejected) as error:
            raise UsageError(
                f"{path} exists already and is not a copy of this request",
                "name another file with --output; nothing was written",
            ) from error
    write(path, request.to_bytes())
    return request


def write(path: Path, data: bytes) -> None:
    """Write a file so that whoever reads it, at any time, finds the old content or the new.

    Works on file systems without hard links or permissions, as sticks have them.

    Raises:
        UsageError: It cannot be written; what was there before still is.
    """
    partial = path.with_name(f".{path.name[:64]}.{secrets.token_hex(4)}")
    try:
        try:
            with partial.open("xb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            partial.replace(path)
        except BaseException:
            with suppress(OSError):
                partial.unlink(missing_ok=True)
            raise
        _sync(path.parent)
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
        raise UsageError(
            f"{path} cannot be written: {error.strerror}",
            ("make room or name a file elsewhere" if full else "name another file")
            + " with --output; nothing was lost",
        ) from error


def _sync(directory: Path) -> None:
    """Have the name outlive the stick being pulled out."""
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        with suppress(OSError):  # not every file system can sync a directory
            os.fsync(descriptor)
    finally:
        os.close(descriptor)
