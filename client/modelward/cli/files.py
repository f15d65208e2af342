"""Files that a command line names: what is wrong with one is for whoever named it to mend."""

from pathlib import Path

from modelward import plain_file
from modelward.errors import UsageError

CAP = 16 << 20  # bytes; all documents are smaller


def read(name: str) -> bytes:
    """Return what is in a file.

    Raises:
        UsageError: It cannot be read.
    """
    try:
        return plain_file.read(Path(name), CAP, piped=True)
    except (OSError, ValueError) as error:
        raise _wrong(name, "read", error) from error


def write(name: str, data: bytes) -> None:
    """Write a file.

    Raises:
        UsageError: It cannot be written.
    """
    try:
        Path(name).write_bytes(data)
    except (OSError, ValueError) as error:
        raise _wrong(name, "written", error) from error


def _wrong(name: str, what: str, error: OSError | ValueError) -> UsageError:
    why = getattr(error, "strerror", None) or error
    return UsageError(f"{name!r} cannot be {what}: {why}", "name another file")
