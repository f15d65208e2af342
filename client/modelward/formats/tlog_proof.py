"""Proofs that something was logged (c2sp.org/tlog-proof), alone and riding in timestamp.json."""

import base64
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from modelward.errors import FormatError
from modelward.formats import strict
from modelward.formats.checkpoint import SignedCheckpoint, parse_decimal
from modelward.formats.note import CAP as NOTE_CAP
from modelward.formats.note import decode_base64, decode_hash, decode_text

DOCUMENT = "tlog-proof"
HEADER = "c2sp.org/tlog-proof@v1"
CAP = NOTE_CAP + (16 << 10)
MAX_HASHES = 63  # a tree of 2^63 leaves is that high
MAX_EXTRA = 4096  # bytes
FIELD = "x-tlog"
TIMESTAMP_DOCUMENT = f"timestamp.json: {FIELD}"
MAX_TAIL = 16  # leaf hashes


@dataclass(frozen=True)
class TlogProof:
    """That a leaf is in a tree that a log and witnesses signed; nothing of it verified.

    Attributes:
        index: The leaf's index, from 0.
        hashes: Inclusion proof, from the leaf's sibling up (RFC 6962 2.1.1).
        checkpoint: The tree.
        extra: Whatever the publisher added, or None. No signature covers it.
    """

    index: int
    hashes: tuple[bytes, ...]
    checkpoint: SignedCheckpoint
    extra: bytes | None = None

    @classmethod
    def parse(cls, data: bytes) -> "TlogProof":
        """Parse a tlog-proof.

        Raises:
            FormatError: Ill-formed.
        """
        head, blank, note = decode_text(data, DOCUMENT, CAP).partition("\n\n")
        if not blank:
            raise FormatError(DOCUMENT, "", "must have an empty line before the checkpoint")
        header, *lines = head.split("\n")
        if header != HEADER:
            raise FormatError(DOCUMENT, "", f"must begin with {HEADER!r}")
        extra = None
        if lines and lines[0].startswith("extra "):
            extra = decode_base64(lines.pop(0).removeprefix("extra "), DOCUMENT, "extra")
            if len(extra) > MAX_EXTRA:
                raise FormatError(DOCUMENT, "extra", f"has more than {MAX_EXTRA} bytes")
        if not lines or not lines[0].startswith("index "):
            raise FormatError(DOCUMENT, "index", "is missing")
        index = parse_decimal(lines.pop(0).removeprefix("index "), DOCUMENT, "index")
        return cls(
            index,
            decode_hashes(lines, DOCUMENT, MAX_HASHES),
            SignedCheckpoint.parse(note.encode()),
            extra,
        )

    def to_bytes(self) -> bytes:
        """Return the proof."""
        lines = [HEADER]
        if self.extra is not None:
            lines.append(f"extra {base64.b64encode(self.extra).decode()}")
        lines.append(f"index {self.index}")
        lines += encode_hashes(self.hashes)
        return "\n".join([*lines, "", ""]).encode() + self.checkpoint.to_bytes()


@dataclass(frozen=True)
class TimestampProof:
    """The `x-tlog` object of timestamp.json; nothing of it verified.

    Attributes:
        proof: Proof for the leaf of the snapshot that the timestamp names.
        tail: Hashes of the log's last leaves, oldest first, up to the checkpoint's size. A
            device that saw the log so recently needs nothing else to prove consistency.
    """

    proof: TlogProof
    tail: tuple[bytes, ...] = ()

    @classmethod
    def parse(cls, value: Any) -> "TimestampProof":
        """Parse the object. Unknown fields are ignored.

        Raises:
            FormatError: Ill-formed, or the tail is longer than the log.
        """
        fields = strict.Fields(TIMESTAMP_DOCUMENT, value)
        text = fields.any("proof")
        if not isinstance(text, str):
            raise fields.wrong("proof", "must be a string")
        try:
            proof = TlogProof.parse(text.encode())
        except UnicodeEncodeError as error:
            raise fields.wrong("proof", "is not valid Unicode") from error
        tail = read_hashes(fields, "tail", MAX_TAIL)
        if len(tail) > proof.checkpoint.checkpoint.size:
            raise fields.wrong("tail", "is longer than the log")
        return cls(proof, tail)

    def to_dict(self) -> dict[str, Any]:
        """Return the object."""
        return {
            "proof": self.proof.to_bytes().decode(),
            "tail": encode_hashes(self.tail),
        }


def read_hashes(fields: strict.Fields, name: str, most: int) -> tuple[bytes, ...]:
    """Return a field that is a list of SHA-256 hashes in base64.

    Raises:
        FormatError: Not a list, too long, or a hash is ill-formed.
    """
    items: list[Any] = fields.items(name, most)
    if not all(isinstance(item, str) for item in items):
        raise fields.wrong(name, "must be a list of strings")
    return decode_hashes(items, fields.document, most, fields.at(name))


def encode_hashes(hashes: Iterable[bytes]) -> list[str]:
    """Return hashes as base64."""
    return [base64.b64encode(raw).decode() for raw in hashes]


def decode_hashes(
    lines: Sequence[str], document: str, most: int, field: str = "hash"
) -> tuple[bytes, ...]:
    """Decode a list of SHA-256 hashes in base64.

    Raises:
        FormatError: Too many, or one is ill-formed.
    """
    if len(lines) > most:
        raise FormatError(document, field, f"there are more than {most} hashes")
    return tuple(
        decode_hash(line, document, f"{field} {number}") for number, line in enumerate(lines, 1)
    )
