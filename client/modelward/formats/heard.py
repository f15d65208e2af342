"""The largest tree of the log that others say they have seen, while this device was shown less.

Signed by the log and cosigned by a quorum of its witnesses, so nobody can make it up. If the
repository still shows less after it was asked again, somebody keeps newer states from this device.
"""

from dataclasses import dataclass
from datetime import datetime

from modelward.formats import strict
from modelward.formats.checkpoint import SignedCheckpoint
from modelward.formats.note import CAP as NOTE_CAP

DOCUMENT = "what others have seen of the log"
SCHEMA = "modelward/heard/1"
CAP = 2 * NOTE_CAP


@dataclass(frozen=True)
class Heard:
    """What a neighbour or a server has seen.

    Attributes:
        log: Digest of the log's vkey.
        signed: The checkpoint.
        at: When this device first heard of it.
        shown: Leaves that the repository showed when it was asked since; 0 if it was not yet.
        since: When it first showed no more than that; None if it was not asked yet. That is an
            alarm.
    """

    log: str
    signed: SignedCheckpoint
    at: datetime
    shown: int = 0
    since: datetime | None = None

    @classmethod
    def parse(cls, data: bytes) -> "Heard":
        """Parse the file.

        Raises:
            FormatError: Ill-formed.
        """
        fields = strict.Fields(DOCUMENT, strict.load(DOCUMENT, data, CAP))
        fields.schema(SCHEMA)
        text = fields.any("checkpoint")
        if not isinstance(text, str):
            raise fields.wrong("checkpoint", "must be a string")
        return cls(
            fields.sha256("log"),
            SignedCheckpoint.parse(text.encode()),
            fields.time("at"),
            fields.integer("shown"),
            fields.time("since") if fields.has("since") else None,
        )

    def to_bytes(self) -> bytes:
        """Return the file."""
        return strict.dump(
            {
                "schema": SCHEMA,
                "log": self.log,
                "checkpoint": self.signed.to_bytes().decode(),
                "at": strict.rfc3339(self.at),
                "shown": self.shown,
                "since": strict.rfc3339(self.since) if self.since else None,
            }
        )

    @property
    def alarm(self) -> str | None:
        """Why somebody must look at it, for people; None while the repository was not asked."""
        if self.since is None:
            return None
        size = self.signed.checkpoint.size
        if self.shown < size:
            return (
                f"others have seen {size} leaves of the log, the repository shows this device "
                f"{self.shown} since {strict.rfc3339(self.since)}: somebody keeps newer states "
                "from it"
            )
        return (
            f"the repository does not show that its {self.shown} leaves of the log begin with the "
            f"{size} that others have seen, since {strict.rfc3339(self.since)}"
        )
