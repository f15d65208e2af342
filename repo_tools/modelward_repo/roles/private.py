"""Private keys as they stand in files: made, written, read.

Ed25519 and ECDSA keys are written in OpenSSH's format, whose bcrypt rounds are a real work factor.
OpenSSH has no ML-DSA, so those keys are written as encrypted PKCS#8 (RFC 5958) under scrypt
(RFC 7914): `cryptography` reads that, as does OpenSSL, but itself writes PKCS#8 with 2,048 rounds
of PBKDF2 only. So the envelope is put together here; nothing here reads it. See ADR 7.
"""

import base64
import os
from collections.abc import Callable
from typing import Any

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat import asn1
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, mldsa
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt
from cryptography.hazmat.primitives.padding import PKCS7
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
    load_ssh_private_key,
)
from cryptography.x509 import ObjectIdentifier

from modelward.errors import UsageError

Private = (
    ed25519.Ed25519PrivateKey
    | ec.EllipticCurvePrivateKey
    | mldsa.MLDSA44PrivateKey
    | mldsa.MLDSA65PrivateKey
    | mldsa.MLDSA87PrivateKey
)

_MAKERS: dict[str, Callable[[], Private]] = {
    "ed25519": ed25519.Ed25519PrivateKey.generate,
    "ecdsa-sha2-nistp256": lambda: ec.generate_private_key(ec.SECP256R1()),
    "ecdsa-sha2-nistp384": lambda: ec.generate_private_key(ec.SECP384R1()),
    "ml-dsa-65": mldsa.MLDSA65PrivateKey.generate,
}
SCHEMES = tuple(_MAKERS)

# 16 MiB, one after the other 8 times: a third of a second. More memory at once, and OpenSSL,
# which allows 32 MiB, could no longer read the file.
SCRYPT_COST = 1 << 14
SCRYPT_TIMES = 8
_SCRYPT_BLOCK = 8
_KEY_LENGTH = 32

_PBES2 = ObjectIdentifier("1.2.840.113549.1.5.13")
_SCRYPT = ObjectIdentifier("1.3.6.1.4.1.11591.4.11")
_AES_256_CBC = ObjectIdentifier("2.16.840.1.101.3.4.1.42")
_OPENSSH = b"-----BEGIN OPENSSH PRIVATE KEY-----"
_ENCRYPTED_PKCS8 = b"-----BEGIN ENCRYPTED PRIVATE KEY-----"
_OPENSSH_PLAIN = b"openssh-key-v1\0\0\0\0\4none"


def generate(scheme: str) -> Private:
    """Return a new private key.

    Args:
        scheme: One of `SCHEMES`; ML-DSA's with or without the version that TUF gives it.

    Raises:
        UsageError: The scheme is another.
    """
    try:
        return _MAKERS[scheme.removesuffix("/1")]()
    except KeyError:
        raise UsageError(
            f"unknown key scheme {scheme!r}", f"use one of {', '.join(SCHEMES)}"
        ) from None


def dump(private: Private, passphrase: bytes | None, rounds: int) -> bytes:
    """Return a private key's file.

    Args:
        private: The key.
        passphrase: What to encrypt it with; None to leave it readable.
        rounds: Of bcrypt, for the keys that OpenSSH knows.
    """
    if isinstance(private, ed25519.Ed25519PrivateKey | ec.EllipticCurvePrivateKey):
        encryption = (
            PrivateFormat.OpenSSH.encryption_builder().kdf_rounds(rounds).build(passphrase)
            if passphrase
            else NoEncryption()
        )
        return private.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, encryption)
    if not passphrase:
        return private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return _pem(_seal(private, passphrase))


def load(data: bytes, passphrase: Callable[[], bytes]) -> Private:
    """Read a private key's file: OpenSSH's format, or PKCS#8.

    Args:
        data: The file.
        passphrase: Asked for the passphrase if the key is encrypted.

    Raises:
        ValueError: Wrong passphrase, or not a key of a supported kind. The message says nothing
            of what was given.
    """
    read: Callable[..., Any] = load_pem_private_key
    if data.startswith(_OPENSSH):
        read = load_ssh_private_key
    secret = passphrase() if is_encrypted(data) else None
    try:
        private = read(data, password=secret)
    except (TypeError, ValueError, UnsupportedAlgorithm):
        # The cause is not chained: library messages may quote what they were given.
        raise ValueError("wrong passphrase, or not a key file") from None
    curve = private.curve if isinstance(private, ec.EllipticCurvePrivateKey) else None
    if not isinstance(private, Private) or not isinstance(
        curve, ec.SECP256R1 | ec.SECP384R1 | None
    ):
        raise ValueError("it is of a kind that is not supported")  # noqa: TRY004 - as documented
    return private


def is_encrypted(data: bytes) -> bool:
    """Tell whether the private key in a file is encrypted, without reading it."""
    if data.startswith(_OPENSSH):
        body = b"".join(data.split(b"-----")[2].split())[:64]
        try:
            return not base64.b64decode(body).startswith(_OPENSSH_PLAIN)
        except ValueError:
            return True
    return data.startswith(_ENCRYPTED_PKCS8) or b"\nProc-Type: 4,ENCRYPTED" in data


@asn1.sequence
class _ScryptParameters:
    salt: bytes
    cost: int
    block_size: int
    parallelization: int
    key_length: int


@asn1.sequence
class _Derivation:
    algorithm: ObjectIdentifier
    parameters: _ScryptParameters


@asn1.sequence
class _Encryption:
    algorithm: ObjectIdentifier
    iv: bytes


@asn1.sequence
class _Scheme:
    derivation: _Derivation
    encryption: _Encryption


@asn1.sequence
class _Algorithm:
    algorithm: ObjectIdentifier
    parameters: _Scheme


@asn1.sequence
class _EncryptedPrivateKeyInfo:
    algorithm: _Algorithm
    data: bytes


def _seal(private: Private, passphrase: bytes) -> bytes:
    salt, iv = os.urandom(16), os.urandom(16)
    derivation = Scrypt(
        salt=salt, length=_KEY_LENGTH, n=SCRYPT_COST, r=_SCRYPT_BLOCK, p=SCRYPT_TIMES
    )
    plain = private.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
    padder = PKCS7(algorithms.AES.block_size).padder()
    cipher = Cipher(algorithms.AES(derivation.derive(passphrase)), modes.CBC(iv)).encryptor()
    sealed = cipher.update(padder.update(plain) + padder.finalize()) + cipher.finalize()
    parameters = _ScryptParameters(
        salt=salt,
        cost=SCRYPT_COST,
        block_size=_SCRYPT_BLOCK,
        parallelization=SCRYPT_TIMES,
        key_length=_KEY_LENGTH,
    )
    scheme = _Scheme(
        derivation=_Derivation(algorithm=_SCRYPT, parameters=parameters),
        encryption=_Encryption(algorithm=_AES_256_CBC, iv=iv),
    )
    return asn1.encode_der(
        _EncryptedPrivateKeyInfo(
            algorithm=_Algorithm(algorithm=_PBES2, parameters=scheme), data=sealed
        )
    )


def _pem(der: bytes) -> bytes:
    text = base64.b64encode(der)
    lines = [text[at : at + 64] for at in range(0, len(text), 64)]
    return b"\n".join([_ENCRYPTED_PKCS8, *lines, _ENCRYPTED_PKCS8.replace(b"BEGIN", b"END"), b""])
