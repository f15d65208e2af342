"""Changes applied together: what is proposed when several of them make one request."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from tuf.api.metadata import Metadata, Root, Targets

from modelward.errors import UsageError
from modelward.formats import policy as policies
from modelward.formats import strict
from modelward_repo.roles import metadata as tuf
from modelward_repo.roles.changes import Change, Draft, HeldKey, RemoveKey, SetLayoutOwners
from modelward_repo.roles.state import (
    Proposed,
    Trusted,
    View,
    before,
    holder,
    known_role,
    owner_names,
)


def apply(
    trusted: Trusted, changes: Sequence[Change], now: datetime, next_targets: int
) -> Proposed:
    """Apply changes to what is trusted.

    Args:
        trusted: What is in force.
        changes: The changes, in order; only what they come to together has to make sense.
        now: The time to count expiry from.
        next_targets: The next version of targets that was never written.

    Raises:
        UsageError: A change makes no sense, or they do not come to anything.
    """
    draft = Draft(trusted)
    for change in changes:
        change.apply(draft)
    _check_reachable(draft.view)
    old = before(trusted)
    root = None
    if "root" in draft.renewed or draft.view.root.to_dict() != old.root.to_dict():
        root = _unsigned(draft.view.root, old.root.version + 1, now, draft.view.root, Root.type)
    targets = None
    if (
        Targets.type in draft.renewed
        or draft.view.targets.to_dict() != old.targets.to_dict()
        or (root and not _still_signed(root.signed, trusted.targets))
    ):
        number = draft.numbers.pop(Targets.type, None) or next_targets
        _check_number(number, next_targets, old, draft.view)
        targets = _unsigned(draft.view.targets, number, now, draft.view.root, Targets.type)
    if not (root or targets):
        raise UsageError(
            "there would be nothing to sign",
            "say what is to change; an online role's version is bumped together with its keys",
        )
    documents = {
        path: data
        for path, data in draft.documents.items()
        if path in draft.view.targets.targets and _differs(draft.view.targets, old.targets, path)
    }
    return Proposed(root, targets, documents, draft.numbers)


def holder_leaves(view: View, name: str) -> list[Change]:
    """Return the changes that take every key away from a holder.

    Raises:
        UsageError: They hold none.
    """
    changes: list[Change] = [
        RemoveKey(role, keyid)
        for role in view.roles()
        for keyid, key in view.keys(role).items()
        if holder(key) == name
    ]
    for model in view.models():
        policy = view.policy(model)
        names = owner_names(view.documents.get(policies.model_policy_path(model)))
        if policy is None or name not in names.values():
            continue
        left = tuple(
            HeldKey(key, names.get(keyid, ""))
            for keyid, key in policy.owners.items()
            if names.get(keyid) != name
        )
        changes.append(SetLayoutOwners(model, left, policy.threshold))
    if not changes:
        raise UsageError(
            f"no key here is held by {name!r}", "see `modelward-repo status` for who holds what"
        )
    return changes


def lifted(old: View, new: View, role: str) -> bool:
    """Tell whether devices forget what they saw of a role: its old keys no longer reach it."""
    now = new.role(role)
    then = old.role(role)
    return not (now and then) or len(set(now.keyids) & set(then.keyids)) < now.threshold


def _unsigned(signed: Any, version: int, now: datetime, root: Root | Targets, role: str) -> Any:
    signed.version = version
    signed.expires = (now + tuf.validity(root, role)).astimezone(UTC).replace(microsecond=0)
    return Metadata(signed)


def _still_signed(root: Root, targets: Metadata[Targets]) -> bool:
    return root.get_verification_result(
        Targets.type, targets.signed_bytes, targets.signatures
    ).verified


def _differs(new: Targets, old: Targets, path: str) -> bool:
    return path not in old.targets or old.targets[path].hashes != new.targets[path].hashes


def _check_reachable(view: View) -> None:
    for name in view.roles():
        role = known_role(view, name)
        if len(view.keys(name)) < role.threshold:
            raise UsageError(
                f"{name} would need {role.threshold} signatures, but have only "
                f"{len(view.keys(name))} keys",
                "add a key in the same request, or lower the threshold with --also "
                f"'set-threshold {name} {max(1, len(view.keys(name)))}'",
            )


def _check_number(number: int, next_targets: int, old: View, new: View) -> None:
    if number >= strict.MAX_INT:
        raise UsageError(
            "the version of targets is so high that there is none left after it",
            "a thief did that: replace the key of snapshot and say --also 'bump-version targets N'",
        )
    if number < next_targets and not lifted(old, new, "snapshot"):
        raise UsageError(
            f"targets cannot continue from version {number}: devices have seen "
            f"{next_targets - 1}, and forget it only when the keys of snapshot are replaced",
            f"choose {next_targets} or more, or replace the keys of snapshot in the same request",
        )
