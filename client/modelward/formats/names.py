"""Names, versions and paths that are safe on every device's file system.

Names of models and channels become parts of URLs, of TUF target paths and of directories, so
they are kept to what means the same thing everywhere (attack row 25).
"""

import re
import unicodedata
from collections.abc import Iterable

MAX_PATH = 512  # characters
MAX_PART = 128  # characters
MAX_PARTS = 16

_NAME = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,62}[a-z0-9])?")
_VERSION = re.compile(r"[0-9A-Za-z](?:[0-9A-Za-z.+_-]{0,62}[0-9A-Za-z])?")
_DISTRIBUTION = re.compile(r"[0-9A-Za-z](?:[0-9A-Za-z._-]{0,126}[0-9A-Za-z])?")
# Device names that Windows and some gateways' file systems resolve whatever the suffix.
_RESERVED = re.compile(r"(?:con|prn|aux|nul|com[0-9]|lpt[0-9])(?:\..*)?", re.IGNORECASE)
_UNSAFE = re.compile(r'[\\:*?"<>|]')


def check_name(text: str) -> str:
    """Return a model's or channel's name: lower-case letters, digits, inner hyphens, at most 64.

    Raises:
        ValueError: Anything else.
    """
    if not _NAME.fullmatch(text) or _RESERVED.fullmatch(text):
        raise ValueError(
            f"{text[:80]!r} is not a name: use 1 to 64 lower-case letters, digits and hyphens"
        )
    return text


def check_version(text: str) -> str:
    """Return a version: letters, digits and inner `.`, `+`, `_`, `-`, at most 64, no `..`.

    Raises:
        ValueError: Anything else.
    """
    if not _VERSION.fullmatch(text) or ".." in text or _RESERVED.fullmatch(text):
        raise ValueError(
            f"{text[:80]!r} is not a version: use letters, digits and . + _ - inside, such as 1.2.0"
        )
    return text


def check_distribution(text: str) -> str:
    """Return the name of a Python distribution, such as ``onnxruntime``.

    Raises:
        ValueError: Anything else.
    """
    if not _DISTRIBUTION.fullmatch(text):
        raise ValueError(f"{text[:80]!r} is not the name of a Python distribution")
    return text


def check_path(text: str) -> str:
    """Return a relative path of a file inside a release.

    Raises:
        ValueError: Absolute, has a `.`, `..` or empty part, a control or unsafe character, a
            reserved device name, a part that ends in a dot or space, or is too long or deep.
    """
    shown = repr(text[:80])
    if not text or len(text) > MAX_PATH:
        raise ValueError(f"{shown} is not a path of 1 to {MAX_PATH} characters")
    if not text.isprintable() or _UNSAFE.search(text):
        raise ValueError(f"{shown} has a character that is not safe in a file name")
    if text.startswith("/"):
        raise ValueError(f"{shown} is absolute")
    parts = text.split("/")
    if len(parts) > MAX_PARTS:
        raise ValueError(f"{shown} is nested deeper than {MAX_PARTS} directories")
    for part in parts:
        if part in ("", ".", ".."):
            raise ValueError(f"{shown} has an empty, '.' or '..' part")
        if len(part.encode()) > MAX_PART:
            raise ValueError(f"{shown} has a part longer than {MAX_PART} bytes")
        if part.endswith((".", " ")) or part.startswith(" "):
            raise ValueError(f"{shown} has a part that begins or ends in a space or ends in a dot")
        if _RESERVED.fullmatch(part):
            raise ValueError(f"{shown} has a reserved device name")
    return text


def check_tree(paths: Iterable[str]) -> None:
    """Require that the paths can all exist together on any file system.

    Raises:
        ValueError: Two paths are equal, differ only in case or in how their accents are encoded,
            or one is a directory of another.
    """
    files: dict[str, str] = {}
    folders: dict[str, str] = {}
    for path in paths:
        parts = path.split("/")
        for end in range(1, len(parts)):
            folder = "/".join(parts[:end])
            # On a case-insensitive disk "Data/x" and "data/y" would share one directory.
            if folders.setdefault(_fold(folder), folder) != folder:
                raise ValueError(f"{path!r} and another path differ only in case")
        if _fold(path) in files:
            raise ValueError(f"{path!r} appears twice, or differs from another path only in case")
        files[_fold(path)] = path
    for folded, path in files.items():
        if folded in folders:
            raise ValueError(f"{path!r} is both a file and a directory")


def _fold(path: str) -> str:
    """Return what a disk that ignores case and Unicode normalization goes by."""
    return unicodedata.normalize("NFD", unicodedata.normalize("NFD", path).casefold())
