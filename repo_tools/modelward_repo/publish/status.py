"""What a repository's roles are, who signed them, and when they expire."""

import hashlib
from collections.abc import Iterator
from typing import Any

from tuf.api.exceptions import RepositoryError
from tuf.api.metadata import Metadata, Root, Targets

from modelward.errors import ModelwardError
from modelward.formats import dsse
from modelward.formats import policy as policies
from modelward.formats.policy import ModelPolicy
from modelward.trust.layout import Layout, problems
from modelward.trust.links import signed_by
from modelward_repo.publish.staging import FIRST_ROOT, Staging
from modelward_repo.roles import metadata as tuf
from modelward_repo.roles.expiry import LAYOUT, OFFLINE, Standing, period
from modelward_repo.roles.holders import Holder, Names, signed_name
from modelward_repo.roles.state import owner_names

_POLICIES = policies.model_policy_path("")[: -len(".json")]


def standings(staging: Staging, names: Names | None = None) -> list[Standing]:
    """Return every role, top-level roles first, then every layout.

    Whatever is wrong with one of them is said there, and does not hide the others.

    Args:
        staging: The repository.
        names: Holders of keys whose names were not signed with them.
    """
    known = names or {}
    targets = staging.targets(Targets.type)
    found = [
        _role("root", staging.root, staging, known, _root_fault(staging)),
        _role(Targets.type, targets, staging, known),
        _role("snapshot", staging.snapshot, staging, known),
    ]
    if staging.timestamp:
        found.append(_role("timestamp", staging.timestamp, staging, known))
    delegations = targets.signed.delegations
    for name in delegations.roles or () if delegations else ():
        try:
            found.append(_role(name, staging.targets(name), staging, known))
        except ModelwardError as error:
            found.append(_broken(name, targets.signed, error))
    found += _layouts(staging, targets.signed, known)
    return found


def repository_id(staging: Staging) -> str:
    """Return what tells a repository from every other: the digest of its first root."""
    return hashlib.sha256(staging.read(FIRST_ROOT)).hexdigest()


def _role(
    name: str, metadata: Metadata[Any], staging: Staging, names: Names, fault: str | None = None
) -> Standing:
    delegator = staging.delegator(name)
    role = tuf.role_of(delegator, name)
    signed = tuf.signed_by(delegator, name, metadata)
    keys = delegator.keys if isinstance(delegator, Root) else _keys(delegator)
    return Standing(
        name=name,
        version=metadata.signed.version,
        threshold=role.threshold,
        keys=tuple(
            Holder(keyid, signed_name(keys.get(keyid)) or names.get(keyid), keyid in signed)
            for keyid in role.keyids
        ),
        expires=metadata.signed.expires,
        period=period(delegator, name),
        offline=name in OFFLINE,
        revision=metadata.signed.version,
        fault=fault,
    )


def _keys(targets: Targets) -> dict[str, Any]:
    return targets.delegations.keys if targets.delegations else {}


def _root_fault(staging: Staging) -> str | None:
    """Return why devices that trust the root before this one cannot follow, or None."""
    root = staging.root
    if root.signed.version == 1:
        return None
    before = f"metadata/{root.signed.version - 1}.root.json"
    try:
        old = Metadata[Root].from_bytes(staging.read(before)).signed
        result = root.signed.get_root_verification_result(old, root.signed_bytes, root.signatures)
    except (ModelwardError, RepositoryError, ValueError) as error:
        return f"devices cannot follow it: {before}: {error}"
    if not result.first.verified:
        return f"not signed by enough of those whom root {old.version} trusts"
    return None


def _layouts(staging: Staging, targets: Targets, names: Names) -> Iterator[Standing]:
    for path in sorted(targets.targets):
        if path.startswith(_POLICIES):
            model = path[len(_POLICIES) : -len(".json")]
            try:
                yield _layout(staging, targets, model, names)
            except ModelwardError as error:
                yield _broken(f"{LAYOUT}{model}", targets, error)


def _layout(staging: Staging, targets: Targets, model: str, names: Names) -> Standing:
    document = staging.target(Targets.type, policies.model_policy_path(model)) or b""
    policy = ModelPolicy.parse(document)
    known = {**names, **owner_names(document)}
    data = staging.target(Targets.type, policies.layout_path(model)) or b""
    envelope = dsse.Envelope.parse("layout", data)
    layout = Layout.from_content(envelope.content)
    weak = next(problems(layout, policy.owners.values()), None)
    return Standing(
        name=f"{LAYOUT}{model}",
        version=None,
        threshold=policy.threshold,
        keys=tuple(
            Holder(keyid, known.get(keyid), signed_by(envelope, key))
            for keyid, key in sorted(
                policy.owners.items(), key=lambda item: (known.get(item[0], ""), item[0])
            )
        ),
        expires=layout.expires,
        offline=True,
        revision=targets.version,
        fault=": ".join(weak) if weak else None,
    )


def _broken(name: str, targets: Targets, error: ModelwardError) -> Standing:
    """Return the standing of something that cannot be read."""
    return Standing(
        name, None, 1, (), None, offline=True, revision=targets.version, fault=error.reason
    )
