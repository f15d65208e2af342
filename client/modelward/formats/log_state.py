"""The device's memory of the log: the last checkpoint it believed, and the tree's frontier."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from modelward.errors import FormatError
from modelward.formats import strict
from modelward.formats.checkpoint import SignedCheckpoint
from modelward.formats.note import SignatureLine, VerifierKey
from modelward.formats.tlog_proof import MAX_HASHES, encode_hashes, read_hashes

DOCUMENT = "log state"
SCHEMA = "modelward/log-state/1"
SMALL = 4096  # bytes
CAP = 2 * SMALL  # the signature of a log with an ML-DSA-44 key is 3.3 kB alone


@dataclass(frozen=True)
class LogState:
    """The newest tree of the log that this device has acted upon.

    Attributes:
        log: Digest of the log's key. Another key in root.json is another log, and only root's
            threshold can name one: that is how a fleet recovers from a log gone bad.
        signed: The checkpoint, with the log's signature and the cosignatures that fit.
        frontier: Hashes of the largest full subtrees, left to right: enough to append to.
    """

    log: str
    signed: SignedCheckpoint
    frontier: tuple[bytes, ...]

    @classmethod
    def parse(cls, data: bytes) -> "LogState":
        """Parse a stored state.

        Raises:
            FormatError: Ill-formed, or its checksum does not match (a torn write).
        """
        outer = strict.Fields(DOCUMENT, strict.load(DOCUMENT, data, CAP))
        outer.schema(SCHEMA)
        body = outer.fields("state")
        if outer.sha256("sha256") != _checksum(body.raw):
            raise FormatError(DOCUMENT, "sha256", "does not match the content")
        text = body.any("checkpoint")
        if not isinstance(text, str):
            raise body.wrong("checkpoint", "must be a string")
        signed = SignedCheckpoint.parse(text.encode())
        frontier = read_hashes(body, "frontier", MAX_HASHES)
        if len(frontier) != signed.checkpoint.size.bit_count():
            raise body.wrong("frontier", "is not that of a tree of the checkpoint's size")
        return cls(body.sha256("log"), signed, frontier)

    def to_bytes(self) -> bytes:
        """Return the state, with a checksum: under 4 KiB, cosignatures left out as need be.

        The log's own signature always stays, since it is what makes a checkpoint evidence; if it
        is an ML-DSA-44 one, the state is under 8 KiB.
        """
        data = self._write(self.signed)
        if len(data) < SMALL:
            return data
        # The log's signature is the first: see `of`.
        kept = self.signed.note.signatures[:1]
        for line in self.signed.note.signatures[1:]:
            shorter = self._write(_with(self.signed, (*kept, line)))
            if len(shorter) < SMALL:
                kept = (*kept, line)
        return self._write(_with(self.signed, kept))

    @classmethod
    def of(
        cls,
        signed: SignedCheckpoint,
        frontier: tuple[bytes, ...],
        log: VerifierKey,
        witnesses: Mapping[str, VerifierKey],
    ) -> "LogState":
        """Make the state after a checkpoint was verified: signatures of unknown keys dropped."""
        known = {(key.name, key.key_id) for key in witnesses.values()}
        lines = signed.note.signatures
        own = [line for line in lines if (line.name, line.key_id) == (log.name, log.key_id)]
        cosigned = [line for line in lines if (line.name, line.key_id) in known]
        return cls(log_digest(log), _with(signed, (*own[:1], *cosigned)), frontier)

    def _write(self, signed: SignedCheckpoint) -> bytes:
        body = {
            "log": self.log,
            "checkpoint": signed.to_bytes().decode(),
            "frontier": encode_hashes(self.frontier),
        }
        return strict.dump({"schema": SCHEMA, "sha256": _checksum(body), "state": body})


def log_digest(key: VerifierKey) -> str:
    """Return by what a state remembers its log: the digest of the log's vkey."""
    return hashlib.sha256(str(key).encode()).hexdigest()


def _with(signed: SignedCheckpoint, lines: tuple[SignatureLine, ...]) -> SignedCheckpoint:
    return replace(signed, note=replace(signed.note, signatures=lines))


def _checksum(body: Mapping[str, Any]) -> str:
    return hashlib.sha256(strict.dump(body)).hexdigest()
