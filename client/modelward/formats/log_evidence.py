"""Portable evidence against a log: two checkpoints it signed that cannot both be true.

Anyone can judge it offline (`trust.split_view.judge`). It holds no secret.
"""

from dataclasses import dataclass
from typing import Any

from modelward.formats import strict
from modelward.formats.checkpoint import SignedCheckpoint
from modelward.formats.log_policy import LogPolicy
from modelward.formats.tlog_proof import encode_hashes, read_hashes

DOCUMENT = "log evidence"
SCHEMA = "modelward/log-evidence/1"
CAP = 1 << 20
MAX_HASHES = 128


@dataclass(frozen=True)
class LogEvidence:
    """Two signed checkpoints, and hashes that show whether one tree grew from the other.

    Attributes:
        policy: The log and the witnesses that whoever found it believed.
        seen: The checkpoint that was believed.
        shown: The one that contradicts it.
        prefix: In the larger tree, hashes of the largest full subtrees that the smaller tree
            has, left to right. Empty where sizes are equal, or where nobody could get them.
        rest: Hashes of the largest full subtrees from there to the larger tree's end.
    """

    policy: LogPolicy
    seen: SignedCheckpoint
    shown: SignedCheckpoint
    prefix: tuple[bytes, ...] = ()
    rest: tuple[bytes, ...] = ()

    @classmethod
    def parse(cls, data: bytes) -> "LogEvidence":
        """Parse an evidence file.

        Raises:
            FormatError: Ill-formed.
        """
        fields = strict.Fields(DOCUMENT, strict.load(DOCUMENT, data, CAP))
        fields.schema(SCHEMA)
        fields.critical()
        return cls(
            LogPolicy.parse(fields.any("log")),
            _checkpoint(fields, "seen"),
            _checkpoint(fields, "shown"),
            read_hashes(fields, "prefix", MAX_HASHES),
            read_hashes(fields, "rest", MAX_HASHES),
        )

    def to_dict(self) -> dict[str, Any]:
        """Return the evidence as a JSON object."""
        return {
            "schema": SCHEMA,
            "log": self.policy.to_dict(),
            "seen": self.seen.to_bytes().decode(),
            "shown": self.shown.to_bytes().decode(),
            "prefix": encode_hashes(self.prefix),
            "rest": encode_hashes(self.rest),
        }

    def to_bytes(self) -> bytes:
        """Return the file."""
        return strict.dump(self.to_dict())


def _checkpoint(fields: strict.Fields, name: str) -> SignedCheckpoint:
    text = fields.any(name)
    if not isinstance(text, str):
        raise fields.wrong(name, "must be a string")
    return SignedCheckpoint.parse(text.encode())
