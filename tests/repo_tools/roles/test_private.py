import shutil
import subprocess
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from modelward.errors import UsageError
from modelward_repo.roles import private

SECRET = b"correct horse"


@pytest.fixture(autouse=True)
def cheap(monkeypatch: pytest.MonkeyPatch) -> None:
    """The real cost takes a third of a second a key."""
    monkeypatch.setattr(private, "SCRYPT_COST", 2)


def nobody() -> bytes:
    raise AssertionError("asked for a passphrase")


def public(key: private.Private) -> bytes:
    return key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


@pytest.mark.parametrize("scheme", private.SCHEMES)
@pytest.mark.parametrize("passphrase", [None, SECRET])
def test_what_is_written_is_read(scheme: str, passphrase: bytes | None) -> None:
    key = private.generate(scheme)
    data = private.dump(key, passphrase, rounds=1)
    assert private.is_encrypted(data) == bool(passphrase)
    read = private.load(data, (lambda: SECRET) if passphrase else nobody)
    assert public(read) == public(key)


@pytest.mark.parametrize("scheme", private.SCHEMES)
@pytest.mark.parametrize("wrong", [b"battery staple", b""])
def test_a_wrong_passphrase_opens_nothing_and_is_not_quoted(scheme: str, wrong: bytes) -> None:
    data = private.dump(private.generate(scheme), SECRET, rounds=1)
    with pytest.raises(ValueError, match=r"^wrong passphrase, or not a key file$") as caught:
        private.load(data, lambda: wrong)
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__


def test_the_cost_is_at_least_what_is_recommended() -> None:
    # OWASP's least for scrypt at this block size: N=2^14 five times.
    import importlib  # noqa: PLC0415

    fresh = importlib.reload(private)
    assert fresh.SCRYPT_COST >= 1 << 14
    assert fresh.SCRYPT_TIMES >= 5


@pytest.mark.parametrize("kind", ["pkcs8", "encrypted pkcs8", "sec1", "encrypted sec1"])
def test_keys_made_by_others_are_read(kind: str) -> None:
    key = ec.generate_private_key(ec.SECP384R1())
    form = PrivateFormat.PKCS8 if "pkcs8" in kind else PrivateFormat.TraditionalOpenSSL
    encryption = BestAvailableEncryption(SECRET) if "encrypted" in kind else NoEncryption()
    data = key.private_bytes(Encoding.PEM, form, encryption)
    assert private.is_encrypted(data) == ("encrypted" in kind)
    assert public(private.load(data, lambda: SECRET)) == public(key)


@pytest.mark.parametrize(
    "key",
    [ec.generate_private_key(ec.SECP521R1()), rsa.generate_private_key(65537, 2048)],
    ids=["P-521", "RSA"],
)
def test_kinds_that_are_not_supported(key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey) -> None:
    data = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    with pytest.raises(ValueError, match="of a kind that is not supported"):
        private.load(data, nobody)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xff",
        b"-----BEGIN OPENSSH PRIVATE KEY-----",
        b"-----BEGIN OPENSSH PRIVATE KEY-----\n!!\n-----END OPENSSH PRIVATE KEY-----\n",
        b"-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n",
    ],
)
def test_what_is_no_key(data: bytes) -> None:
    with pytest.raises(ValueError, match="not a key file"):
        private.load(data, lambda: SECRET)


def test_unknown_schemes() -> None:
    with pytest.raises(UsageError, match="unknown key scheme 'rsa'"):
        private.generate("rsa")


@pytest.mark.skipif(not shutil.which("openssl"), reason="no openssl here")
def test_openssl_reads_the_envelope_at_its_real_cost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """OpenSSL has ML-DSA only from 3.5 on, so the envelope is tried with a key it knows."""
    monkeypatch.setattr(private, "SCRYPT_COST", 1 << 14)
    key = ed25519.Ed25519PrivateKey.generate()
    (tmp_path / "key").write_bytes(private._pem(private._seal(key, SECRET)))
    (tmp_path / "pass").write_bytes(SECRET)
    args = ["-in", tmp_path / "key", "-passin", f"file:{tmp_path}/pass", "-pubout"]
    done = subprocess.run(
        ["openssl", "pkey", *args, "-outform", "DER"], capture_output=True, check=True
    )
    assert done.stdout == public(key)
