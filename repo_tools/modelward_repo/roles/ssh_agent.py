"""Keys in an SSH agent: `ssh-agent:SHA256:...`, the fingerprint that `ssh-add -l` shows.

An agent signs what it is given as it is, so that Ed25519 and ECDSA signatures come out just as
TUF and in-toto want them. Keys of security keys (sk-...) sign something else and cannot be used,
nor can RSA keys, whose signatures in SSH have the padding that devices do not accept. Speaking
to the agent is left to paramiko.
"""

import base64
import re
from collections.abc import Mapping
from typing import Any

from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.serialization import load_ssh_public_key
from securesystemslib.signer import Key as SecureKey
from securesystemslib.signer import SecretsHandler, Signature, Signer, SSlibKey

from modelward.errors import ModelwardError, Unavailable, UsageError
from modelward_repo.roles.remote import Ask

_URI = re.compile(r"ssh-agent:(SHA256:[A-Za-z0-9+/]{43})")
_SCHEMES: Mapping[str, str] = {
    "ssh-ed25519": "ed25519",
    "ecdsa-sha2-nistp256": "ecdsa-sha2-nistp256",
    "ecdsa-sha2-nistp384": "ecdsa-sha2-nistp384",
}


class AgentSigner(Signer):
    """Signs with a key that an SSH agent holds."""

    def __init__(self, agent_key: Any, key: SSlibKey) -> None:
        self._agent_key = agent_key
        self._key = key

    @property
    def public_key(self) -> SSlibKey:
        """The public half."""
        return self._key

    def sign(self, payload: bytes) -> Signature:
        """Have the agent sign."""
        from paramiko import Message  # noqa: PLC0415 - an extra

        blob = Message(self._agent_key.sign_ssh_data(payload))
        kind, signature = blob.get_text(), blob.get_binary()
        if kind != "ssh-ed25519":
            numbers = Message(signature)
            signature = encode_dss_signature(numbers.get_mpint(), numbers.get_mpint())
        return Signature(self._key.keyid, signature.hex())

    @classmethod
    def from_priv_key_uri(
        cls,
        priv_key_uri: str,
        public_key: SecureKey,
        secrets_handler: SecretsHandler | None = None,
    ) -> "AgentSigner":
        """Not used: see `open`."""
        raise NotImplementedError


def check(uri: str) -> None:
    """Parse a URI. See `modelward_repo.roles.remote.Backend`."""
    if not _URI.fullmatch(uri):
        raise UsageError(
            "an ssh-agent: URI is ssh-agent:SHA256:FINGERPRINT", "`ssh-add -l` shows fingerprints"
        )


def find(uri: str, ask: Ask) -> tuple[str, SSlibKey]:
    """Ask the agent for a public key."""
    del ask
    key = _agent_key(uri)
    if key.name not in _SCHEMES:
        raise UsageError(
            f"keys of the kind {key.name} in an SSH agent cannot be used",
            "use an Ed25519 or ECDSA key; a security key (sk-...) signs something else, and RSA "
            "is padded in an old way there",
        )
    line = f"{key.name} {base64.b64encode(key.blob).decode()}".encode()
    return uri, SSlibKey.from_crypto(load_ssh_public_key(line), scheme=_SCHEMES[key.name])


def open(uri: str, key: SSlibKey, ask: Ask) -> Signer:  # noqa: A001 - the protocol's name for it
    """Return a signer."""
    del ask
    return AgentSigner(_agent_key(uri), key)


def explain(uri: str, error: Exception) -> ModelwardError:
    """Return what a library's error means."""
    return Unavailable(
        f"the SSH agent did not sign with {uri}: {str(error)[:200] or type(error).__name__}",
        "an agent that asks for confirmation (ssh-add -c) refuses when nobody answers",
    )


def _agent_key(uri: str) -> Any:
    from paramiko import Agent  # noqa: PLC0415 - an extra

    match = _URI.fullmatch(uri)
    keys = Agent().get_keys()
    for key in keys:
        if match and key.fingerprint == match[1]:
            return key
    raise Unavailable(
        f"the SSH agent does not hold {uri}; it holds {len(keys)} keys",
        "start it and `ssh-add` the key; SSH_AUTH_SOCK says where the agent is",
    )
