"""Is a report the device's own? Pure: the envelope, and the key registered for the device."""

from modelward.formats.dsse import Envelope
from modelward.formats.policy import Key

SCHEME = "ed25519"


def device_key(public: bytes) -> Key:
    """Return a device's public key, with its id, as everything else writes keys.

    Args:
        public: The raw Ed25519 key, 32 bytes.
    """
    unnamed = Key("", SCHEME, SCHEME, public.hex())
    return Key(unnamed.fingerprint(), SCHEME, SCHEME, unnamed.public)


def is_signed(envelope: Envelope, key: Key) -> bool:
    """Tell whether a device's key made the one signature of an envelope (attack row 34)."""
    # Imported here: most commands of a device verify no report.
    from cryptography.exceptions import InvalidSignature  # noqa: PLC0415
    from cryptography.hazmat.primitives.asymmetric.ed25519 import (  # noqa: PLC0415
        Ed25519PublicKey,
    )

    if list(envelope.signatures) != [key.keyid] or key.scheme != SCHEME:
        return False
    public = Ed25519PublicKey.from_public_bytes(bytes.fromhex(key.public))
    try:
        public.verify(envelope.signatures[key.keyid], envelope.signed_bytes)
    except InvalidSignature:
        return False
    return True
