"""TUF metadata in plain words."""

from collections.abc import Iterator
from datetime import datetime
from typing import Any

from tuf.api.exceptions import RepositoryError
from tuf.api.metadata import (
    DelegatedRole,
    Metadata,
    MetaFile,
    Role,
    Root,
    Snapshot,
    TargetFile,
    Targets,
    Timestamp,
)

from modelward.errors import UsageError
from modelward.formats import strict
from modelward_repo.documents.description import Description, clean
from modelward_repo.roles.difference import period_text
from modelward_repo.roles.expiry import span
from modelward_repo.roles.holders import Authorities, Holder, is_signed, signed_name
from modelward_repo.roles.metadata import EXPIRES, HOLDER

MOST = 200  # targets or metadata files that are listed
_MEANING = {
    Root.type: "which keys may sign as which role",
    Targets.type: "which files there are, by digest, and who else may say so",
    Snapshot.type: "which versions of all roles belong together",
    Timestamp.type: "what is current",
}
_OTHERS = "the signatures: whose keys count is for root (or targets) to say, not for this file"
_NEWEST = "that it is the newest: an older version looks just as good"
_CLOCK = "the expiry: it was held against this computer's clock only"


def describe(data: bytes, content: Any, now: datetime) -> Description:
    """Describe TUF metadata.

    Args:
        data: The file.
        content: The same, parsed.
        now: The time to judge expiry by.

    Raises:
        UsageError: It only looks like TUF metadata.
    """
    try:
        metadata = Metadata[Any].from_bytes(data)
    except (RepositoryError, ValueError, RecursionError) as error:
        raise UsageError(f"this looks like TUF metadata, but is not: {clean(error)}") from error
    signed = metadata.signed
    lines = [f"TUF {signed.type} metadata: it says {_MEANING[signed.type]}", *_head(signed, now)]
    checked: tuple[str, ...] = ()
    unverified: tuple[str, ...] = (_OTHERS, _NEWEST, _CLOCK)
    names = Authorities([signed] if isinstance(signed, Root | Targets) else [])
    if isinstance(signed, Root):
        checked = tuple(_own_signatures(metadata, signed))
        unverified = (
            (
                "that this is your repository's root: anybody can make one that is signed by its "
                "own keys; compare its SHA-256 with one you got another way"
            ),
            "the step from the root before it: that takes the root before it",
            _NEWEST,
            _CLOCK,
        )
    lines += _signatures(metadata, names)
    lines += _body(signed)
    lines += (
        f"  also says {clean(name)}: {clean(strict.dump(value).decode().strip())}"
        for name, value in sorted(signed.unrecognized_fields.items())
    )
    return Description(f"TUF {signed.type}", tuple(lines), unverified, checked, content)


def _head(signed: Any, now: datetime) -> Iterator[str]:
    left = signed.expires - now
    when = f"in {span(left)}" if left.total_seconds() > 0 else f"EXPIRED {span(left)} ago"
    yield f"  version {signed.version}, expires {strict.rfc3339(signed.expires)} ({when})"


def _own_signatures(metadata: Metadata[Any], root: Root) -> Iterator[str]:
    role = root.roles[Root.type]
    valid = [
        Holder(keyid, signed_name(root.keys[keyid]), signed=True)
        for keyid in role.keyids
        if keyid in root.keys and is_signed(metadata, root.keys[keyid])
    ]
    enough = "enough" if len(valid) >= role.threshold else "NOT ENOUGH"
    who = ", ".join(map(str, valid)) or "nobody"
    yield (
        f"signatures of the keys that it names for root itself: {who}: {len(valid)} of "
        f"{len(role.keyids)}, {role.threshold} needed: {enough}"
    )


def _signatures(metadata: Metadata[Any], names: Authorities) -> Iterator[str]:
    claimed = [
        str(Holder(clean(keyid), names.name(keyid), signed=False)) for keyid in metadata.signatures
    ]
    yield f"  signatures claimed by: {', '.join(claimed) or 'nobody: it is not signed'}"


def _body(signed: Any) -> Iterator[str]:
    if isinstance(signed, Root):
        for name, role in signed.roles.items():
            yield from _role(name, role, signed.keys)
    elif isinstance(signed, Targets):
        yield f"  {len(signed.targets)} targets"
        yield from _some(signed.targets.items(), _target)
        delegations = signed.delegations
        for name, delegated in ((delegations.roles or {}) if delegations else {}).items():
            yield from _role(name, delegated, delegations.keys if delegations else {})
    elif isinstance(signed, Snapshot):
        yield from _some(signed.meta.items(), _meta)
    elif isinstance(signed, Timestamp):
        yield _meta("snapshot.json", signed.snapshot_meta)


def _role(name: str, role: Role, keys: dict[str, Any]) -> Iterator[str]:
    period = period_text(role.unrecognized_fields.get(EXPIRES))
    needs = f"{role.threshold} of {len(role.keyids)} must sign, for {period} at a time"
    yield f"  role {clean(name)}: {needs}"
    for keyid in role.keyids:
        key = keys.get(keyid)
        scheme = clean(key.scheme) if key else "the key itself is missing"
        yield f"    {Holder(clean(keyid), signed_name(key), signed=False)} ({scheme})"
    if isinstance(role, DelegatedRole):
        paths = ", ".join(clean(path) for path in role.paths or ())
        alone = "" if role.terminating else " (others may too)"
        yield f"    may vouch for {paths or 'nothing by path'}{alone}"
    for field, value in sorted(role.unrecognized_fields.items()):
        if field not in (EXPIRES, HOLDER):
            yield f"    also says {clean(field)}: {clean(strict.dump(value).decode().strip())}"


def _target(path: str, info: TargetFile) -> str:
    digests = ", ".join(
        f"{clean(name)} {clean(digest)[:16]}" for name, digest in info.hashes.items()
    )
    return f"    {clean(path)}: {info.length} bytes, {digests}"


def _meta(name: str, meta: MetaFile) -> str:
    return f"    {clean(name.removesuffix('.json'))} version {meta.version}"


def _some(items: Any, line: Any) -> Iterator[str]:
    listed = sorted(items)
    yield from (line(*item) for item in listed[:MOST])
    if len(listed) > MOST:
        yield f"    and {len(listed) - MOST} more"
