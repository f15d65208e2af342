"""The request of a log to a witness, and where witnesses are reached (c2sp.org/tlog-witness)."""

from dataclasses import dataclass
from urllib.parse import urlsplit

from modelward.errors import FormatError
from modelward.formats.checkpoint import SignedCheckpoint, parse_decimal
from modelward.formats.note import CAP as NOTE_CAP
from modelward.formats.note import decode_text
from modelward.formats.tlog_proof import MAX_HASHES, decode_hashes, encode_hashes

DOCUMENT = "add-checkpoint"
PATH = "/add-checkpoint"
CAP = NOTE_CAP + (8 << 10)
SIZE_TYPE = "text/x.tlog.size"


@dataclass(frozen=True)
class AddCheckpoint:
    """What a log asks of a witness; nothing of it verified.

    Attributes:
        old_size: Leaves of the tree that the witness last cosigned, as far as the log knows.
        proof: That the tree now begins with that one (RFC 6962 2.1.2).
        signed: The tree now, signed by the log.
    """

    old_size: int
    proof: tuple[bytes, ...]
    signed: SignedCheckpoint

    @classmethod
    def parse(cls, data: bytes) -> "AddCheckpoint":
        """Parse a request's body.

        Raises:
            FormatError: Ill-formed.
        """
        head, blank, note = decode_text(data, DOCUMENT, CAP).partition("\n\n")
        first, *hashes = head.split("\n")
        if not blank or not first.startswith("old "):
            raise FormatError(DOCUMENT, "", "must be 'old <size>', hashes, a blank line, a note")
        return cls(
            parse_decimal(first.removeprefix("old "), DOCUMENT, "old"),
            decode_hashes(hashes, DOCUMENT, MAX_HASHES),
            SignedCheckpoint.parse(note.encode()),
        )

    def to_bytes(self) -> bytes:
        """Return the request's body."""
        lines = [f"old {self.old_size}", *encode_hashes(self.proof), "", ""]
        return "\n".join(lines).encode() + self.signed.to_bytes()


def check_url(url: str) -> str:
    """Return a witness's address without a final slash.

    Raises:
        ValueError: It is not an http or https address.
    """
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
        raise ValueError(f"{url!r} is not the address of a witness, such as https://example.com")
    return url.rstrip("/")
