"""A signed request comes into force: what the online roles must sign because of it, and the order.

Devices follow a new root the moment it can be fetched, before they ask for a timestamp. So where
the new root does not trust the timestamp that is published, it must never stand without one that
it trusts: either the next timestamp is signed by old and new keys and goes first, or, where the
old keys are gone, the root is the last file before it.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from securesystemslib.signer import Signer
from tuf.api.metadata import Metadata, Root, Snapshot, Targets, Timestamp
from tuf.api.serialization.json import JSONSerializer

from modelward.errors import Refused, UsageError
from modelward.formats import channel as channels
from modelward.formats import strict
from modelward.formats.channel import Channel
from modelward.formats.policy import FleetPolicy
from modelward_repo.publish.ledger import KEY, LogKey, log_keyid, log_policy
from modelward_repo.publish.staging import FIRST_ROOT, Online, Staging
from modelward_repo.roles import metadata as tuf
from modelward_repo.roles.ceremony import check_names
from modelward_repo.roles.followers import check_new_device, check_old_device
from modelward_repo.roles.policy import CHANNELS, TOP_LEVEL
from modelward_repo.roles.proposal import lifted
from modelward_repo.roles.request import Request
from modelward_repo.roles.state import Rejected, View, called, listed, model_of
from modelward_repo.storage import Storage

Find = Callable[[str, Collection[str], int], Sequence[Signer]]
"""Finds as many signers of a role, among these key ids, as its threshold demands."""

_ANEW = "propose it anew on top of what is in force now, and have it signed again"


@dataclass(frozen=True)
class Enacted:
    """What came into force.

    Attributes:
        versions: The roles that were signed or put in place, with their versions.
        already: Whether it was in force before; nothing was changed then.
        carried: Per role that new keys signed: the targets that they vouch for now.
        gapless: Whether a device can follow at every moment, between any two files too.
    """

    versions: Mapping[str, int]
    already: bool = False
    carried: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    gapless: bool = True


@dataclass(frozen=True)
class Order:
    """How a request is to be published.

    Attributes:
        find: Finds the online keys.
        leave_out: Targets that no role is to list any more, by path or folder.
        dry_run: Do everything but write.
    """

    find: Find
    leave_out: tuple[str, ...] = ()
    dry_run: bool = False


def enact(storage: Storage, request: Request, order: Order, now: datetime) -> Enacted:
    """Publish what a request proposes, all of it or nothing.

    Publishing the same request again does nothing; if the first time was interrupted, it finishes.

    Args:
        storage: The repository.
        request: The request, fully signed.
        order: How.
        now: The time to count the online roles' expiry from.

    Raises:
        Rejected: Signatures are missing; the request is about another repository, or out of date.
        UsageError: Online keys that must sign are not here.
        Refused: A device would refuse the result.
        Waiting: It is logged, but too few witnesses cosigned; what was in force still is.
    """
    check_complete(request)
    with storage.lock():
        staging, present = Staging.of(storage, now), Staging.of(storage, now)
        place = _Place.find(staging, request)
        if place.done and not present.waiting and _in_force(present):
            return Enacted({}, already=True)
        staged = _put_signed(staging, request, place)
        old = View(present.root.signed, present.targets(Targets.type).signed, {})
        _number(staging, request, old)
        carried = _sign_delegated(staging, request, old, order, staged)
        sequence = _finish(staging, present, order, new_root=Root.type in staged)
        staged[Snapshot.type] = staging.snapshot.signed.version
        if staging.timestamp:
            staged[Timestamp.type] = staging.timestamp.signed.version
        check_new_device(staging, request, staged)
        check_old_device(present, staging)
        if not order.dry_run:
            staging.commit(root_last=sequence.root_last)
        return Enacted(staged, carried=carried, gapless=sequence.gapless)


def check_complete(request: Request) -> None:
    """Require every signature that a request needs.

    Raises:
        Rejected: Some are missing; the error says whose.
    """
    problems = []
    root, targets = request.proposed.root, request.proposed.targets
    if root:
        result = root.signed.get_root_verification_result(
            request.trusted.root.signed, root.signed_bytes, root.signatures
        )
        for part, whose in ((result.first, "the present root"), (result.second, "the new root")):
            if not part.verified:
                problems.append(_lacking("root", whose, part))
    if targets:
        part = request.after.root.get_verification_result(
            Targets.type, targets.signed_bytes, targets.signatures
        )
        if not part.verified:
            problems.append(_lacking("targets", "root", part))
    if problems:
        raise Rejected(
            f"signatures are missing: {'; '.join(problems)}",
            "have them signed with `modelward-repo ceremony sign`, and merge the copies",
        )


def _lacking(role: str, whose: str, part: Any) -> str:
    names = listed(called(key) for key in part.unsigned.values())
    return (
        f"{role} has {len(part.signed)} of the {part.threshold} that {whose} demands "
        f"(not yet signed: {names})"
    )


def _put_signed(staging: Staging, request: Request, place: "_Place") -> dict[str, int]:
    """Stage what people signed; return the roles with their versions."""
    staged = {}
    root, targets = request.proposed.root, request.proposed.targets
    if root and not place.root:
        staging.put_root(root.to_bytes(JSONSerializer(compact=True)))
        staged[Root.type] = root.signed.version
    if targets and not place.targets:
        data = targets.to_bytes(JSONSerializer(compact=True))
        staging.put_signed_targets(data, request.proposed.documents)
        staged[Targets.type] = targets.signed.version
    return staged


@dataclass(frozen=True)
class _Place:
    """Which parts of a request are in the repository already."""

    root: bool
    targets: bool
    done: bool

    @classmethod
    def find(cls, staging: Staging, request: Request) -> "_Place":
        """Compare a repository with what a request builds upon.

        Raises:
            Rejected: It is another repository, or somebody published meanwhile.
        """
        first = staging.read(FIRST_ROOT)
        if first != request.trusted.roots[0]:
            raise Rejected(
                "the request is for another repository than this one",
                "name the right one with --repository",
            )
        root = _same(staging.root, request.proposed.root)
        version = staging.root.signed.version
        same_root = root or staging.root.signed_bytes == request.trusted.root.signed_bytes
        rebased = not request.proposed.root and _same_targets_role(staging.root.signed, request)
        if not (same_root or rebased):
            raise Rejected(
                f"the request is out of date: it builds upon root "
                f"{request.trusted.root.signed.version}, but root {version} is in force",
                _ANEW,
            )
        published: Metadata[Targets] = staging.targets(Targets.type)
        targets = _same(published, request.proposed.targets)
        stale = published.signed_bytes != request.trusted.targets.signed_bytes
        if request.proposed.targets and not targets and stale:
            raise Rejected(
                f"the request is out of date: it builds upon targets "
                f"{request.trusted.targets.signed.version}, but targets "
                f"{published.signed.version} is in force",
                _ANEW,
            )
        done = (
            (root or not request.proposed.root)
            and (targets or not request.proposed.targets)
            and all(
                _listed(staging, role) >= number
                for role, number in request.proposed.numbers.items()
            )
        )
        return cls(root, targets, done)


def _same(published: Metadata[Any], proposed: Metadata[Any] | None) -> bool:
    return proposed is not None and published.signed_bytes == proposed.signed_bytes


def _same_targets_role(root: Root, request: Request) -> bool:
    then = request.trusted.root.signed.roles[Targets.type]
    now = root.roles[Targets.type]
    return (then.keyids, then.threshold) == (now.keyids, now.threshold)


def _listed(staging: Staging, role: str) -> int:
    if role == Timestamp.type:
        return staging.timestamp.signed.version if staging.timestamp else 0
    if role == Snapshot.type:
        return staging.snapshot.signed.version
    listed_file = staging.snapshot.signed.meta.get(f"{role}.json")
    return listed_file.version if listed_file else 0


def _number(staging: Staging, request: Request, old: View) -> None:
    """Have roles continue from the versions that the request says."""
    new = request.after
    for role, number in request.proposed.numbers.items():
        lifting = role if role == Timestamp.type else Snapshot.type
        if number < staging.next_version(role) and not lifted(old, new, lifting):
            raise Rejected(
                f"{role} cannot continue from version {number}: version "
                f"{staging.next_version(role) - 1} is there, and devices forget it only when the "
                f"keys of {lifting} are replaced",
                f"replace them in the same request, or bump to {staging.next_version(role)}",
            )
        staging.number(role, number)
    for role in (Snapshot.type, Timestamp.type):
        if staging.next_version(role) > strict.MAX_INT:
            raise Rejected(
                f"the version of {role} is so high that none is left after it: a thief did that",
                f"propose it anew with the keys of {role} replaced and --also "
                f"'bump-version {role} N', N being past the last honest version",
            )


def _sign_delegated(
    staging: Staging, request: Request, old: View, order: Order, staged: dict[str, int]
) -> dict[str, tuple[str, ...]]:
    """Sign channels and models' roles where what is published does not do any more."""
    targets = staging.targets(Targets.type)
    view = View(staging.root.signed, targets.signed, {})
    check_names(staging, old, view)
    carried = {}
    for role in view.roles():
        if role in TOP_LEVEL:
            continue
        added = _channel_documents(staging, old, view) if role == CHANNELS else {}
        fresh = f"{role}.json" not in staging.snapshot.signed.meta
        metadata = tuf.new_targets() if fresh else staging.targets(role)
        dropped = _leave_out(metadata.signed, order.leave_out)
        signed = not fresh and _verified(targets.signed, role, metadata)
        if signed and not added and not dropped and role not in request.proposed.numbers:
            continue
        trust = tuf.role_of(targets.signed, role)
        signers = order.find(role, trust.keyids, trust.threshold)
        staging.put_targets(role, metadata, added, signers)
        staged[role] = metadata.signed.version
        if not signed:
            carried[role] = tuple(sorted(metadata.signed.targets))
    return carried


def _channel_documents(staging: Staging, old: View, new: View) -> dict[str, bytes]:
    """Return the channels that change: new ones of the fleet's policy, and those of gone models.

    A channel that offers what no role lists any more would make devices refuse all it offers.
    """
    there = staging.targets(CHANNELS).signed.targets
    data = staging.target(Targets.type, FleetPolicy.TARGET)
    found = {
        channels.target_path(name): Channel(name, {}).to_bytes()
        for name in (FleetPolicy.parse(data).channels if data else ())
        if channels.target_path(name) not in there
    }
    gone = {model_of(role) for role in old.roles() if new.role(role) is None}
    for path in there if gone else ():
        channel = Channel.parse(staging.target(CHANNELS, path) or b"")
        kept = {model: entry for model, entry in channel.models.items() if model not in gone}
        if len(kept) < len(channel.models):
            found[path] = replace(channel, models=kept).to_bytes()
    return found


def _leave_out(targets: Targets, paths: Collection[str]) -> bool:
    found = [
        path
        for path in targets.targets
        if any(path == out or path.startswith(out.rstrip("/") + "/") for out in paths)
    ]
    for path in found:
        del targets.targets[path]
    return bool(found)


def _verified(delegator: Root | Targets, role: str, metadata: Metadata[Any]) -> bool:
    return delegator.get_verification_result(
        role, metadata.signed_bytes, metadata.signatures
    ).verified


def _finish(staging: Staging, present: Staging, order: Order, *, new_root: bool) -> "_Sequence":
    """Sign snapshot and timestamp, and find out in which order files are to be written.

    Where the new root does not trust what is published now, what is signed here has to be trusted
    by the old root as well and be there first. So the old keys sign along, if they are still here.
    """
    gap = new_root and not _trusts(staging.root.signed, present)
    signers = {}
    for role in (Snapshot.type, Timestamp.type):
        trust = staging.root.signed.roles[role]
        signers[role] = list(order.find(role, trust.keyids, trust.threshold))
        if gap:
            old = present.root.signed.roles[role]
            known = {signer.public_key.keyid for signer in signers[role]}
            with suppress(UsageError):
                also = order.find(role, old.keyids, old.threshold)
                signers[role] += [one for one in also if one.public_key.keyid not in known]
    policy = log_policy(staging.root.signed)
    log = LogKey(order.find(KEY, [log_keyid(policy.vkey)], 1)[0]) if policy else None
    staging.finish(Online(signers[Snapshot.type], signers[Timestamp.type], log))
    root_last = gap and _trusts(present.root.signed, staging)
    return _Sequence(root_last, gapless=root_last or not gap)


@dataclass(frozen=True)
class _Sequence:
    """The order in which files are written.

    Attributes:
        root_last: Whether the root goes after the timestamp.
        gapless: Whether a device can follow between any two files.
    """

    root_last: bool
    gapless: bool


def _trusts(root: Root, staging: Staging) -> bool:
    """Tell whether a root trusts the timestamp, snapshot and targets of a repository."""
    return all(
        metadata is not None and _verified(root, role, metadata)
        for role, metadata in (
            (Timestamp.type, staging.timestamp),
            (Snapshot.type, staging.snapshot),
            (Targets.type, staging.targets(Targets.type)),
        )
    )


def _in_force(staging: Staging) -> bool:
    """Tell whether a device can follow what is published: nothing was interrupted."""
    with suppress(Refused), staging.as_device():
        return True
    return False
