"""OpenSSF Model Signing v1.0: `model.sig`, verified with `cryptography` alone.

A Sigstore bundle (v0.3) around a DSSE envelope around an in-toto statement whose predicate lists
every file of the model with its digest. Source: github.com/ossf/model-signing-spec. Only the
key method with the `files` serialization and SHA-256 is accepted.
"""

import hashlib
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from modelward.formats import strict

DOCUMENT = "model signature"
CAP = 4 << 20
BUNDLE_TYPE = "application/vnd.dev.sigstore.bundle.v0.3+json"
PAYLOAD_TYPE = "application/vnd.in-toto+json"
STATEMENT_TYPE = "https://in-toto.io/Statement/v1"
PREDICATE_TYPE = "https://model_signing/signature/v1.0"


def statement(resources: Mapping[str, str], name: str) -> dict[str, Any]:
    """Return the statement that a signature over these files makes.

    Args:
        resources: SHA-256 digests by path; the signature's own file is not among them.
        name: What to call the model.
    """
    paths = sorted(resources)
    return {
        "_type": STATEMENT_TYPE,
        "subject": [{"name": name, "digest": {"sha256": _root(resources)}}],
        "predicateType": PREDICATE_TYPE,
        "predicate": {
            "serialization": {
                "method": "files",
                "hash_type": "sha256",
                "allow_symlinks": False,
                "ignore_paths": [],
            },
            "resources": [
                {"name": path, "digest": resources[path], "algorithm": "sha256"} for path in paths
            ],
        },
    }


def pae(payload: bytes) -> bytes:
    """Return what is signed: DSSE's pre-authentication encoding."""
    return b"DSSEv1 %d %b %d %b" % (len(PAYLOAD_TYPE), PAYLOAD_TYPE.encode(), len(payload), payload)


def key_hint(pem: str) -> str:
    """Return how a bundle names a key: the digest of its PEM text."""
    return hashlib.sha256(pem.encode()).hexdigest()


def verify(
    data: bytes,
    resources: Mapping[str, str],
    signers: Sequence[str],
    optional: Collection[str] = (),
) -> str:
    """Verify a signature over exactly these files.

    Args:
        data: The bundle.
        resources: SHA-256 digests by path of every file but the signature.
        signers: PEM public keys of which one must have signed.
        optional: Paths that the signature may leave out.

    Returns:
        The PEM of the key that signed.

    Raises:
        FormatError: The bundle is ill-formed.
        ValueError: It is not over these files, or not by one of these keys.
    """
    fields = strict.Fields(DOCUMENT, strict.load(DOCUMENT, data, CAP))
    if fields.any("mediaType") != BUNDLE_TYPE:
        raise fields.wrong("mediaType", f"must be {BUNDLE_TYPE!r}")
    envelope = fields.fields("dsseEnvelope")
    if envelope.any("payloadType") != PAYLOAD_TYPE:
        raise envelope.wrong("payloadType", f"must be {PAYLOAD_TYPE!r}")
    payload = envelope.base64("payload")
    signatures = [item.base64("sig") for item in envelope.each("signatures", most=1)]
    if not signatures:
        raise envelope.wrong("signatures", "is empty")
    hint = fields.fields("verificationMaterial").fields("publicKey").text("hint", most=128)
    pem = next((pem for pem in signers if key_hint(pem) == hint), None)
    if pem is None:
        raise ValueError("it was made with a key that the policy does not name")
    _verify_raw(pem, signatures[0], pae(payload))
    _check_statement(payload, resources, optional)
    return pem


def _verify_raw(pem: str, signature: bytes, message: bytes) -> None:
    from cryptography.exceptions import (  # noqa: PLC0415 - lean start-up
        InvalidSignature,
        UnsupportedAlgorithm,
    )
    from cryptography.hazmat.primitives import hashes  # noqa: PLC0415
    from cryptography.hazmat.primitives.asymmetric import ec  # noqa: PLC0415
    from cryptography.hazmat.primitives.serialization import load_pem_public_key  # noqa: PLC0415

    # The specification ties each curve to the digest of its size.
    digests = {
        "secp256r1": hashes.SHA256(),
        "secp384r1": hashes.SHA384(),
        "secp521r1": hashes.SHA512(),
    }
    try:
        key = load_pem_public_key(pem.encode())
    except (ValueError, UnsupportedAlgorithm) as error:
        raise ValueError("the policy's signer is not a public key") from error
    if not isinstance(key, ec.EllipticCurvePublicKey) or key.curve.name not in digests:
        raise ValueError("the policy's signer is not a P-256, P-384 or P-521 key")
    try:
        key.verify(signature, message, ec.ECDSA(digests[key.curve.name]))
    except InvalidSignature as error:
        raise ValueError("the signature is not valid") from error


def _check_statement(
    payload: bytes, resources: Mapping[str, str], optional: Collection[str]
) -> None:
    fields = strict.Fields(DOCUMENT, strict.load(DOCUMENT, payload, CAP))
    if fields.any("_type") != STATEMENT_TYPE or fields.any("predicateType") != PREDICATE_TYPE:
        raise fields.wrong("predicateType", "is not a model signature, version 1.0")
    predicate = fields.fields("predicate")
    signed: dict[str, str] = {}
    for item in predicate.each("resources"):
        if item.any("algorithm") != "sha256":
            raise item.wrong("algorithm", "must be 'sha256'")
        name = item.text("name")
        if name in signed:
            raise item.wrong("name", "appears twice")
        signed[name] = item.sha256("digest")
    for path in sorted(signed.keys() | resources.keys()):
        left_out = path in optional and path not in signed
        if not left_out and signed.get(path) != resources.get(path):
            raise ValueError(f"{path!r} is not the file that was signed")
    subjects = list(fields.each("subject", most=1))
    if not subjects or subjects[0].fields("digest").sha256("sha256") != _root(signed):
        raise ValueError("its subject is not the digest of the files it lists")


def _root(resources: Mapping[str, str]) -> str:
    raw = b"".join(bytes.fromhex(resources[path]) for path in sorted(resources))
    return hashlib.sha256(raw).hexdigest()
