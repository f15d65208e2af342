"""What a ceremony can change: each change by itself, and all of them applied to what is trusted.

Pure: metadata in, metadata out, unsigned. Only root and targets are signed in ceremonies; what
the online roles must sign because of a change is signed when it is published.
"""

import copy
import json
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Protocol

from tuf.api.metadata import Metadata, Root, Targets

from modelward.errors import FormatError, UsageError
from modelward.formats import policy as policies
from modelward.formats import strict
from modelward.formats.floors_reset import FIELD as RESET_FIELD
from modelward.formats.floors_reset import FloorsReset
from modelward.formats.leaf import REPOSITORY_FIELD
from modelward.formats.log_policy import FIELD as LOG_FIELD
from modelward.formats.log_policy import LogPolicy
from modelward.formats.names import check_name
from modelward.formats.policy import FleetPolicy, Key, ModelPolicy
from modelward_repo.roles import metadata as tuf
from modelward_repo.roles.policy import TOP_LEVEL, RoleTrust, role_name
from modelward_repo.roles.state import (
    LAYOUTS,
    OFFLINE,
    POLICIES,
    Trusted,
    View,
    called,
    is_holder,
    known_role,
    name_owners,
    short,
)

MAX_THRESHOLD = 64


@dataclass(frozen=True)
class HeldKey:
    """A public key and who holds it.

    Attributes:
        key: The key.
        holder: Who holds it.
    """

    key: Key
    holder: str


class Draft:
    """The trusted state, being changed."""

    def __init__(self, trusted: Trusted) -> None:
        self.view = View(
            copy.deepcopy(trusted.root.signed),
            copy.deepcopy(trusted.targets.signed),
            dict(trusted.documents),
        )
        self.documents: dict[str, bytes] = {}
        self.renewed: set[str] = set()
        self.numbers: dict[str, int] = {}

    def put(self, path: str, data: bytes) -> None:
        """Have targets sign a document."""
        self.view.targets.targets[path] = tuf.target_file(path, data)
        self.documents[path] = data
        self.view = View(self.view.root, self.view.targets, {**self.view.documents, path: data})

    def drop(self, path: str) -> None:
        """Have targets no longer sign a document."""
        self.view.targets.targets.pop(path, None)
        self.documents.pop(path, None)


class Change(Protocol):
    """One change. Its text is the command that declares it."""

    def apply(self, draft: Draft) -> None:
        """Make the change.

        Raises:
            UsageError: It makes no sense here.
        """
        ...


@dataclass(frozen=True)
class AddKey:
    """Let one more key sign as a role."""

    role: str
    new: HeldKey

    def apply(self, draft: Draft) -> None:
        """See `Change.apply`."""
        role = known_role(draft.view, self.role)
        if self.new.key.keyid in role.keyids:
            there = called(draft.view.keys(self.role)[self.new.key.keyid])
            raise UsageError(f"{there} is a key of {self.role} already")
        _check_holder(self.new.holder)
        key = tuf.held_key(self.new.key, self.new.holder)
        draft.view.delegator(self.role).add_key(key, self.role)


@dataclass(frozen=True)
class RemoveKey:
    """Let a key no longer sign as a role."""

    role: str
    keyid: str

    def apply(self, draft: Draft) -> None:
        """See `Change.apply`."""
        role = known_role(draft.view, self.role)
        if self.keyid not in role.keyids:
            raise UsageError(f"{self.role} has no key {short(self.keyid)}")
        draft.view.delegator(self.role).revoke_key(self.keyid, self.role)


@dataclass(frozen=True)
class ReplaceKey:
    """Let one key sign as a role in place of another."""

    role: str
    keyid: str
    new: HeldKey

    def apply(self, draft: Draft) -> None:
        """See `Change.apply`."""
        AddKey(self.role, self.new).apply(draft)
        RemoveKey(self.role, self.keyid).apply(draft)


@dataclass(frozen=True)
class SetThreshold:
    """Say how many keys must sign as a role."""

    role: str
    threshold: int

    def apply(self, draft: Draft) -> None:
        """See `Change.apply`."""
        role = known_role(draft.view, self.role)
        if not 1 <= self.threshold <= MAX_THRESHOLD:
            raise UsageError(f"a threshold is from 1 to {MAX_THRESHOLD}, not {self.threshold}")
        if role.threshold == self.threshold:
            raise UsageError(f"the threshold of {self.role} is {self.threshold} already")
        role.threshold = self.threshold


@dataclass(frozen=True)
class SetExpiry:
    """Say how long what a role signs is valid."""

    role: str
    period: timedelta

    def apply(self, draft: Draft) -> None:
        """See `Change.apply`."""
        role = known_role(draft.view, self.role)
        seconds = int(self.period.total_seconds())
        if role.unrecognized_fields.get(tuf.EXPIRES) == seconds:
            raise UsageError(f"what {self.role} signs is valid for that long already")
        role.unrecognized_fields[tuf.EXPIRES] = seconds
        if self.role in OFFLINE:
            draft.renewed.add(self.role)


@dataclass(frozen=True)
class Renew:
    """Sign root or targets anew as it is, so that it expires later."""

    role: str

    def apply(self, draft: Draft) -> None:
        """See `Change.apply`."""
        if self.role not in OFFLINE:
            known_role(draft.view, self.role)
            raise UsageError(
                f"{self.role} is signed online, not in a ceremony",
                f"run `modelward-repo refresh{'' if self.role in TOP_LEVEL else ' ' + self.role}`",
            )
        draft.renewed.add(self.role)


@dataclass(frozen=True)
class AddModel:
    """Let a new model be released."""

    name: str
    trust: RoleTrust
    keys: tuple[Key, ...]
    policy: bytes
    layout: bytes

    def apply(self, draft: Draft) -> None:
        """See `Change.apply`."""
        try:
            check_name(self.name)
        except ValueError as error:
            raise UsageError(str(error)) from error
        for name in self.trust.holders:
            _check_holder(name)
        paths = [f"models/{self.name}/*/*"]
        tuf.delegate(draft.view.targets, role_name(self.name), self.trust, self.keys, paths)
        draft.put(policies.model_policy_path(self.name), self.policy)
        draft.put(policies.layout_path(self.name), self.layout)


@dataclass(frozen=True)
class RemoveModel:
    """Let a model no longer be released. Its role's last metadata stays listed (TUF 5.5.5)."""

    name: str

    def apply(self, draft: Draft) -> None:
        """See `Change.apply`."""
        role = role_name(self.name)
        for keyid in tuple(known_role(draft.view, role).keyids):
            draft.view.targets.revoke_key(keyid, role)
        delegations = draft.view.targets.delegations
        if delegations and delegations.roles:
            del delegations.roles[role]
        draft.drop(policies.model_policy_path(self.name))
        draft.drop(policies.layout_path(self.name))


@dataclass(frozen=True)
class SetLog:
    """Say which log must hold every publication, and which witnesses must have seen it."""

    log: Mapping[str, Any] | None

    def apply(self, draft: Draft) -> None:
        """See `Change.apply`."""
        fields = draft.view.root.unrecognized_fields
        if fields.get(LOG_FIELD) == self.log:
            raise UsageError("the log policy is that already")
        if self.log is None:
            del fields[LOG_FIELD]
        else:
            _as_usage("the log policy", lambda: LogPolicy.parse(self.log))
            fields[LOG_FIELD] = dict(self.log)
            # Repositories made before there were logs have no name to log under.
            fields.setdefault(REPOSITORY_FIELD, secrets.token_hex(32))


@dataclass(frozen=True)
class ResetFloors:
    """Let devices accept releases of a model again from a counter on, once.

    For when a thief has burned counters: no device that installed the highest one would accept
    anything honest. The counter is that of the last honest release.
    """

    model: str
    counter: int

    def apply(self, draft: Draft) -> None:
        """See `Change.apply`."""
        known_role(draft.view, role_name(self.model))
        if not 0 <= self.counter < strict.MAX_INT:
            raise UsageError(f"a counter is from 0 to {strict.MAX_INT - 1}, not {self.counter}")
        fields = draft.view.root.unrecognized_fields
        now: FloorsReset | None = _as_usage(
            "root's reset of floors", lambda: FloorsReset.of_root(fields)
        )
        # Of one ceremony, all are one reset, named by the version of root that it makes.
        name = f"root {draft.view.root.version + 1}"
        others = now.releases if now and now.id == name else {}
        fields[RESET_FIELD] = FloorsReset(name, {**others, self.model: self.counter}).to_dict()


@dataclass(frozen=True)
class SetLayoutOwners:
    """Say who must sign a model's layout, and how many of them."""

    model: str
    owners: tuple[HeldKey, ...]
    threshold: int

    def apply(self, draft: Draft) -> None:
        """See `Change.apply`."""
        path = policies.model_policy_path(self.model)
        document = draft.view.documents.get(path)
        if document is None:
            raise UsageError(f"there is no model {self.model!r} whose layout has owners")
        if not 1 <= self.threshold <= len(self.owners):
            raise UsageError(
                f"{self.threshold} of {len(self.owners)} owners cannot be the threshold"
            )
        # Edited as it stands: what else a policy says, this need not understand.
        raw = json.loads(document)
        raw["layout"] = {
            "owners": {held.key.keyid: held.key.to_dict() for held in self.owners},
            "threshold": self.threshold,
        }
        names = {held.key.keyid: held.holder for held in self.owners}
        draft.put(path, _policy(name_owners(strict.dump(raw), names), self.model))


@dataclass(frozen=True)
class SetDocument:
    """Have targets sign a document: the fleet's policy, a model's policy, a layout."""

    path: str
    data: bytes

    def apply(self, draft: Draft) -> None:
        """See `Change.apply`."""
        known = draft.view.targets.targets.get(self.path)
        if known and known.hashes == tuf.target_file(self.path, self.data).hashes:
            raise UsageError(f"{self.path} is that already")
        if self.path == FleetPolicy.TARGET:
            _as_usage(self.path, lambda: FleetPolicy.parse(self.data))
        elif self.path.startswith(POLICIES) and known:
            _policy(self.data, self.path.removeprefix(POLICIES).removesuffix(".json"))
        elif not (self.path.startswith(LAYOUTS) and known):
            raise UsageError(
                f"{self.path} is not a document that targets signs here",
                "it signs policy.json, and each model's policies/MODEL.json and layouts/MODEL.json",
            )
        draft.put(self.path, self.data)


@dataclass(frozen=True)
class BumpVersion:
    """Have a role's next metadata continue from a version that a thief cannot have reached."""

    role: str
    to: int

    def apply(self, draft: Draft) -> None:
        """See `Change.apply`."""
        known_role(draft.view, self.role)
        if self.role == Root.type:
            raise UsageError("versions of root follow one another without a gap")
        if not 1 <= self.to < strict.MAX_INT:
            raise UsageError(f"a version is from 1 to {strict.MAX_INT - 1}, not {self.to}")
        draft.numbers[self.role] = self.to
        if self.role == Targets.type:
            draft.renewed.add(self.role)


@dataclass(frozen=True)
class RestoreTargets:
    """Go back to what an earlier version of targets said, under a new version."""

    metadata: Metadata[Targets]
    documents: Mapping[str, bytes]

    def apply(self, draft: Draft) -> None:
        """See `Change.apply`."""
        old = copy.deepcopy(self.metadata.signed)
        draft.view = View(draft.view.root, old, dict(self.documents))
        draft.documents.update(self.documents)
        draft.renewed.add(Targets.type)


def _check_holder(name: str) -> None:
    if not is_holder(name):
        raise UsageError(f"{name[:80]!r} is not a name: 1 to 64 printable characters")


def _policy(data: bytes, model: str) -> bytes:
    policy = _as_usage(f"the policy of {model}", lambda: ModelPolicy.parse(data))
    if policy.model != model:
        raise UsageError(f"this is the policy of {policy.model!r}, not of {model!r}")
    return data


def _as_usage(what: str, parse: Any) -> Any:
    try:
        return parse()
    except FormatError as error:
        where = f"{error.field}: " if error.field else ""
        raise UsageError(f"{what} is not well-formed: {where}{error.problem}") from error
