"""The leaf of the log: one root and one snapshot of one repository, so every release they list.

A device never reads a leaf: it makes the leaf from the metadata it has just verified, and asks
whether that one was logged.
"""

import re
from dataclasses import dataclass

from modelward.errors import FormatError
from modelward.formats.note import decode_text

DOCUMENT = "log leaf"
HEADER = "modelward-log/v1"
REPOSITORY_FIELD = "x-repository"  # of root.json: the repository's id, 64 hexadecimal digits
CAP = 1024
MAX_REPOSITORY = 255  # characters
_ROLE = re.compile(r"(root|snapshot) ([1-9][0-9]{0,15}) ([0-9a-f]{64})", re.ASCII)


@dataclass(frozen=True)
class RoleDigest:
    """One version of a top-level role's metadata.

    Attributes:
        version: Its version.
        sha256: Digest of the file, as served.
    """

    version: int
    sha256: str


@dataclass(frozen=True)
class Leaf:
    """What one leaf says.

    Attributes:
        repository: The repository's id.
        root: The newest root.
        snapshot: The snapshot. It lists every targets role with length and digest.
    """

    repository: str
    root: RoleDigest
    snapshot: RoleDigest

    @classmethod
    def parse(cls, data: bytes) -> "Leaf":
        """Parse a leaf, as an auditor reads it from the log.

        Raises:
            FormatError: Ill-formed.
        """
        lines = decode_text(data, DOCUMENT, CAP).split("\n")
        if len(lines) != 5 or lines[4]:  # noqa: PLR2004 - four, each with its newline
            raise FormatError(DOCUMENT, "", "must be four lines")
        if lines[0] != HEADER:
            raise FormatError(DOCUMENT, "", f"must begin with {HEADER!r}")
        return cls(_repository(lines[1]), _role("root", lines[2]), _role("snapshot", lines[3]))

    def to_bytes(self) -> bytes:
        """Return the leaf: four lines, LF after each.

        Raises:
            FormatError: The repository's id does not fit on a line.
        """
        root, snapshot = self.root, self.snapshot
        return (
            f"{HEADER}\n{_repository(self.repository)}\n"
            f"root {root.version} {root.sha256}\nsnapshot {snapshot.version} {snapshot.sha256}\n"
        ).encode()


def _repository(text: str) -> str:
    if not text or not text.isprintable() or len(text) > MAX_REPOSITORY:
        raise FormatError(DOCUMENT, "repository", "must be a short line of text")
    return text


def _role(name: str, line: str) -> RoleDigest:
    match = _ROLE.fullmatch(line)
    if not match or match[1] != name:
        raise FormatError(DOCUMENT, name, f"must be '{name} <version> <sha256>'")
    return RoleDigest(int(match[2]), match[3])
