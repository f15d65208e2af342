"""What a repository's roles are, who signed them, and when they expire."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from tuf.api.metadata import Metadata, Targets

from modelward.formats import dsse
from modelward.formats import policy as policies
from modelward.formats.policy import ModelPolicy
from modelward.trust.layout import Layout
from modelward.trust.supply_chain import verify_owners
from modelward_repo.publish.staging import Staging
from modelward_repo.roles import metadata as tuf

_POLICIES = policies.model_policy_path("")[: -len(".json")]


@dataclass(frozen=True)
class Standing:
    """One thing that is signed and expires.

    Attributes:
        name: The role, or ``layout of <model>``.
        version: Its metadata's version; None for a layout.
        threshold: How many must sign.
        signed: How many signatures are valid and count.
        keys: How many may sign.
        expires: When it expires.
    """

    name: str
    version: int | None
    threshold: int
    signed: int
    keys: int
    expires: datetime

    def problem(self, now: datetime) -> str | None:
        """Return what is wrong with it, or None."""
        if self.signed < self.threshold:
            return "too few signatures"
        return "expired" if now >= self.expires else None


def standings(staging: Staging) -> list[Standing]:
    """Return every role, top-level roles first, then every layout."""
    targets = staging.targets(Targets.type)
    root = staging.root
    found = [_role("root", root, staging), _role(Targets.type, targets, staging)]
    found.append(_role("snapshot", staging.snapshot, staging))
    if staging.timestamp:
        found.append(_role("timestamp", staging.timestamp, staging))
    delegations = targets.signed.delegations
    found += [
        _role(name, staging.targets(name), staging)
        for name in (delegations.roles or () if delegations else ())
    ]
    found += [
        _layout(staging, path[len(_POLICIES) : -len(".json")])
        for path in sorted(targets.signed.targets)
        if path.startswith(_POLICIES)
    ]
    return found


def _role(name: str, metadata: Metadata[Any], staging: Staging) -> Standing:
    delegator = staging.delegator(name)
    role = tuf.role_of(delegator, name)
    return Standing(
        name=name,
        version=metadata.signed.version,
        threshold=role.threshold,
        signed=len(tuf.signed_by(delegator, name, metadata)),
        keys=len(role.keyids),
        expires=metadata.signed.expires,
    )


def _layout(staging: Staging, model: str) -> Standing:
    policy = ModelPolicy.parse(
        staging.target(Targets.type, policies.model_policy_path(model)) or b""
    )
    data = staging.target(Targets.type, policies.layout_path(model)) or b""
    envelope = dsse.Envelope.parse("layout", data)
    return Standing(
        name=f"layout of {model}",
        version=None,
        threshold=policy.threshold,
        signed=len(verify_owners(envelope, policy)),
        keys=len(policy.owners),
        expires=Layout.from_content(envelope.content).expires,
    )
