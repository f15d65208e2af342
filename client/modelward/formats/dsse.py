"""DSSE envelopes around in-toto metadata and device reports; evidence.jsonl, which has one a line.

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
    """A signed document, signatures not yet verified.

    Attributes:
        payload: The signed bytes: strict JSON.
        content: The payload, parsed.
        signatures: Raw signatures by key id.
        payload_type: What kind of document it is; signed as well, so that none passes for another.
    """

    payload: bytes
    content: Mapping[str, Any]
    signatures: Mapping[str, bytes]
    payload_type: str = PAYLOAD_TYPE

    @classmethod
    def unsigned(cls, content: Mapping[str, Any], payload_type: str = PAYLOAD_TYPE) -> "Envelope":
        """Wrap a document that nobody has signed yet."""
        return cls(strict.dump(content), content, {}, payload_type)

    @classmethod
    def parse(
        cls,
        document: str,
        data: bytes,
        payload_type: str = PAYLOAD_TYPE,
        cap: int | None = None,
    ) -> "Envelope":
        """Parse one envelope.

        Args:
            document: What to call it in errors.
            data: The envelope.
            payload_type: What kind of document it must hold.
            cap: Most bytes that it may have; None for `ENVELOPE_CAP`.

        Raises:
            FormatError: Either layer breaks its format, or two signatures claim one key.
        """
        cap = ENVELOPE_CAP if cap is None else cap
        fields = strict.Fields(document, strict.load(document, data, cap))
        if fields.any("payloadType") != payload_type:
            raise fields.wrong("payloadType", f"must be {payload_type!r}")
        signatures: dict[str, bytes] = {}
        for signature in fields.each("signatures", MAX_SIGNATURES):
            keyid = signature.sha256("keyid")
            if keyid in signatures:
                raise signature.wrong("keyid", "two signatures claim the same key")
            signatures[keyid] = signature.base64("sig")
        payload = fields.base64("payload")
        content = strict.load(f"{document}: payload", payload, cap)
        if not isinstance(content, dict):
            raise fields.wrong("payload", "must be an object")
        return cls(payload, content, signatures, payload_type)

    @property
    def signed_bytes(self) -> bytes:
        """What signatures are made over: DSSE's pre-authentication encoding."""
        kind = self.payload_type.encode()
        return b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(self.payload), self.payload)

    def to_dict(self) -> dict[str, Any]:
        """Return the envelope as a JSON object."""
        return {
            "payload": base64.b64encode(self.payload).decode(),
            "payloadType": self.payload_type,
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
