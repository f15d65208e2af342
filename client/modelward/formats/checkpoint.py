"""Checkpoints: what a log says its tree is (c2sp.org/tlog-checkpoint)."""

import base64
import re
from dataclasses import dataclass

from modelward.errors import FormatError
from modelward.formats.note import MAX_NAME, Note, SignatureLine, decode_hash

DOCUMENT = "checkpoint"
MAX_SIZE = 2**63 - 1  # leaves
MAX_EXTENSIONS = 16
_DECIMAL = re.compile(r"0|[1-9][0-9]{0,18}", re.ASCII)


@dataclass(frozen=True)
class Checkpoint:
    """A tree's size and root hash.

    Attributes:
        origin: Which log.
        size: Number of leaves.
        root: Root hash, 32 bytes.
        extensions: Further lines. They mean nothing here, and ML-DSA-44 does not sign them.
    """

    origin: str
    size: int
    root: bytes
    extensions: tuple[str, ...] = ()

    @classmethod
    def parse(cls, text: str) -> "Checkpoint":
        """Parse a note's text.

        Raises:
            FormatError: Ill-formed.
        """
        lines = text.removesuffix("\n").split("\n")
        if not text.endswith("\n") or len(lines) < 3 or "" in lines:  # noqa: PLR2004
            raise FormatError(DOCUMENT, "", "must be three or more lines, none of them empty")
        origin, size, root, *extensions = lines
        if len(origin.encode()) > MAX_NAME:
            raise FormatError(DOCUMENT, "origin", f"has more than {MAX_NAME} bytes")
        if len(extensions) > MAX_EXTENSIONS:
            raise FormatError(DOCUMENT, "", f"has more than {MAX_EXTENSIONS} extension lines")
        return cls(
            origin,
            parse_decimal(size, DOCUMENT, "size"),
            decode_hash(root, DOCUMENT, "root"),
            tuple(extensions),
        )

    def __str__(self) -> str:
        """Return the note's text."""
        root = base64.b64encode(self.root).decode()
        return "".join(f"{line}\n" for line in (self.origin, self.size, root, *self.extensions))


@dataclass(frozen=True)
class SignedCheckpoint:
    """A checkpoint and the note that carries it, signatures not verified.

    Attributes:
        checkpoint: What the note says.
        note: The note.
    """

    checkpoint: Checkpoint
    note: Note

    @classmethod
    def parse(cls, data: bytes) -> "SignedCheckpoint":
        """Parse a signed note whose text is a checkpoint.

        Raises:
            FormatError: Ill-formed.
        """
        return cls.of(Note.parse(data))

    @classmethod
    def of(cls, note: Note) -> "SignedCheckpoint":
        """Read the checkpoint in a note.

        Raises:
            FormatError: It is not one.
        """
        return cls(Checkpoint.parse(note.text), note)

    @classmethod
    def new(cls, checkpoint: Checkpoint, *signatures: SignatureLine) -> "SignedCheckpoint":
        """Put signatures under a checkpoint."""
        return cls(checkpoint, Note(str(checkpoint), signatures))

    def to_bytes(self) -> bytes:
        """Return the note."""
        return self.note.to_bytes()


def parse_decimal(text: str, document: str, field: str) -> int:
    """Return a number of at most 63 bits, written without leading zeroes.

    Raises:
        FormatError: Anything else.
    """
    if not _DECIMAL.fullmatch(text) or int(text) > MAX_SIZE:
        raise FormatError(document, field, "must be a decimal number without leading zeroes")
    return int(text)
