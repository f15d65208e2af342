"""DSSE signatures of links and layouts."""

from securesystemslib.dsse import Envelope as SslibEnvelope
from securesystemslib.signer import Signer

from modelward.formats.dsse import PAYLOAD_TYPE, Envelope


def sign(envelope: Envelope, signer: Signer) -> Envelope:
    """Return the envelope with a signature over its payload, those of other keys kept."""
    # An envelope of its own, so that nothing but payload and type can be what is signed.
    signature = SslibEnvelope(envelope.payload, PAYLOAD_TYPE, {}).sign(signer)
    return Envelope(
        envelope.payload,
        envelope.content,
        {**envelope.signatures, signature.keyid: bytes.fromhex(signature.signature)},
    )
