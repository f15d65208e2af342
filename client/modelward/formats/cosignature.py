"""What a witness signs, and the signature with its time (c2sp.org/tlog-cosignature)."""

from dataclasses import dataclass

from modelward.errors import FormatError
from modelward.formats.checkpoint import Checkpoint
from modelward.formats.note import SignatureType, VerifierKey

DOCUMENT = "cosignature"
MAX_TIME = 2**63 - 1
SIGNATURE_LENGTHS = {
    SignatureType.COSIGNATURE_ED25519: 64,
    SignatureType.COSIGNATURE_ML_DSA_44: 2420,
}


@dataclass(frozen=True)
class Cosignature:
    """A signature with its time, not verified: the `timestamped_signature` of tlog-cosignature.

    Attributes:
        time: When it was made, POSIX seconds; 0 if the cosigner makes no statement about that.
        signature: The raw signature.
    """

    time: int
    signature: bytes

    @classmethod
    def parse(cls, data: bytes, kind: SignatureType) -> "Cosignature":
        """Parse what stands in a signature line.

        Raises:
            FormatError: Not as long as this type's signatures are, or the time is too large.
        """
        if len(data) != 8 + SIGNATURE_LENGTHS[kind]:
            raise FormatError(DOCUMENT, "", f"{len(data)} bytes are no cosignature of this type")
        time = int.from_bytes(data[:8], "big")
        if time > MAX_TIME:
            raise FormatError(DOCUMENT, "timestamp", "is over 63 bits")
        return cls(time, data[8:])

    def to_bytes(self) -> bytes:
        """Return what stands in a signature line."""
        return self.time.to_bytes(8, "big") + self.signature


def signed_message(key: VerifierKey, checkpoint: Checkpoint, time: int) -> bytes:
    """Return the bytes that a cosigner signs.

    Args:
        key: The cosigner's key, of a cosignature type.
        checkpoint: What it saw.
        time: When, POSIX seconds.
    """
    if key.type is SignatureType.COSIGNATURE_ED25519:
        return f"cosignature/v1\ntime {time}\n{checkpoint}".encode()
    # A whole tree: the subtree from leaf 0 up to the checkpoint's size.
    return b"".join(
        (
            b"subtree/v1\n\x00",
            _opaque(key.name),
            time.to_bytes(8, "big"),
            _opaque(checkpoint.origin),
            (0).to_bytes(8, "big"),
            checkpoint.size.to_bytes(8, "big"),
            checkpoint.root,
        )
    )


def _opaque(text: str) -> bytes:
    raw = text.encode()
    return bytes([len(raw)]) + raw
