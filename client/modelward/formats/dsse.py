"""DSSE envelopes around in-toto metadata, and evidence.jsonl, which holds one a line.

Source: https://github.com/secure-systems-lab/dsse/blob/master/protocol.md. Metablock, in-toto's
older envelope, is not accepted: it lets unknown fields be added after signing.
"""

import base64
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from modelward.errors import FormatError
from modelward.formats import strict

PAYLOAD_TYPE = "application/vnd.in-toto+json"
ENVELOPE_CAP = 4 << 20
EVIDENCE_DOCUMENT = "evidence.jsonl"
EVIDENCE_CAP = 16 << 20
MAX_LINKS = 1024
MAX_SIGNATURES = 32


@dataclass(frozen=True)
class Envelope:
    """A signed in-toto document, signatures not yet verified.

    Attributes:
        payload: The signed bytes: strict JSON.
        content: The payload, parsed.
        signatures: Raw signatures by key id.
    """

    payload: bytes
    content: Mapping[str, Any]
    signatures: Mapping[str, bytes]

    @classmethod
    def unsigned(cls, content: Mapping[str, Any]) -> "Envelope":
        """Wrap a document that nobody has signed yet."""
        return cls(strict.dump(content), content, {})

    @classmethod
    def parse(cls, document: str, data: bytes) -> "Envelope":
        """Parse one envelope.

        Raises:
            FormatError: Either layer breaks its format, or two signatures claim one key.
        """
        fields = strict.Fields(document, strict.load(document, data, ENVELOPE_CAP))
        if fields.any("payloadType") != PAYLOAD_TYPE:
            raise fields.wrong("payloadType", f"must be {PAYLOAD_TYPE!r}")
        signatures: dict[str, bytes] = {}
        for signature in fields.each("signatures", MAX_SIGNATURES):
            keyid = signature.sha256("keyid")
            if keyid in signatures:
                raise signature.wrong("keyid", "two signatures claim the same key")
            signatures[keyid] = signature.base64("sig")
        payload = fields.base64("payload")
        content = strict.load(f"{document}: payload", payload, ENVELOPE_CAP)
        if not isinstance(content, dict):
            raise fields.wrong("payload", "must be an object")
        return cls(payload, content, signatures)

    def to_dict(self) -> dict[str, Any]:
        """Return the envelope as a JSON object."""
        return {
            "payload": base64.b64encode(self.payload).decode(),
            "payloadType": PAYLOAD_TYPE,
            "signatures": [
                {"keyid": keyid, "sig": base64.b64encode(raw).decode()}
                for keyid, raw in self.signatures.items()
            ],
        }

    def to_bytes(self) -> bytes:
        """Return the envelope on one line."""
        return strict.dump(self.to_dict())


def parse_evidence(data: bytes) -> tuple[Envelope, ...]:
    """Parse evidence.jsonl: one link a line.

    Raises:
        FormatError: Too long, too many lines, or a line that is not an envelope.
    """
    if len(data) > EVIDENCE_CAP:
        raise FormatError(EVIDENCE_DOCUMENT, "", f"is longer than {EVIDENCE_CAP} bytes")
    lines = data.splitlines()
    if len(lines) > MAX_LINKS:
        raise FormatError(EVIDENCE_DOCUMENT, "", f"has more than {MAX_LINKS} lines")
    return tuple(
        Envelope.parse(f"{EVIDENCE_DOCUMENT} line {number}", line)
        for number, line in enumerate(lines, 1)
    )
