"""What whoever signs should be warned about: weak, risky or nonsensical outcomes of a request."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import Enum
from typing import Any

from tuf.api.metadata import Metadata, Root, Targets

from modelward.errors import FormatError, Refused, UsageError
from modelward.formats import dsse, strict
from modelward.formats import policy as policies
from modelward.formats.strict import MAX_INT
from modelward.trust import supply_chain
from modelward_repo.roles import metadata as tuf
from modelward_repo.roles.expiry import span
from modelward_repo.roles.request import Request
from modelward_repo.roles.state import (
    LAYOUTS,
    OFFLINE,
    View,
    called,
    holder,
    listed,
    owner_names,
)

DAY = timedelta(days=1)
SKEW = DAY  # that clocks may differ by; people mistake time zones
JUMP = 1000  # versions at once that no ordinary change takes
ONLINE = ("snapshot", "timestamp")
OLD_REQUEST = timedelta(days=30)
# Shortest and longest time that a role's metadata should be valid: what people sign must outlast
# their next meeting, and what machines sign must not be replayed for long.
BOUNDS = {
    "root": (30 * DAY, 731 * DAY),
    "targets": (30 * DAY, 731 * DAY),
    "snapshot": (timedelta(hours=1), 31 * DAY),
    "timestamp": (timedelta(hours=1), 8 * DAY),
}
OTHER_BOUNDS = (DAY, 366 * DAY)


class Level(Enum):
    """How grave a caution is."""

    STOP = "stop"  # nobody may sign this
    DANGER = "danger"  # the role's name must be typed
    NOTE = "note"


@dataclass(frozen=True)
class Caution:
    """One warning.

    Attributes:
        level: How grave it is.
        role: The role it is about.
        text: What is wrong or risky, as a sentence.
    """

    level: Level
    role: str
    text: str


def cautions(request: Request, now: datetime) -> tuple[Caution, ...]:
    """Return every warning about a request, the gravest first.

    Args:
        request: The request.
        now: The time, by the clock of whoever reads it.
    """
    old, new = request.before, request.after
    found = [
        *_clock(request, now),
        *_thresholds(old, new),
        *_shared_keys(new),
        *_removed_holders(old, new),
        *_periods(old, new),
        *_versions(request),
        *_layouts(request, now),
        *_online(old, new),
    ]
    return tuple(sorted(found, key=lambda item: list(Level).index(item.level)))


def signed_at(request: Request) -> datetime:
    """Return a time that is certainly over: when the newest offline metadata was signed."""
    view = request.before
    times = [request.created - SKEW]
    for role in OFFLINE:
        delegator: Root = view.root
        signed = view.root if role == Root.type else view.targets
        try:
            times.append(signed.expires - tuf.validity(delegator, role))
        except UsageError:
            continue
    return max(times)


def _clock(request: Request, now: datetime) -> Iterator[Caution]:
    created = request.created
    certain = signed_at(request)
    if created < certain - SKEW:
        yield Caution(
            Level.STOP,
            "root",
            f"the clock of whoever proposed this was wrong: it said {strict.rfc3339(created)}, but "
            f"what is in force was signed about {strict.rfc3339(certain)}. Have it proposed anew",
        )
    elif now < certain - SKEW or now < created - SKEW:
        yield Caution(
            Level.STOP,
            "root",
            f"this machine's clock is wrong: it says {strict.rfc3339(now)}, but the request was "
            f"made at {strict.rfc3339(created)}. Set it, or say what time it is with --now",
        )
    elif now < created - timedelta(minutes=10):
        yield Caution(
            Level.NOTE,
            "root",
            f"this machine's clock is {span(created - now)} behind that of whoever proposed this",
        )
    if now - created > OLD_REQUEST:
        yield Caution(
            Level.NOTE,
            "root",
            f"the request was made {span(now - created)} ago; if that is not so, this machine's "
            "clock is wrong",
        )
    for role in OFFLINE:
        metadata = request.metadata(role)
        if metadata:
            yield from _expiry(role, metadata, request, now)


def _expiry(
    role: str, metadata: Metadata[Any], request: Request, now: datetime
) -> Iterator[Caution]:
    expires = metadata.signed.expires
    if now >= expires:
        yield Caution(
            Level.STOP,
            role,
            f"the new {role} would have expired already, at {strict.rfc3339(expires)}, by this "
            "machine's clock. If the clock is right, have it proposed anew",
        )
    try:
        meant = request.created + tuf.validity(request.after.root, role)
    except UsageError:
        yield Caution(Level.DANGER, role, f"nothing says for how long {role} is valid")
        return
    if abs(expires - meant) > SKEW:
        yield Caution(
            Level.DANGER,
            role,
            f"the new {role} expires {strict.rfc3339(expires)}, but from when it was proposed its "
            f"validity ends {strict.rfc3339(meant)}",
        )


def _thresholds(old: View, new: View) -> Iterator[Caution]:
    for name in new.roles():
        role = new.role(name)
        keys = new.keys(name)
        if role is None:
            continue
        if role.threshold > len(keys):
            yield Caution(
                Level.STOP,
                name,
                f"nobody could sign as {name} ever again: {role.threshold} must, and there are "
                f"{len(keys)} keys",
            )
            continue
        people = Counter(holder(key) for key in keys.values())
        for who, count in people.items():
            if who and count > 1:
                yield Caution(
                    Level.DANGER if name in OFFLINE else Level.NOTE,
                    name,
                    f"{who} holds {count} of the {len(keys)} keys of {name}: one person counts "
                    f"{count} times",
                )
        if name not in OFFLINE:
            continue
        was = old.role(name)
        changed = was is None or (was.keyids, was.threshold) != (role.keyids, role.threshold)
        level = Level.DANGER if changed else Level.NOTE
        if role.threshold == 1:
            yield Caution(
                level,
                name,
                f"one key is enough to sign as {name}: whoever steals any of them may "
                + ("take over the repository" if name == Root.type else "replace every policy"),
            )
        elif role.threshold == len(keys):
            yield Caution(
                level,
                name,
                f"all {len(keys)} keys of {name} must sign: if one is lost, "
                + (
                    "root can never change again, and every device must be provisioned anew"
                    if name == Root.type
                    else "only root can mend it"
                ),
            )


def _shared_keys(new: View) -> Iterator[Caution]:
    roles_of: dict[str, list[str]] = {}
    for name in new.roles():
        for key in new.keys(name).values():
            roles_of.setdefault(key.keyval.get("public", ""), []).append(name)
    for model in new.models():
        policy = new.policy(model)
        for owner in policy.owners.values() if policy else ():
            if owner.public in roles_of:
                roles_of[owner.public].append(f"layout of {model}")
    told = set()
    for name in new.roles():
        for keyid, key in new.keys(name).items():
            roles = roles_of[key.keyval.get("public", "")]
            if len(roles) > 1 and keyid not in told:
                told.add(keyid)
                yield Caution(
                    Level.DANGER if set(roles) & set(OFFLINE) else Level.NOTE,
                    next((role for role in OFFLINE if role in roles), roles[0]),
                    f"{called(key)} is a key of {listed(roles)}: whoever steals it holds them all",
                )


def _removed_holders(old: View, new: View) -> Iterator[Caution]:
    """A holder who loses a key of one role, but keeps one of another."""
    removed = {
        name: role
        for role in old.roles()
        if new.role(role) is not None and role not in ONLINE
        for keyid, key in old.keys(role).items()
        if (name := holder(key)) and keyid not in new.keys(role) and name not in _people(new, role)
    }
    for name, role in removed.items():
        others = [other for other in new.roles() if name in _people(new, other)]
        for model in new.models():
            document = new.documents.get(policies.model_policy_path(model))
            if name in owner_names(document).values():
                others.append(f"layout of {model}")
        if others:
            yield Caution(
                Level.NOTE,
                role,
                f"{name} no longer signs as {role}, but still holds a key of {listed(others)}. "
                f"If they leave, or were robbed, remove those too: --also 'remove-holder {name}'",
            )


def _people(view: View, role: str) -> set[str]:
    return {name for key in view.keys(role).values() if (name := holder(key))}


def _periods(old: View, new: View) -> Iterator[Caution]:
    for name in new.roles():
        try:
            period = tuf.validity(new.delegator(name), name)
        except UsageError:
            yield Caution(Level.DANGER, name, f"nothing says for how long {name} is valid")
            continue
        was, now = old.role(name), new.role(name)
        same = was and now and was.unrecognized_fields == now.unrecognized_fields
        least, most = BOUNDS.get(name, OTHER_BOUNDS)
        level = Level.NOTE if same or name not in OFFLINE else Level.DANGER
        if period < least:
            yield Caution(
                level,
                name,
                f"what {name} signs is valid for only {span(period)}: if signing is late once, "
                "devices stop updating",
            )
        elif period > most:
            yield Caution(
                level,
                name,
                f"what {name} signs is valid for {span(period)}: for that long, devices believe "
                "somebody who hides newer versions from them",
            )


def _versions(request: Request) -> Iterator[Caution]:
    found = {role: (number, None) for role, number in request.proposed.numbers.items()}
    then = request.trusted.targets.signed.version
    if request.proposed.targets:
        now = request.proposed.targets.signed.version
        if now <= then:
            yield Caution(
                Level.DANGER,
                Targets.type,
                f"targets goes back from version {then} to {now}: devices follow only if the keys "
                "of snapshot are replaced too",
            )
        if now - then > JUMP:
            yield _jump(Targets.type, now)
    for role, (number, _) in found.items():
        if number > JUMP:
            yield _jump(role, number)


def _jump(role: str, version: int) -> Caution:
    left = "it leaves room for later ones"
    if version > MAX_INT // 2:
        left = "it leaves hardly any for later ones"
    return Caution(
        Level.DANGER,
        role,
        f"{role} jumps to version {version}, which devices never go back from; {left}. Right only "
        "after a theft",
    )


def _layouts(request: Request, now: datetime) -> Iterator[Caution]:
    """Whatever a device would refuse every release of a model for."""
    new = request.after
    for model in new.models():
        document = new.documents.get(f"{LAYOUTS}{model}.json")
        policy = new.policy(model)
        if document is None or policy is None:
            continue
        try:
            envelope = dsse.Envelope.parse("layout", document)
            supply_chain.verify_owners(envelope, policy)
            supply_chain.read_layout(envelope, policy, now)
        except (Refused, FormatError) as error:
            yield Caution(
                Level.STOP,
                f"layout of {model}",
                f"devices would refuse every release of {model}: {error.reason}. Have its owners "
                f"sign it, and propose it together with this: --also 'set-layout {model} FILE'",
            )
        owners = policy.owners
        if policy.threshold == 1 and len(owners) > 1:
            yield Caution(
                Level.NOTE, f"layout of {model}", f"one owner alone can set the layout of {model}"
            )


def _online(old: View, new: View) -> Iterator[Caution]:
    """One of two keys that lie on one machine is replaced."""
    gone = {role: set(old.keys(role)) - set(new.keys(role)) for role in ONLINE}
    for role, other in (ONLINE, ONLINE[::-1]):
        if gone[role] and not gone[other] and _people(old, role) & _people(old, other):
            yield Caution(
                Level.NOTE,
                other,
                f"the key of {role} is replaced, that of {other} is not, though "
                f"{listed(sorted(_people(old, role) & _people(old, other)))} holds both. After a "
                "theft replace both: only then do devices forget versions that the thief signed",
            )
