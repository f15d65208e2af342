"""Opening a key by what people call it: the path of a file, or a URI.

==============================  ==========================================================
``KEYS/alice/root.key``         a private key's file, see `modelward_repo.roles.private`
``KEYS/alice/root.ref``         a file with a URI: the key is elsewhere
``pkcs11:token=LABEL;id=%02``   on a PKCS#11 token, see `modelward_repo.roles.tokens`
``awskms:``, ``gcpkms:``, ``azurekms:``, ``hv:``  with a key service, see `...roles.kms`
``ssh-agent:SHA256:...``        in an SSH agent, see `modelward_repo.roles.ssh_agent`
==============================  ==========================================================
"""

from pathlib import Path

from securesystemslib.signer import Signer

from modelward.formats.policy import Key
from modelward_repo.roles import remote
from modelward_repo.roles.keys import PUBLIC, KeyFile, from_sslib
from modelward_repo.roles.remote import Ask

__all__ = ["Ask", "open_public", "open_signer"]


def open_signer(reference: str | Path, ask: Ask) -> Signer:
    """Return a signer.

    Args:
        reference: Path of a ``.key`` or ``.ref`` file, or a URI.
        ask: Asked for a passphrase or PIN, if there is one.

    Raises:
        UsageError: There is no such key, the passphrase or PIN is wrong or locked, or what
            reaches the key is not installed.
        Unavailable: The token or service could not be reached.
    """
    if remote.scheme_of(str(reference)):
        return remote.open_uri(str(reference), ask)
    return KeyFile(Path(reference)).signer(ask)


def open_public(reference: str | Path, ask: Ask) -> Key:
    """Return a public key.

    Args:
        reference: Path of a ``.pub``, ``.key`` or ``.ref`` file, or a URI.
        ask: Asked for a passphrase or PIN, if the public half can only be had with it.

    Raises:
        UsageError: See `open_signer`.
        Unavailable: See `open_signer`.
    """
    if remote.scheme_of(str(reference)):
        return from_sslib(remote.find_key(str(reference), ask)[1])
    file = KeyFile(Path(reference))
    if file.path.suffix == PUBLIC or file.public_path.exists():
        return file.public()
    return from_sslib(file.signer(ask).public_key)
