"""Keys that count, formats by suffix."""

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from securesystemslib.signer import CryptoSigner

from modelward.errors import FormatError
from modelward.formats import strict
from modelward.formats.policy import Key, format_of


def key_from(signer: CryptoSigner) -> Key:
    public = signer.public_key
    fields = strict.Fields("x", public.to_dict())
    return Key.from_fields(public.keyid, fields)


@pytest.mark.parametrize(
    "signer",
    [CryptoSigner.generate_ed25519, CryptoSigner.generate_ecdsa, CryptoSigner.generate_rsa],
    ids=["ed25519", "ecdsa", "rsa"],
)
def test_key_id_is_the_one_tuf_gives(signer):
    made = signer()
    assert key_from(made).to_dict() == made.public_key.to_dict()


@pytest.mark.parametrize(
    "respell",
    [
        lambda pem: pem.replace("\n", "", 2),
        lambda pem: pem + "\n",
        lambda pem: "comment\n" + pem,
        lambda pem: pem.replace("\n", "\n ", 1),
        lambda pem: pem.replace("PUBLIC KEY", "CERTIFICATE"),
        lambda _: "",
    ],
)
def test_one_key_has_one_spelling(respell):
    pem = respell(
        ec.generate_private_key(ec.SECP256R1())
        .public_key()
        .public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
        .decode()
    )
    unnamed = Key("", "ecdsa", "ecdsa-sha2-nistp256", pem)
    with pytest.raises(FormatError):
        Key.from_fields(unnamed.fingerprint(), strict.Fields("x", unnamed.to_dict()))


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("model.onnx", "onnx"),
        ("a/MODEL.ONNX", "onnx"),
        ("a.pkl.onnx", "onnx"),
        ("LICENSE", "text"),
        ("licence", "text"),
        ("a.onnx.pkl", None),
        ("model.pt", None),
        ("model.bin", None),
        ("model", None),
        (".onnx", None),
        ("onnx/model", None),
    ],
)
def test_format_of(path, name):
    assert format_of(path) == name
