"""A holder's keys: the folder they lie in, or that says where they are.

A private key is encrypted unless the user says otherwise (see `modelward_repo.roles.private`),
readable by its owner only, and never written over an existing file. Beside it stands the public
key, as TUF and in-toto write it. A key that is on a token, with a key service or in an SSH agent
has a ``.ref`` file in place of the private key: one line, its URI (see
`modelward_repo.roles.remote`).

Keys lie in one folder a holder, as if on separate machines::

    KEYS/alice/root.key             KEYS/alice/root.pub
    KEYS/bob/root.ref               KEYS/bob/root.pub
    KEYS/train-ci/functionary.key   ...
"""

import os
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

from securesystemslib.signer import CryptoSigner, Signer, SSlibKey
from securesystemslib.signer import Key as SecureKey

from modelward.errors import FormatError, UsageError
from modelward.formats import strict
from modelward.formats.policy import Key
from modelward_repo.roles import private, remote
from modelward_repo.roles.remote import Ask

KDF_ROUNDS = 64  # of bcrypt: about a second on a laptop of 2020
PRIVATE = ".key"
PUBLIC = ".pub"
REFERENCE = ".ref"
_CAP = 65_536

Passphrase = Ask


@dataclass(frozen=True)
class KeyFile:
    """Where a key lies.

    Attributes:
        path: The private key's file, or the file with its URI; which of both is there counts.
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

    @property
    def reference_path(self) -> Path:
        """The file with the key's URI, where there is one."""
        return self.path.with_suffix(REFERENCE)

    @property
    def name(self) -> str:
        """Holder and name."""
        return f"{self.path.parent.name}/{self.path.stem}"

    def exists(self) -> bool:
        """Tell whether the private key is here, or where it is."""
        return self.path.exists() or self.reference_path.exists()

    def reference(self) -> str | None:
        """Return the key's URI; None if the private key lies in a file, or nowhere here.

        Raises:
            UsageError: The file with it cannot be read or holds no such thing, or there is a
                private key too.
        """
        try:
            with self.reference_path.open("rb") as file:
                data = file.read(remote.MAX_URI + 2)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise UsageError(f"{self.reference_path} cannot be read: {error.strerror}") from error
        if self.reference_path.with_suffix(PRIVATE).exists():
            raise UsageError(
                f"of the key {self.name} there is both a {PRIVATE} and a {REFERENCE} file",
                "move one of them away: it must be clear which key signs",
            )
        try:
            return remote.check_uri(data.decode().rstrip("\r\n"))
        except UnicodeDecodeError:
            raise UsageError(f"{self.reference_path} is not one line of text") from None
        except UsageError as error:
            raise UsageError(f"{self.reference_path}: {error.reason}", error.advice) from error

    def is_encrypted(self) -> bool:
        """Tell whether a private key that lies here is encrypted.

        Raises:
            UsageError: It cannot be read.
        """
        return private.is_encrypted(self._read())

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
            scheme: One of `modelward_repo.roles.private.SCHEMES`.

        Raises:
            UsageError: The file exists, or the scheme is unknown.
        """
        made = private.generate(scheme)
        self.check_free()
        self.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        _write_new(self.path, private.dump(made, passphrase, KDF_ROUNDS), 0o600)
        signer = CryptoSigner(made)
        self.write_public(from_sslib(signer.public_key))
        return signer

    def refer(self, uri: str, ask: Ask) -> Key:
        """Have a key that is elsewhere as this one: write its URI and public half.

        Args:
            uri: Where it is.
            ask: Asked for a PIN, if the public half can only be had with it.

        Raises:
            UsageError: A file exists, or the key cannot be had.
            Unavailable: The token or service could not be reached.
        """
        self.check_free()
        exact, found = remote.find_key(uri, ask)
        key = from_sslib(found)
        self.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        if not self.public_path.exists():
            self.write_public(key)
        elif self.public() != key:
            raise UsageError(
                f"{self.public_path} is another key than the one at {exact}",
                "move it away if it is not wanted any more; rotating is a ceremony of its own",
            )
        _write_new(self.reference_path, f"{exact}\n".encode(), 0o600)
        return key

    def check_free(self) -> None:
        """Require that there is no such key yet.

        Raises:
            UsageError: There is.
        """
        for path in (self.path, self.reference_path):
            if path.exists():
                raise _exists(path)

    def write_public(self, public: Key) -> None:
        """Write the public key's file.

        Raises:
            UsageError: It exists.
        """
        document = {"keyid": public.keyid, **public.to_dict()}
        _write_new(self.public_path, strict.dump(document), 0o644)

    def signer(self, ask: Ask) -> Signer:
        """Open the private key, asking for its passphrase or PIN only if it has one.

        Raises:
            UsageError: It cannot be read or opened, or the passphrase or PIN is wrong.
            Unavailable: It is elsewhere, and could not be reached.
        """
        uri = self.reference()
        if uri:
            public = sslib_key(self.public()) if self.public_path.exists() else None
            return remote.open_uri(uri, ask, public)
        data = self._read()
        try:
            return CryptoSigner(private.load(data, lambda: ask(self.path)))
        except ValueError as error:
            raise UsageError(f"the key {self.path} could not be opened: {error}") from None

    def _read(self) -> bytes:
        try:
            with self.path.open("rb") as file:
                return file.read(_CAP)
        except OSError as error:
            raise UsageError(
                f"the key {self.path} cannot be read: {error.strerror}",
                "run this where that key is kept, or name another file or folder of keys",
            ) from error


def find_keys(keys: Path) -> Iterator[KeyFile]:
    """Yield every key whose public half lies in a folder of holders."""
    for path in sorted(keys.glob(f"*/*{PUBLIC}")):
        yield KeyFile(path.with_suffix(PRIVATE))


def find_signers(
    keys: Path,
    name: str,
    keyids: Collection[str],
    threshold: int,
    passphrase: Ask,
) -> list[Signer]:
    """Load as many private keys of a role as it takes, and no other private key.

    Args:
        keys: Folder of holders.
        name: Name of the key files, which is the role's.
        keyids: Key ids that may sign as the role.
        threshold: How many must sign.
        passphrase: Asked for the passphrase of an encrypted key, or the PIN of a token.

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


def from_sslib(key: SecureKey) -> Key:
    """Return a key as the formats have it."""
    return Key(key.keyid, key.keytype, key.scheme, key.keyval["public"])


def _exists(path: Path) -> UsageError:
    return UsageError(f"{path} exists already", "a key is never overwritten: move it away first")


def _write_new(path: Path, data: bytes, mode: int) -> None:
    """Write a file that must not exist yet, with its final mode from the first byte on."""
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    except FileExistsError as error:
        raise _exists(path) from error
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
