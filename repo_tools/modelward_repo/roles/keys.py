"""Key files: one private key a file, encrypted unless the user says otherwise.

A private key is written in OpenSSH's format, whose bcrypt rounds are a real work factor
(PKCS#8 as `cryptography` writes it has 2,048 rounds of PBKDF2), readable by its owner only, and
never over an existing file. Beside it stands the public key, as TUF and in-toto write it.

Keys lie in one folder a holder, as if on separate machines::

    KEYS/alice/root.key    KEYS/alice/root.pub
    KEYS/train-ci/functionary.key ...
"""

import os
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_ssh_private_key,
)
from securesystemslib.signer import CryptoSigner, SSlibKey

from modelward.errors import FormatError, UsageError
from modelward.formats import strict
from modelward.formats.policy import Key

KDF_ROUNDS = 64  # of bcrypt: about a second on a laptop of 2020
PRIVATE = ".key"
PUBLIC = ".pub"
_CAP = 65_536

Passphrase = Callable[[Path], bytes]


@dataclass(frozen=True)
class KeyFile:
    """Where a key lies.

    Attributes:
        path: The private key's file.
    """

    path: Path

    @classmethod
    def of(cls, keys: Path, holder: str, name: str) -> "KeyFile":
        """Return the key `name` of a holder in a folder of holders."""
        return cls(keys / holder / f"{name}{PRIVATE}")

    @property
    def public_path(self) -> Path:
        """The public key's file."""
        return self.path.with_suffix(PUBLIC)

    def exists(self) -> bool:
        """Tell whether the private key is here."""
        return self.path.exists()

    def public(self) -> Key:
        """Return the public key.

        Raises:
            UsageError: There is none, or it is not a key.
        """
        try:
            data = self.public_path.read_bytes()
        except OSError as error:
            raise UsageError(
                f"the public key {self.public_path} cannot be read: {error.strerror}",
                "ask its holder for the .pub file, or create one with `modelward-repo key create`",
            ) from error
        try:
            fields = strict.Fields("public key", strict.load("public key", data, _CAP))
            return Key.from_fields(fields.sha256("keyid"), fields)
        except FormatError as error:
            raise UsageError(f"{self.public_path} is not a public key: {error.problem}") from error

    def create(self, passphrase: bytes | None, scheme: str = "ed25519") -> Key:
        """Create a key pair and return the public key. See `generate`.

        Raises:
            UsageError: The file exists, or the scheme is unknown.
        """
        return from_sslib(self.generate(passphrase, scheme).public_key)

    def generate(self, passphrase: bytes | None, scheme: str = "ed25519") -> CryptoSigner:
        """Create a key pair and return its signer, so that it need not be decrypted again.

        Args:
            passphrase: What to encrypt the private key with; None to leave it readable.
            scheme: ``ed25519`` or ``ecdsa-sha2-nistp256``.

        Raises:
            UsageError: The file exists, or the scheme is unknown.
        """
        private: ed25519.Ed25519PrivateKey | ec.EllipticCurvePrivateKey
        match scheme:
            case "ed25519":
                private = ed25519.Ed25519PrivateKey.generate()
            case "ecdsa-sha2-nistp256":
                private = ec.generate_private_key(ec.SECP256R1())
            case _:
                raise UsageError(f"unknown key scheme {scheme!r}", "use ed25519")
        encryption = (
            PrivateFormat.OpenSSH.encryption_builder().kdf_rounds(KDF_ROUNDS).build(passphrase)
            if passphrase
            else NoEncryption()
        )
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        except OSError as error:
            raise UsageError(f"{self.path.parent} cannot be made: {error.strerror}") from error
        _write_new(
            self.path, private.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, encryption), 0o600
        )
        public = _key(private)
        self.write_public(public)
        return CryptoSigner(private, sslib_key(public))

    def write_public(self, public: Key) -> None:
        """Write the public key's file.

        Raises:
            UsageError: It exists.
        """
        document = {"keyid": public.keyid, **public.to_dict()}
        _write_new(self.public_path, strict.dump(document), 0o644)

    def signer(self, passphrase: Passphrase) -> CryptoSigner:
        """Load the private key, asking for its passphrase only if it is encrypted.

        Raises:
            UsageError: The file cannot be read, or the passphrase is wrong.
        """
        try:
            data = self.path.read_bytes()
        except OSError as error:
            raise UsageError(
                f"the key {self.path} cannot be read: {error.strerror}",
                "run this where that key is kept, or name another folder with --keys",
            ) from error
        try:
            private = load_ssh_private_key(data, password=None)
        except (TypeError, ValueError, UnsupportedAlgorithm):
            try:
                private = load_ssh_private_key(data, password=passphrase(self.path))
            except (TypeError, ValueError, UnsupportedAlgorithm):
                # The cause is not chained: library messages may quote what they were given.
                raise UsageError(
                    f"the key {self.path} could not be opened: wrong passphrase, or not a key file"
                ) from None
        if not isinstance(private, ed25519.Ed25519PrivateKey | ec.EllipticCurvePrivateKey):
            raise UsageError(f"the key {self.path} is of a kind that is not supported")
        return CryptoSigner(private, sslib_key(_key(private)))


def find_keys(keys: Path) -> Iterator[KeyFile]:
    """Yield every key whose public half lies in a folder of holders."""
    for path in sorted(keys.glob(f"*/*{PUBLIC}")):
        yield KeyFile(path.with_suffix(PRIVATE))


def find_signers(
    keys: Path,
    name: str,
    keyids: Collection[str],
    threshold: int,
    passphrase: Passphrase,
) -> list[CryptoSigner]:
    """Load as many private keys of a role as it takes, and no other private key.

    Args:
        keys: Folder of holders.
        name: Name of the key files, which is the role's.
        keyids: Key ids that may sign as the role.
        threshold: How many must sign.
        passphrase: Asked for the passphrase of an encrypted key.

    Raises:
        UsageError: Fewer than the threshold are here.
    """
    here = [
        key
        for key in find_keys(keys)
        if key.path.stem == name and key.exists() and key.public().keyid in keyids
    ]
    if len(here) < threshold:
        raise UsageError(
            f"{threshold} of {len(keyids)} keys must sign as {name!r}, but {len(here)} "
            f"of them are in {keys}",
            f"run this where KEYS/<holder>/{name}.key is kept, and name that folder with --keys",
        )
    return [key.signer(passphrase) for key in here[:threshold]]


def sslib_key(key: Key) -> SSlibKey:
    """Return a key as securesystemslib and TUF want it."""
    return SSlibKey(key.keyid, key.keytype, key.scheme, {"public": key.public})


def from_sslib(key: SSlibKey) -> Key:
    """Return a key as the formats have it."""
    return Key(key.keyid, key.keytype, key.scheme, key.keyval["public"])


def _key(private: ed25519.Ed25519PrivateKey | ec.EllipticCurvePrivateKey) -> Key:
    public = private.public_key()
    if isinstance(public, ed25519.Ed25519PublicKey):
        raw = public.public_bytes(Encoding.Raw, PublicFormat.Raw).hex()
        key = Key("", "ed25519", "ed25519", raw)
    else:
        pem = public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()
        key = Key("", "ecdsa", "ecdsa-sha2-nistp256", pem)
    return Key(key.fingerprint(), key.keytype, key.scheme, key.public)


def _write_new(path: Path, data: bytes, mode: int) -> None:
    """Write a file that must not exist yet, with its final mode from the first byte on."""
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    except FileExistsError as error:
        raise UsageError(
            f"{path} exists already", "a key is never overwritten: move it away first"
        ) from error
    except OSError as error:
        raise UsageError(f"{path} cannot be made: {error.strerror}") from error
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        path.unlink(missing_ok=True)  # half a key would only be in the way
        raise UsageError(f"{path} cannot be written: {error.strerror}") from error
