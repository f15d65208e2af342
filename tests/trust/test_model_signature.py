"""OpenSSF model signatures: one that holds, and everything that must not."""

import base64
import copy
import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given
from hypothesis import strategies as st

from modelward.errors import FormatError
from modelward.trust import model_signature

VECTOR = Path(__file__).parents[1] / "vectors" / "model_signature"
FILES = {name: hashlib.sha256(name.encode()).hexdigest() for name in ("b.onnx", "a/z.json", "é")}
Edit = Callable[[dict[str, Any]], object]


def pem_of(key: Any) -> str:
    return key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()


KEY = ec.generate_private_key(ec.SECP256R1())
PEM = pem_of(KEY)


def encoded(data: bytes) -> str:
    return base64.b64encode(data).decode()


def bundle(
    statement: dict[str, Any] | bytes,
    key: ec.EllipticCurvePrivateKey = KEY,
    digest: hashes.HashAlgorithm | None = None,
    hint: str | None = None,
) -> dict[str, Any]:
    payload = statement if isinstance(statement, bytes) else json.dumps(statement).encode()
    message = model_signature.pae(payload)
    return {
        "mediaType": model_signature.BUNDLE_TYPE,
        "verificationMaterial": {
            "publicKey": {"hint": hint or model_signature.key_hint(pem_of(key))},
            "tlogEntries": [],
        },
        "dsseEnvelope": {
            "payload": encoded(payload),
            "payloadType": model_signature.PAYLOAD_TYPE,
            "signatures": [
                {"sig": encoded(key.sign(message, ec.ECDSA(digest or hashes.SHA256())))}
            ],
        },
    }


def verify(document: Any, files=FILES, signers=(PEM,)) -> str:
    data = document if isinstance(document, bytes) else json.dumps(document).encode()
    return model_signature.verify(data, files, signers)


HONEST = bundle(model_signature.statement(FILES, "m"))


def test_honest_signature():
    assert verify(HONEST) == PEM


def test_signature_of_the_reference_tool():
    model = VECTOR / "model"
    files = {
        str(path.relative_to(model)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in model.rglob("*")
        if path.is_file() and path.name != "model.sig"
    }
    pem = (VECTOR / "public.pem").read_text()
    assert verify((model / "model.sig").read_bytes(), files, (PEM, pem)) == pem
    with pytest.raises(ValueError, match=r"a\.txt"):
        verify((model / "model.sig").read_bytes(), files | {"a.txt": "0" * 64}, (pem,))


@pytest.mark.parametrize(
    ("curve", "digest"),
    [
        (ec.SECP256R1(), hashes.SHA256()),
        (ec.SECP384R1(), hashes.SHA384()),
        (ec.SECP521R1(), hashes.SHA512()),
    ],
)
def test_each_curve_goes_with_its_digest(curve, digest):
    key = ec.generate_private_key(curve)
    statement = model_signature.statement(FILES, "m")
    assert verify(bundle(statement, key, digest), signers=(pem_of(key),)) == pem_of(key)
    other = hashes.SHA512() if curve.key_size == 256 else hashes.SHA256()
    with pytest.raises(ValueError, match="signature is not valid"):
        verify(bundle(statement, key, other), signers=(pem_of(key),))


@pytest.mark.parametrize(
    "files",
    [
        {},
        {"b.onnx": FILES["b.onnx"]},
        FILES | {"extra": "0" * 64},
        FILES | {"b.onnx": "0" * 64},
        {f"x{name}": digest for name, digest in FILES.items()},
    ],
)
def test_other_files(files):
    with pytest.raises(ValueError, match="is not the file that was signed"):
        verify(HONEST, files)


def test_another_key():
    other = ec.generate_private_key(ec.SECP256R1())
    with pytest.raises(ValueError, match="the policy does not name"):
        verify(HONEST, signers=(pem_of(other),))
    with pytest.raises(ValueError, match="the policy does not name"):
        verify(HONEST, signers=())
    claimed = model_signature.key_hint(PEM)
    forged = bundle(model_signature.statement(FILES, "m"), other, hint=claimed)
    with pytest.raises(ValueError, match="signature is not valid"):
        verify(forged)


@pytest.mark.parametrize(
    "pem",
    [
        pem_of(ed25519.Ed25519PrivateKey.generate()),
        pem_of(ec.generate_private_key(ec.SECP256K1())),
        "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n",
        "-----BEGIN PUBLIC KEY-----\n",
    ],
    ids=["ed25519", "secp256k1", "garbage", "cut"],
)
def test_policy_that_names_an_unusable_key(pem):
    statement = model_signature.statement(FILES, "m")
    claiming = bundle(statement, hint=model_signature.key_hint(pem))
    with pytest.raises(ValueError, match="the policy's signer is not"):
        verify(claiming, signers=(pem,))


def edit(*place: Any, value: Any = None) -> Edit:
    def apply(document: dict[str, Any]) -> None:
        *above, last = place
        for key in above:
            document = document[key]
        if value is None:
            del document[last]
        else:
            document[last] = value

    return apply


@pytest.mark.parametrize(
    "change",
    [
        edit("mediaType"),
        edit("mediaType", value="application/vnd.dev.sigstore.bundle.v0.2+json"),
        edit("dsseEnvelope"),
        edit("dsseEnvelope", "payloadType", value="text/plain"),
        edit("dsseEnvelope", "payload"),
        edit("dsseEnvelope", "payload", value="not base64!"),
        edit("dsseEnvelope", "signatures", value=[]),
        edit("dsseEnvelope", "signatures", value=[{}]),
        edit("dsseEnvelope", "signatures", 0, "sig", value="not base64!"),
        edit("dsseEnvelope", "signatures", value=[{"sig": "AA=="}, {"sig": "AA=="}]),
        edit("verificationMaterial"),
        edit("verificationMaterial", "publicKey", "hint", value=7),
    ],
)
def test_bundle_that_is_ill_formed(change):
    document = copy.deepcopy(HONEST)
    change(document)
    with pytest.raises(FormatError, match="model signature"):
        verify(document)


@pytest.mark.parametrize(
    "change",
    [
        edit("_type", value="https://in-toto.io/Statement/v0.1"),
        edit("predicateType", value="https://model_signing/signature/v0.1"),
        edit("predicate"),
        edit("predicate", "resources"),
        edit("predicate", "resources", value=[]),
        edit("predicate", "resources", 0),
        edit("predicate", "resources", 0, "algorithm", value="sha512"),
        edit("predicate", "resources", 0, "digest", value="A" * 64),
        edit("predicate", "resources", 0, "digest", value="0" * 64),
        edit("predicate", "resources", 0, "name", value="../a"),
        edit("subject"),
        edit("subject", value=[]),
        edit("subject", 0, "digest", "sha256", value="0" * 64),
        edit("subject", value=[{}, {}]),
    ],
)
def test_statement_that_says_something_else(change):
    statement = model_signature.statement(FILES, "m")
    change(statement)
    with pytest.raises((FormatError, ValueError)):
        verify(bundle(statement))


def test_file_that_is_listed_twice():
    statement = model_signature.statement(FILES, "m")
    statement["predicate"]["resources"] *= 2
    with pytest.raises(FormatError, match="appears twice"):
        verify(bundle(statement))


def test_payload_that_two_parsers_would_read_differently():
    payload = json.dumps(model_signature.statement(FILES, "m"))
    with pytest.raises(FormatError, match="appears twice"):
        verify(bundle(payload.replace('{"_type"', '{"_type": "x", "_type"', 1).encode()))


@pytest.mark.fuzz
@given(st.binary(max_size=100) | st.data())
def test_any_change_is_refused(data):
    document = bytearray(json.dumps(HONEST).encode())
    if isinstance(data, bytes):
        document = bytearray(data)
    else:
        place = data.draw(st.integers(0, len(document) - 1))
        document[place] = data.draw(st.integers(0, 255).filter(lambda b: b != document[place]))
    try:
        verify(bytes(document))
    except (FormatError, ValueError):
        return
    assert same_meaning(bytes(document))


def same_meaning(document: bytes) -> bool:
    """Tell whether a changed bundle still says the same: unread fields, spaces, base64's slack."""
    changed = json.loads(document)
    for bundled in (changed, original := copy.deepcopy(HONEST)):
        del bundled["verificationMaterial"]
        envelope = bundled["dsseEnvelope"]
        envelope["payload"] = base64.b64decode(envelope["payload"])
        envelope["signatures"] = [base64.b64decode(s["sig"]) for s in envelope["signatures"]]
    return all(changed[name] == original[name] for name in original)
