"""Who signed a checkpoint: the log's signature, and the witnesses' with their times.

Only the keys of root's log policy count; every other signature is ignored, as signed-note says.
"""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from modelward.errors import Gate, Refused, Unavailable
from modelward.formats.checkpoint import SignedCheckpoint
from modelward.formats.cosignature import Cosignature, signed_message
from modelward.formats.log_policy import LogPolicy
from modelward.formats.note import SignatureType, VerifierKey

# The last second that has a date; `datetime.max` is rounded up, to one that has none.
NO_LIMIT = datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC)


class UnsupportedSignature(Unavailable):
    """The installed `cryptography` cannot verify this type of signature."""


@dataclass(frozen=True)
class Cosigners:
    """The witnesses whose cosignatures on one checkpoint are valid.

    Attributes:
        times: When each one signed, by the policy's names, as POSIX seconds: 0 where a witness
            makes no statement about the time.
        ignored: Witnesses that signed but do not count, and why.
    """

    times: Mapping[str, int]
    ignored: Mapping[str, str]

    def quorum_time(self, policy: LogPolicy) -> datetime | None:
        """Return a time that a quorum of witnesses says has passed, or None.

        One witness with a stolen key must not be able to move a device's clock forward: it is the
        latest time for which those who signed then or later are still a quorum.
        """
        for time in sorted(set(self.times.values()), reverse=True):
            if policy.quorum and policy.is_quorum(_since(self.times, time)):
                return datetime.fromtimestamp(time, UTC) if time else None
        return None


def verify_log_signature(signed: SignedCheckpoint, key: VerifierKey) -> None:
    """Verify that a checkpoint is of a log, and signed by it.

    Raises:
        Refused: It is another log's, or the signature is missing or wrong (attack row 18).
        UnsupportedSignature: `cryptography` is too old for the log's key.
    """
    if signed.checkpoint.origin != key.name:
        raise refused(
            f"the checkpoint is of the log {signed.checkpoint.origin!r}; root names {key.name!r}"
        )
    signatures = signed.note.by(key)
    if not signatures:
        raise refused(f"the log {key.name} did not sign the checkpoint")
    for signature in signatures:
        if not _signs(key, signed, signature):
            raise refused(f"the signature of the log {key.name} on the checkpoint is not valid")


def verify_cosignatures(
    signed: SignedCheckpoint, policy: LogPolicy, not_after: datetime
) -> Cosigners:
    """Verify every cosignature on a checkpoint by a witness of the policy.

    Args:
        signed: The checkpoint.
        policy: Which witnesses there are.
        not_after: Cosignatures from later than this do not count (attack row 18); at most
            `NO_LIMIT`.

    Raises:
        Refused: A cosignature by a known witness is not valid.
    """
    times: dict[str, int] = {}
    ignored: dict[str, str] = {}
    for name, key in policy.witnesses.items():
        for signature in signed.note.by(key):
            cosignature = Cosignature.parse(signature, key.type)
            try:
                valid = _signs(key, signed, signature)
            except UnsupportedSignature as error:
                ignored[name] = error.reason
                continue
            if not valid:
                # "If a signature from a known key fails to verify, clients SHOULD reject the
                # whole note" (signed-note).
                raise refused(f"the cosignature of witness {name!r} is not valid")
            if cosignature.time > not_after.timestamp():
                ignored[name] = "its time is in the future"
            else:
                times[name] = max(times.get(name, 0), cosignature.time)
    return Cosigners(times, {name: why for name, why in ignored.items() if name not in times})


def _signs(key: VerifierKey, signed: SignedCheckpoint, signature: bytes) -> bool:
    """Tell whether a key made a signature: of a note, or of a checkpoint with its time."""
    if key.type is SignatureType.ED25519:
        return _is_valid(key, signature, signed.note.text.encode())
    cosignature = Cosignature.parse(signature, key.type)
    message = signed_message(key, signed.checkpoint, cosignature.time)
    return _is_valid(key, cosignature.signature, message)


def _is_valid(key: VerifierKey, signature: bytes, message: bytes) -> bool:
    # Imported here: a check that finds nothing new verifies nothing.
    from cryptography.exceptions import InvalidSignature  # noqa: PLC0415

    try:
        _verifier(key)(signature, message)
    except (InvalidSignature, ValueError):
        return False
    return True


def _verifier(key: VerifierKey) -> Callable[[bytes, bytes], None]:
    if key.type is not SignatureType.COSIGNATURE_ML_DSA_44:
        from cryptography.hazmat.primitives.asymmetric.ed25519 import (  # noqa: PLC0415
            Ed25519PublicKey,
        )

        return Ed25519PublicKey.from_public_bytes(key.public_key).verify
    from cryptography.exceptions import UnsupportedAlgorithm  # noqa: PLC0415

    try:
        from cryptography.hazmat.primitives.asymmetric.mldsa import (  # noqa: PLC0415
            MLDSA44PublicKey,
        )

        return MLDSA44PublicKey.from_public_bytes(key.public_key).verify
    except (ImportError, UnsupportedAlgorithm) as error:
        raise UnsupportedSignature(
            "ML-DSA-44 cannot be verified on this device",
            "install cryptography 47 or later, built with OpenSSL 3.5 or AWS-LC",
            Gate.LOG,
        ) from error


def _since(times: Mapping[str, int], time: int) -> Collection[str]:
    return {name for name, signed_at in times.items() if signed_at >= time}


def refused(reason: str) -> Refused:
    """Return, for the caller to raise, the refusal of a log proof."""
    return Refused(
        Gate.LOG,
        reason,
        "do not use this server; ask the security team whether this release was logged",
    )
