"""A new repository, and a new model in one: roles, delegations, policies, layouts.

These are the acts that need offline keys. Everything is made in memory or aside, looked at as a
device would, and then put in place at once.
"""

import secrets
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from tuf.api.metadata import Metadata, Targets

from modelward.errors import FormatError, UsageError
from modelward.formats import channel as channels
from modelward.formats import dsse
from modelward.formats import policy as policies
from modelward.formats import release as releases
from modelward.formats.channel import Channel
from modelward.formats.leaf import REPOSITORY_FIELD
from modelward.formats.log_policy import FIELD as LOG_FIELD
from modelward.formats.log_policy import LogPolicy
from modelward.formats.policy import FleetPolicy, ModelPolicy
from modelward.trust import supply_chain
from modelward_repo.publish.ledger import KEY, LogKey, log_vkey, write_urls
from modelward_repo.publish.refresh import resume
from modelward_repo.publish.staging import Online, Staging
from modelward_repo.roles import metadata as tuf
from modelward_repo.roles.policy import (
    CHANNELS,
    TOP_LEVEL,
    LogTrust,
    ModelTrust,
    TrustPolicy,
    role_name,
)
from modelward_repo.roles.ring import KeyRing
from modelward_repo.roles.state import name_owners
from modelward_repo.storage import Storage
from modelward_repo.storage.local import LocalStorage, sync_directory
from modelward_repo.supply_chain.layout import (
    FUNCTIONARY,
    OWNER,
    LayoutSource,
    compile_layout,
    sign_layout,
)
from modelward_repo.supply_chain.model_signature import KEY as SIGNING_KEY
from modelward_repo.supply_chain.model_signature import SCHEME


@dataclass(frozen=True)
class Plan:
    """What is to be made: a policy with the layouts it refers to, read before anything is written.

    Attributes:
        policy: The trust policy.
        layouts: Per model, the source of its layout.
    """

    policy: TrustPolicy
    layouts: Mapping[str, LayoutSource]

    @classmethod
    def load(cls, path: Path, models: tuple[str, ...] = ()) -> "Plan":
        """Read a policy and its layouts.

        Args:
            path: The policy's file.
            models: Models to add to those it names.

        Raises:
            UsageError: Something cannot be read or makes no sense.
        """
        policy = TrustPolicy.load(path, models)
        layouts = {name: LayoutSource.load(model.layout) for name, model in policy.models.items()}
        return cls(policy, layouts)


def create_repository(directory: Path, plan: Plan, ring: KeyRing, now: datetime) -> None:
    """Make a repository: all of it, or nothing.

    Args:
        directory: Where; must not exist.
        plan: What it is to be.
        ring: The keys; missing ones are made.
        now: The time to count expiry from.

    Raises:
        UsageError: The directory exists, or keys are missing or clash.
        Refused: A device would refuse the result.
        Waiting: The repository is made, but too few witnesses cosigned its log. It must not be
            made again: they remember the first leaf, and no other will do.
    """
    if directory.exists():
        raise UsageError(
            f"{directory} exists already",
            "a repository is never overwritten: name another directory, or move that one away",
        )
    aside = directory.parent / f".{directory.name}.partial-{secrets.token_hex(4)}"
    try:
        aside.mkdir(parents=True)
        online = _build(LocalStorage(aside), plan, ring, now)
        aside.rename(directory)
        sync_directory(directory.parent)
    except OSError as error:
        raise UsageError(f"{directory} cannot be made: {error.strerror}") from error
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    resume(LocalStorage(directory), online, now)


def add_model(storage: Storage, plan: Plan, model: str, ring: KeyRing, now: datetime) -> None:
    """Add a model to a repository.

    Args:
        storage: The repository.
        plan: A plan that names the model.
        model: The model.
        ring: The keys, with enough of `targets`; missing ones of the model are made.
        now: The time to count expiry from.

    Raises:
        UsageError: The model is there already, or keys are missing or clash.
        Refused: A device would refuse the result.
    """
    trust = plan.policy.model(model)
    with storage.lock():
        staging = Staging.of(storage, now)
        targets = staging.targets(Targets.type)
        role = plan.policy.roles[Targets.type]
        signers = ring.signers(role.holders, Targets.type, role.threshold)
        added = _model(targets, trust, plan.layouts[model], ring, now)
        staging.put_targets(Targets.type, targets, added, signers)
        _first_of_model(staging, trust, ring)
        staging.finish(_online(plan.policy, ring))
        _check(staging, [model], [])
        staging.commit()


def _build(storage: Storage, plan: Plan, ring: KeyRing, now: datetime) -> Online:
    policy = plan.policy
    keys = {name: ring.publics(role.holders, name) for name, role in policy.roles.items()}
    _check_distinct({name: {key.keyid for key in found} for name, found in keys.items()})
    fields: dict[str, Any] = {REPOSITORY_FIELD: secrets.token_hex(32)}
    if policy.log:
        fields[LOG_FIELD] = _log_policy(policy.log, ring).to_dict()
        write_urls(storage, policy.log.urls)
    root = tuf.new_root([(name, policy.roles[name], keys[name]) for name in TOP_LEVEL], fields)
    targets = tuf.new_targets()
    tuf.delegate(
        targets.signed, CHANNELS, policy.roles[CHANNELS], keys[CHANNELS], [f"{CHANNELS}/*"]
    )
    added = {FleetPolicy.TARGET: FleetPolicy(policy.channels, policy.formats).to_bytes()}
    for name, trust in policy.models.items():
        added |= _model(targets, trust, plan.layouts[name], ring, now)
    signers = {
        name: ring.signers(role.holders, name, role.threshold)
        for name, role in policy.roles.items()
    }

    staging = Staging.genesis(storage, now, root, signers["root"])
    staging.put_targets(Targets.type, targets, added, signers["targets"])
    documents = {
        channels.target_path(name): Channel(name, {}).to_bytes() for name in policy.channels
    }
    staging.put_targets(CHANNELS, tuf.new_targets(), documents, signers[CHANNELS])
    for trust in policy.models.values():
        _first_of_model(staging, trust, ring)
    online = _online(policy, ring)
    staging.finish(online)
    _check(staging, list(policy.models), policy.channels)
    staging.commit()
    return online


def _model(
    targets: Metadata[Targets],
    trust: ModelTrust,
    source: LayoutSource,
    ring: KeyRing,
    now: datetime,
) -> dict[str, bytes]:
    """Delegate to a model's role; return the targets that say what its releases must prove."""
    release_keys = ring.publics(trust.holders, role_name(trust.name))
    paths = [f"models/{trust.name}/*/*"]
    tuf.delegate(targets.signed, role_name(trust.name), trust.role, release_keys, paths)
    owners = ring.publics(trust.owners, OWNER)
    functionaries = {holder: ring.public(holder, FUNCTIONARY) for holder in source.holders}
    layout = compile_layout(
        source, functionaries, {*trust.owners, *(key.keyid for key in owners)}, now
    )
    for signer in ring.signers(trust.owners, OWNER, trust.owners_threshold):
        layout = sign_layout(layout, signer)
    policy = ModelPolicy(
        model=trust.name,
        owners={key.keyid: key for key in owners},
        threshold=trust.owners_threshold,
        metrics=trust.metrics,
        signers=tuple(ring.public(holder, SIGNING_KEY, SCHEME).public for holder in trust.signers),
        health=trust.health,
    )
    return {
        policies.model_policy_path(trust.name): name_owners(
            policy.to_bytes(),
            {key.keyid: holder for key, holder in zip(owners, trust.owners, strict=True)},
        ),
        policies.layout_path(trust.name): layout.to_bytes(),
    }


def _first_of_model(staging: Staging, trust: ModelTrust, ring: KeyRing) -> None:
    role = role_name(trust.name)
    signers = ring.signers(trust.holders, role, trust.threshold)
    staging.put_targets(role, tuf.new_targets(), {}, signers)


def _online(policy: TrustPolicy, ring: KeyRing) -> Online:
    snapshot, timestamp = (
        ring.signers(policy.roles[name].holders, name, policy.roles[name].threshold)
        for name in ("snapshot", "timestamp")
    )
    log = LogKey(ring.signers([policy.log.holder], KEY, 1)[0]) if policy.log else None
    return Online(snapshot, timestamp, log)


def _log_policy(trust: LogTrust, ring: KeyRing) -> LogPolicy:
    try:
        return trust.policy(log_vkey(trust.origin, ring.public(trust.holder, KEY)))
    except FormatError as error:
        raise UsageError(
            f"the log's policy makes no sense: {error.field}: {error.problem}",
            "see metadata/README.md for what may stand there",
        ) from error


def _check_distinct(keyids: Mapping[str, set[str]]) -> None:
    """Refuse one key for two roles: whoever steals it would hold both."""
    seen: dict[str, str] = {}
    for role, found in keyids.items():
        for keyid in found:
            if keyid in seen:
                raise UsageError(
                    f"the roles {seen[keyid]!r} and {role!r} share the key {keyid[:8]}",
                    "give every role its own keys",
                )
            seen[keyid] = role


def _check(staging: Staging, models: list[str], channel_names: tuple[str, ...] | list[str]) -> None:
    """Read everything as a device would that trusts the first root."""
    with staging.as_device() as repository:
        for name in channel_names:
            repository.target(channels.target_path(name), channels.CAP)
        for model in models:
            # There is no release yet, but looking for one verifies the model's role.
            repository.target_info(releases.target_path(model, "0"))
            policy = repository.target(policies.model_policy_path(model), policies.CAP)
            layout = repository.target(policies.layout_path(model), dsse.ENVELOPE_CAP)
            parsed = ModelPolicy.parse(policy or b"")
            envelope = dsse.Envelope.parse("layout", layout or b"")
            supply_chain.verify_owners(envelope, parsed)
            supply_chain.read_layout(envelope, parsed, staging.now)
