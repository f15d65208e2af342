"""A witness's private keys, as they stand in files."""

import os
from collections.abc import Callable
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import ed25519, mldsa

from modelward.errors import FormatError, UsageError
from modelward.formats.note import SignatureType, VerifierKey, check_name
from modelward_repo.log.witness import CosigningKey
from modelward_repo.roles import private
from modelward_repo.roles.keys import KDF_ROUNDS

_CAP = 65_536


def create(path: Path, *, post_quantum: bool, passphrase: bytes | None) -> None:
    """Make a private key.

    Args:
        path: Where; must not exist.
        post_quantum: Whether it is an ML-DSA-44 key instead of an Ed25519 one.
        passphrase: What to encrypt it with; None to leave it readable.

    Raises:
        UsageError: The file exists, or cannot be made.
    """
    made = (
        mldsa.MLDSA44PrivateKey.generate() if post_quantum else ed25519.Ed25519PrivateKey.generate()
    )
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(private.dump(made, passphrase, KDF_ROUNDS))
            file.flush()
            os.fsync(file.fileno())
    except FileExistsError as error:
        raise UsageError(f"{path} exists already", "a key is never overwritten") from error
    except OSError as error:
        raise UsageError(f"{path} cannot be made: {error.strerror}") from error


def load(path: Path, name: str, passphrase: Callable[[Path], bytes]) -> CosigningKey:
    """Read a private key.

    Args:
        path: The file.
        name: The witness's name, which it signs under.
        passphrase: Asked for the passphrase, if the key is encrypted.

    Raises:
        UsageError: It cannot be read, or is of a kind that witnesses do not sign with.
    """
    try:
        check_name(name, "witness", "name")
    except FormatError as error:
        raise UsageError(f"{name!r} is no name for a witness: {error.problem}") from error
    try:
        with path.open("rb") as file:
            data = file.read(_CAP)
        key = private.load(data, lambda: passphrase(path))
    except OSError as error:
        raise UsageError(
            f"the key {path} cannot be read: {error.strerror}",
            "make one with `modelward-repo witness key`",
        ) from error
    except ValueError as error:
        raise UsageError(f"the key {path} could not be opened: {error}") from None
    if isinstance(key, ed25519.Ed25519PrivateKey):
        kind = SignatureType.COSIGNATURE_ED25519
    elif isinstance(key, mldsa.MLDSA44PrivateKey):
        kind = SignatureType.COSIGNATURE_ML_DSA_44
    else:
        raise UsageError(f"{path} is neither an Ed25519 key nor an ML-DSA-44 one")
    public = key.public_key().public_bytes_raw()
    return CosigningKey(VerifierKey(name, kind, public), key.sign)
