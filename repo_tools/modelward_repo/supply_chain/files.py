"""Small files written whole or not at all, in directories that are the user's own."""

import os
import secrets
from pathlib import Path

from modelward.errors import UsageError


def replace_file(path: Path, data: bytes) -> None:
    """Write a file; whoever reads it meanwhile, or after a crash, sees the old or the new one.

    Raises:
        UsageError: It cannot be written.
    """
    _write(path, data, overwrite=True)


def create_file(path: Path, data: bytes) -> None:
    """Write a file that must not exist, or already have this content.

    Raises:
        UsageError: It exists with other content, or it cannot be written.
    """
    _write(path, data, overwrite=False)


def _write(path: Path, data: bytes, *, overwrite: bool) -> None:
    partial = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with partial.open("xb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            if overwrite:
                partial.replace(path)
            else:
                os.link(partial, path)  # unlike a rename, this fails if the name is taken
        finally:
            partial.unlink(missing_ok=True)
    except FileExistsError as error:
        if path.is_file() and not path.is_symlink() and path.read_bytes() == data:
            return
        raise UsageError(
            f"{path} exists already, with other content", "move it away first if it is obsolete"
        ) from error
    except OSError as error:
        raise UsageError(f"{path} cannot be written: {error.strerror}") from error
