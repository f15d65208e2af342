"""Whose a key is: the name signed with the key, or the folder that its public half lies in."""

from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from securesystemslib.exceptions import UnverifiedSignatureError
from securesystemslib.signer import Key as TufKey
from tuf.api.metadata import Metadata, Root, Targets

from modelward.errors import UsageError
from modelward_repo.roles.keys import find_keys
from modelward_repo.roles.metadata import HOLDER

MAX_NAME = 64  # characters of a holder's name that are shown

Names = Mapping[str, str]
"""Holders by key id."""


@dataclass(frozen=True)
class Holder:
    """A key that may sign, and whether it has.

    Attributes:
        keyid: The key's id.
        name: Who holds it, or None where nobody says.
        signed: Whether its signature is there and valid.
    """

    keyid: str
    name: str | None
    signed: bool

    def __str__(self) -> str:
        return f"{self.name} {self.keyid[:8]}" if self.name else self.keyid[:8]


def folder_names(keys: Path | None) -> dict[str, str]:
    """Return the holders of the public keys in a folder of holders, as far as they can be read."""
    found = {}
    for file in find_keys(keys) if keys else ():
        with suppress(UsageError):  # a damaged .pub file costs a name, not the whole answer
            found[file.public().keyid] = file.path.parent.name
    return found


def signed_name(key: TufKey | None) -> str | None:
    """Return the holder's name that was signed with a key, or None if there is no usable one."""
    name = key.unrecognized_fields.get(HOLDER) if key else None
    usable = isinstance(name, str) and name.isprintable() and 0 < len(name) <= MAX_NAME
    return str(name) if usable else None


class Authorities:
    """Every key that root or targets ever entrusted with a role, over all their versions.

    A key id is the hash of its key, so that versions cannot disagree about what one means.

    Args:
        delegators: Versions of root and targets, oldest first: the newest name of a holder counts.
        names: Holders that are known from elsewhere, for keys without a signed name.
    """

    def __init__(
        self, delegators: Iterable[Root | Targets] = (), names: Names | None = None
    ) -> None:
        self._roles: dict[str, dict[str, TufKey]] = {}
        self._names = dict(names or {})
        for delegator in delegators:
            keys, roles = _delegations(delegator)
            for role, keyids in roles.items():
                known = self._roles.setdefault(role, {})
                known.update({keyid: keys[keyid] for keyid in keyids if keyid in keys})
            for keyid, key in keys.items():
                if name := signed_name(key):
                    self._names[keyid] = name

    def name(self, keyid: str) -> str | None:
        """Return who holds a key, or None."""
        return self._names.get(keyid)

    def knows(self, role: str) -> bool:
        """Tell whether anybody was ever entrusted with a role."""
        return bool(self._roles.get(role))

    def signers(self, role: str, metadata: Metadata[Any]) -> tuple[Holder, ...]:
        """Return whose signatures on a role's metadata are valid, in the order they stand there."""
        keys = self._roles.get(role, {})
        return tuple(
            Holder(keyid, self.name(keyid), signed=True)
            for keyid in metadata.signatures
            if keyid in keys and is_signed(metadata, keys[keyid])
        )


def is_signed(metadata: Metadata[Any], key: TufKey) -> bool:
    """Tell whether metadata bears a valid signature of a key."""
    signature = metadata.signatures.get(key.keyid)
    try:
        if signature is not None:
            key.verify_signature(signature, metadata.signed_bytes)
            return True
    except UnverifiedSignatureError:  # VerificationError, of unusable keys, is one too
        pass
    return False


def _delegations(delegator: Root | Targets) -> tuple[dict[str, TufKey], dict[str, list[str]]]:
    """Return the keys, and per role the key ids, that a delegator names."""
    if isinstance(delegator, Root):
        return delegator.keys, {name: role.keyids for name, role in delegator.roles.items()}
    delegations = delegator.delegations
    if delegations is None:
        return {}, {}
    roles = delegations.roles or {}
    return delegations.keys, {name: role.keyids for name, role in roles.items()}
