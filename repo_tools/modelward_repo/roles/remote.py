"""Keys that are not in a file: on a token, with a key service, in an SSH agent. By URI.

Whatever signs there is a library's own (securesystemslib's, but for the SSH agent). Here its
errors become ours, and each signature is verified before it is used: a token that holds another
key than its URI promises is found out at once, not by the fleet.
"""

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, cast

from cryptography.hazmat.primitives.serialization import load_pem_public_key
from securesystemslib.exceptions import UnsupportedLibraryError
from securesystemslib.signer import Key as SecureKey
from securesystemslib.signer import SecretsHandler, Signature, Signer, SSlibKey

from modelward.errors import ModelwardError, UsageError
from modelward.formats.policy import SCHEMES

MAX_URI = 2048

Ask = Callable[[Path | str], bytes]
"""Asks for a secret: the passphrase of the key file at a path, or what a text names, such as a
token's PIN. It comes from a person at a terminal or from a file; never from arguments or the
environment, which other processes can read."""


class Backend(Protocol):
    """Somewhere that keys are: a module of this package."""

    def check(self, uri: str) -> None:
        """Parse a URI without following it; UsageError if it makes no sense."""

    def find(self, uri: str, ask: Ask) -> tuple[str, SSlibKey]:
        """Return a key's public half, and the URI that means exactly this key ever after."""

    def open(self, uri: str, key: SSlibKey, ask: Ask) -> Signer:
        """Return a signer."""

    def explain(self, uri: str, error: Exception) -> ModelwardError:
        """Return what a library's error means to people."""


@dataclass(frozen=True)
class _Kind:
    module: str
    extra: str
    example: str


_KINDS: Mapping[str, _Kind] = {
    "pkcs11": _Kind("tokens", "hsm", "pkcs11:token=LABEL;id=%02?module-path=/usr/lib/...so"),
    "awskms": _Kind("kms", "aws", "awskms:alias/NAME"),
    "gcpkms": _Kind("kms", "gcp", "gcpkms:projects/P/.../cryptoKeys/K/cryptoKeyVersions/1"),
    "azurekms": _Kind("kms", "azure", "azurekms://VAULT.vault.azure.net/keys/NAME/VERSION"),
    "hv": _Kind("kms", "vault", "hv:NAME/VERSION"),
    "ssh-agent": _Kind("ssh_agent", "ssh", "ssh-agent:SHA256:FINGERPRINT"),
}


def scheme_of(reference: str) -> str | None:
    """Return the scheme of a URI that a key may have; None for anything else, such as a path."""
    scheme, colon, _ = reference.partition(":")
    return scheme if colon and scheme in _KINDS else None


def check_uri(uri: str) -> str:
    """Return a URI that names a key, without following it.

    Raises:
        UsageError: It is none, or makes no sense.
    """
    scheme = scheme_of(uri)
    if scheme is None:
        examples = "; ".join(kind.example for kind in _KINDS.values())
        # What was given is not shown: it may hold a PIN.
        raise UsageError("that is not the URI of a key", f"such as {examples}")
    if len(uri) > MAX_URI or not uri.isprintable() or " " in uri:
        raise UsageError(f"the {scheme}: URI is too long, or has a space or control character")
    _backend(scheme).check(uri)
    return uri


def find_key(uri: str, ask: Ask) -> tuple[str, SSlibKey]:
    """Return the public half of the key that a URI names, from where it is.

    Args:
        uri: The URI.
        ask: Asked for a PIN, if the public half is not public there.

    Returns:
        The URI that means exactly this key ever after (of a service, with the key's version),
        and the key.

    Raises:
        UsageError: There is no such key, it is of a kind that no device accepts, or what reaches
            it is not installed.
        Unavailable: It could not be reached.
    """
    scheme = cast("str", scheme_of(check_uri(uri)))
    backend = _backend(scheme)
    try:
        exact, key = backend.find(uri, ask)
    except Exception as error:  # noqa: BLE001 - each library has its own
        raise _explained(backend, uri, error) from None
    return exact, _checked(key, uri)


def open_uri(uri: str, ask: Ask, key: SSlibKey | None = None) -> Signer:
    """Return a signer for the key that a URI names.

    Args:
        uri: The URI.
        ask: Asked for a PIN.
        key: The public half as it is known here; None to take it from where the key is.

    Raises:
        UsageError: There is no such key, the PIN is wrong, or what reaches it is not installed.
        Unavailable: It could not be reached.
    """
    scheme = cast("str", scheme_of(check_uri(uri)))
    if key is None:
        uri, key = find_key(uri, ask)
    backend = _backend(scheme)
    try:
        inner = backend.open(uri, key, ask)
    except Exception as error:  # noqa: BLE001 - each library has its own
        raise _explained(backend, uri, error) from None
    return RemoteSigner(uri, inner, key, backend)


def make_key(uri: str, scheme: str, ask: Ask) -> str:
    """Make a key on a PKCS#11 token and return its URI.

    Args:
        uri: Which token, and if it matters, which id and label the key is to have there.
        scheme: One of `modelward_repo.roles.tokens.CURVES`.
        ask: Asked for the PIN.

    Raises:
        UsageError: There is no such token, the PIN is wrong, or the id is taken.
    """
    from modelward_repo.roles import tokens  # noqa: PLC0415 - it builds on this module

    try:
        return tokens.generate(uri, scheme, ask)
    except Exception as error:  # noqa: BLE001 - each library has its own
        raise _explained(cast("Backend", tokens), uri, error) from None


class RemoteSigner(Signer):
    """Signs elsewhere, tells errors in plain words, and verifies each signature.

    Attributes:
        uri: Where.
    """

    def __init__(self, uri: str, inner: Signer, key: SSlibKey, backend: Backend) -> None:
        self.uri = uri
        self._inner = inner
        self._key = key
        self._backend = backend

    @property
    def public_key(self) -> SSlibKey:
        """The public half."""
        return self._key

    def sign(self, payload: bytes) -> Signature:
        """Sign.

        Raises:
            UsageError: What signed is another key than was promised.
            ModelwardError: It could not be signed.
        """
        try:
            signature = self._inner.sign(payload)
        except Exception as error:  # noqa: BLE001 - each library has its own
            raise _explained(self._backend, self.uri, error) from None
        try:
            self._key.verify_signature(signature, payload)
        except Exception:  # noqa: BLE001 - whatever it is, this is no signature of the key
            raise UsageError(
                f"what {self.uri} signed does not verify with the key {self._key.keyid[:8]}",
                "the URI names another key than its .pub file: compare both, with "
                "`modelward-repo key show` and the token's own tool",
            ) from None
        return signature

    @classmethod
    def from_priv_key_uri(
        cls,
        priv_key_uri: str,
        public_key: SecureKey,
        secrets_handler: SecretsHandler | None = None,
    ) -> "RemoteSigner":
        """Not used: see `open_uri`."""
        raise NotImplementedError


def _backend(scheme: str) -> Backend:
    module = importlib.import_module(f"modelward_repo.roles.{_KINDS[scheme].module}")
    return cast("Backend", module)


def _explained(backend: Backend, uri: str, error: Exception) -> ModelwardError:
    if isinstance(error, ModelwardError):
        return error
    if isinstance(error, UnsupportedLibraryError | ImportError):
        scheme = uri.partition(":")[0]
        return UsageError(
            f"keys with a {scheme}: URI need a library that is not installed here",
            f"pip install 'modelward-repo[{_KINDS[scheme].extra}]'",
        )
    return backend.explain(uri, error)


def _checked(key: SSlibKey, uri: str) -> SSlibKey:
    """Return the key spelt the one way that keys are compared in, if devices accept its kind."""
    if key.scheme not in SCHEMES.get(key.keytype, ()):
        raise UsageError(
            f"the key at {uri} is {key.keytype} with {key.scheme}, which no device accepts",
            "make one that is ECDSA on P-256 or P-384, Ed25519, RSA-PSS or ML-DSA",
        )
    public = key.keyval["public"]
    if not public.startswith("-----"):
        return key
    return SSlibKey.from_crypto(load_pem_public_key(public.encode()), scheme=key.scheme)
