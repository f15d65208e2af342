"""TUF metadata in memory: made, edited, signed.

Thin over python-tuf, around what surprises there: signing replaces other signatures unless told
to append, editing signed metadata goes unnoticed, metadata expires the moment it is made unless
told otherwise, and a naive time is taken for UTC.

Who holds a key is signed with the key, in the field ``x-holder``, so that whoever reviews a change
reads names. How long a role's metadata is valid is signed by whoever delegates to the role, in the
field ``x-expires`` (seconds). TUF clients keep and ignore both. So a publisher needs no
configuration beside the repository.
"""

import hashlib
from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

from securesystemslib.signer import Signer, SSlibKey
from tuf.api.exceptions import RepositoryError
from tuf.api.metadata import (
    DelegatedRole,
    Delegations,
    Metadata,
    MetaFile,
    Role,
    Root,
    Snapshot,
    TargetFile,
    Targets,
    Timestamp,
)
from tuf.api.serialization.json import JSONSerializer

from modelward.errors import UsageError
from modelward.formats.policy import Key
from modelward_repo.roles.keys import sslib_key
from modelward_repo.roles.policy import RoleTrust

EXPIRES = "x-expires"
HOLDER = "x-holder"

S = TypeVar("S", Root, Timestamp, Snapshot, Targets)
Delegator = Root | Targets


def new_root(
    roles: Sequence[tuple[str, RoleTrust, Sequence[Key]]], fields: Mapping[str, Any] | None = None
) -> Metadata[Root]:
    """Return an unsigned root.

    Args:
        roles: Per role its name, trust and keys.
        fields: What else it says.
    """
    root = Root(
        consistent_snapshot=True,
        roles={name: _role(trust, keys) for name, trust, keys in roles},
        expires=_never(),
        unrecognized_fields=dict(fields or {}),
    )
    for name, trust, keys in roles:
        for key, holder in zip(keys, trust.holders, strict=True):
            root.add_key(held_key(key, holder), name)
    return Metadata(root)


def new_targets() -> Metadata[Targets]:
    """Return unsigned targets metadata without targets."""
    return Metadata(Targets(expires=_never()))


def delegate(
    targets: Targets, name: str, trust: RoleTrust, keys: Sequence[Key], paths: Sequence[str]
) -> None:
    """Delegate paths to a role, terminating: no other role is asked about them (TUF 5.6.7.2).

    Raises:
        UsageError: There is such a role already.
    """
    if targets.delegations is None:
        targets.delegations = Delegations(keys={}, roles={})
    roles = targets.delegations.roles
    if roles is None or name in roles:
        raise UsageError(f"the repository already has a role {name!r}")
    roles[name] = DelegatedRole(
        name=name,
        keyids=[],
        threshold=trust.threshold,
        terminating=True,
        paths=list(paths),
        unrecognized_fields={EXPIRES: int(trust.expires.total_seconds())},
    )
    for key, holder in zip(keys, trust.holders, strict=True):
        targets.add_key(held_key(key, holder), name)


def role_of(delegator: Delegator, name: str) -> Role:
    """Return what a delegator says of a role.

    Raises:
        UsageError: It does not delegate to it.
    """
    try:
        return delegator.get_delegated_role(name)
    except (ValueError, RepositoryError) as error:
        raise UsageError(f"the repository has no role {name!r}") from error


def validity(delegator: Delegator, name: str) -> timedelta:
    """Return how long the metadata of a role is valid once signed.

    Raises:
        UsageError: The delegator does not say.
    """
    seconds = role_of(delegator, name).unrecognized_fields.get(EXPIRES)
    if type(seconds) is not int or not 0 < seconds < timedelta.max.total_seconds():
        raise UsageError(
            f"the repository does not say how long the role {name!r} is valid",
            f"it was not made by modelward-repo: its delegator must sign {EXPIRES!r}, in seconds",
        )
    return timedelta(seconds=seconds)


def sign(
    metadata: Metadata[S], version: int, expires: datetime, signers: Sequence[Signer]
) -> bytes:
    """Give metadata a version and an expiry, sign it with every signer, return its file.

    Raises:
        ValueError: The time has no time zone.
    """
    if expires.tzinfo is None:
        raise ValueError("a time without a time zone")
    metadata.signed.version = version
    metadata.signed.expires = expires.astimezone(UTC).replace(microsecond=0)
    metadata.signatures.clear()
    for signer in signers:
        metadata.sign(signer, append=True)
    return metadata.to_bytes(JSONSerializer(compact=True))


def signed_by(delegator: Delegator, name: str, metadata: Metadata[S]) -> Collection[str]:
    """Return the key ids whose signatures on a role's metadata are valid and count."""
    result = delegator.get_verification_result(name, metadata.signed_bytes, metadata.signatures)
    return sorted(result.signed)


def meta_file(version: int, data: bytes) -> MetaFile:
    """Return how a metadata file is listed: with version, length and SHA-256."""
    return MetaFile(version, len(data), {"sha256": hashlib.sha256(data).hexdigest()})


def target_file(path: str, data: bytes) -> TargetFile:
    """Return how a target is listed: with length and SHA-256."""
    return TargetFile.from_data(path, data, ["sha256"])


def held_key(key: Key, holder: str) -> SSlibKey:
    """Return a key as TUF wants it, with the name of whoever holds it."""
    named = sslib_key(key)
    named.unrecognized_fields[HOLDER] = holder
    return named


def _role(trust: RoleTrust, keys: Sequence[Key]) -> Role:
    fields = {EXPIRES: int(trust.expires.total_seconds())}
    return Role([key.keyid for key in keys], trust.threshold, unrecognized_fields=fields)


def _never() -> datetime:
    """Stand in for an expiry until `sign` sets it; what is not signed is in force nowhere."""
    return datetime.fromtimestamp(0, UTC)
