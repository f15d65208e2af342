"""What a signing request changes, in plain words, worked out from the metadata alone.

Everything that is understood is said in words and then set aside; if old and new still differ in
anything, that is shown as it stands. So nothing can change without being seen.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from tuf.api.metadata import DelegatedRole, Role, Root, Targets

from modelward.errors import FormatError
from modelward.formats import dsse, strict
from modelward.formats import policy as policies
from modelward.formats.floors_reset import FIELD as RESET_FIELD
from modelward.formats.floors_reset import FloorsReset
from modelward.formats.log_policy import FIELD as LOG_FIELD
from modelward.formats.policy import FleetPolicy, MetricGate, ModelPolicy
from modelward.trust.layout import Layout
from modelward_repo.roles import metadata as tuf
from modelward_repo.roles.expiry import span
from modelward_repo.roles.policy import CHANNELS, TOP_LEVEL
from modelward_repo.roles.request import Request
from modelward_repo.roles.state import (
    LAYOUTS,
    OFFLINE,
    POLICIES,
    View,
    called,
    holder,
    listed,
    model_of,
    owner_names,
    short,
    title,
)

MAX_SHOWN = 160  # characters of something that is not understood
MAX_METRICS = 20


@dataclass(frozen=True)
class Difference:
    """One thing that changes.

    Attributes:
        role: The role it is about.
        text: What changes, as a sentence.
        dangerous: Whether a mistake in it can lock people or devices out, or strangers in.
    """

    role: str
    text: str
    dangerous: bool = False


def differences(request: Request) -> tuple[Difference, ...]:
    """Return everything that a request changes."""
    old, new = request.before, request.after
    found = (
        *_roles(old, new),
        *_log(old.root, new.root),
        *_reset(old.root, new.root),
        *_documents(old, new),
        *_numbers(request),
        *_rest(old, new),
        *_renewals(request),
    )
    order = [*new.roles(), *old.roles()]
    return tuple(
        sorted(found, key=lambda item: order.index(item.role) if item.role in order else len(order))
    )


def _roles(old: View, new: View) -> Iterator[Difference]:
    for name in dict.fromkeys((*new.roles(), *old.roles())):
        then, now = old.role(name), new.role(name)
        if then is None and now is not None:
            keys = listed(called(key) for key in new.keys(name).values())
            yield Difference(
                name,
                f"NEW ROLE: {now.threshold} of {keys} may {ability(name)}{_paths(now)}",
                dangerous=not _is_usual(name, now),
            )
        elif now is None:
            yield Difference(
                name,
                f"ROLE REMOVED: nobody signs as {name} any more"
                + ("; devices that run the model keep it" if model_of(name) else ""),
                dangerous=True,
            )
        elif then is not None:
            yield from _role(name, old, new, then, now)


def _role(name: str, old: View, new: View, then: Role, now: Role) -> Iterator[Difference]:
    grave = name in OFFLINE
    were, are = old.keys(name), new.keys(name)
    for keyid in now.keyids:
        if keyid not in then.keyids:
            key = are.get(keyid)
            who = f"{called(key)}, {key.scheme}," if key else f"the unknown key {short(keyid)}"
            # Whole, to be compared with what its holder has: eight digits can be forged.
            yield Difference(
                name,
                f"KEY ADDED: {who} may sign as {name}; full key id {ascii(keyid)[1:-1]}",
                dangerous=grave,
            )
        elif keyid in were and keyid in are and holder(were[keyid]) != holder(are[keyid]):
            yield Difference(
                name,
                f"HOLDER RENAMED: the key {short(keyid)} is said to be held by "
                f"{holder(are[keyid]) or 'nobody'} instead of {holder(were[keyid]) or 'nobody'}",
                dangerous=grave,
            )
    for keyid in then.keyids:
        if keyid not in now.keyids:
            who = called(were[keyid]) if keyid in were else f"the key {short(keyid)}"
            yield Difference(
                name, f"KEY REMOVED: {who} may no longer sign as {name}", dangerous=grave
            )
    if then.threshold != now.threshold:
        how = "LOWERED" if now.threshold < then.threshold else "RAISED"
        yield Difference(
            name,
            f"THRESHOLD {how}: {now.threshold} of {len(now.keyids)} keys must sign as {name}; "
            f"it was {then.threshold} of {len(then.keyids)}",
            dangerous=grave or now.threshold < then.threshold,
        )
    if _period(then) != _period(now):
        yield Difference(
            name,
            f"VALIDITY: what {name} signs is valid for {_spoken(_period(now))} "
            f"instead of {_spoken(_period(then))}"
            + ("" if name in OFFLINE else ", from the next time it signs"),
        )
    if _delegated(then) != _delegated(now):
        yield Difference(
            name, f"PATHS: {name} now signs{_paths(now)}; it was{_paths(then)}", dangerous=True
        )


def _log(old: Root, new: Root) -> Iterator[Difference]:
    then, now = (root.unrecognized_fields.get(LOG_FIELD) for root in (old, new))
    if then == now:
        return
    if now is None:
        text = "LOG REMOVED: devices no longer demand that publications are in a public log"
    elif then is None:
        text = f"LOG REQUIRED: devices demand that publications are in the log {_shown(now)}"
    else:
        text = f"LOG CHANGED: from {_shown(then)} to {_shown(now)}"
    yield Difference(Root.type, text, dangerous=True)


def _reset(old: Root, new: Root) -> Iterator[Difference]:
    then, now = (root.unrecognized_fields.get(RESET_FIELD) for root in (old, new))
    if then == now:
        return
    if now is None:
        yield Difference(Root.type, "FLOORS: no reset is signed any longer")
        return
    reset = FloorsReset.of_root(new.unrecognized_fields)
    for model, counter in reset.releases.items() if reset else ():
        yield Difference(
            Root.type,
            f"FLOORS LOWERED: devices accept releases of {model} again from counter {counter} on",
            dangerous=True,
        )


def _documents(old: View, new: View) -> Iterator[Difference]:
    for path in dict.fromkeys((*new.targets.targets, *old.targets.targets)):
        then, now = old.targets.targets.get(path), new.targets.targets.get(path)
        if then and now and then.to_dict() == now.to_dict():
            continue
        try:
            yield from _document(path, old, new)
        except FormatError as error:
            yield Difference(
                Targets.type,
                f"BROKEN DOCUMENT: {path} is not well-formed: {error.reason}",
                dangerous=True,
            )


def _document(path: str, old: View, new: View) -> Iterator[Difference]:
    then, now = old.documents.get(path), new.documents.get(path)
    if path not in new.targets.targets:
        yield Difference(Targets.type, f"DOCUMENT REMOVED: {path}")
    elif path == FleetPolicy.TARGET and now:
        yield from _fleet(FleetPolicy.parse(then) if then else None, FleetPolicy.parse(now))
    elif path.startswith(POLICIES) and now:
        yield from _policy(then, now)
    elif path.startswith(LAYOUTS) and now:
        yield from _layout(path, new)
    else:
        yield Difference(
            Targets.type, f"UNKNOWN DOCUMENT: targets would vouch for {path!r}", dangerous=True
        )


def _fleet(then: FleetPolicy | None, now: FleetPolicy) -> Iterator[Difference]:
    for what, before, after in (
        ("channel", then.channels if then else (), now.channels),
        ("file format", then.formats if then else (), now.formats),
    ):
        for name in after:
            if name not in before:
                yield Difference(Targets.type, f"{what.upper()} ADDED for the whole fleet: {name}")
        for name in before:
            if name not in after:
                yield Difference(
                    Targets.type,
                    f"{what.upper()} REMOVED for the whole fleet: {name}",
                    dangerous=True,
                )


def _policy(then: bytes | None, now: bytes) -> Iterator[Difference]:
    new = ModelPolicy.parse(now)
    old = ModelPolicy.parse(then) if then else None
    about = f"layout of {new.model}"
    names, were = owner_names(now), owner_names(then)
    if old is None:
        owners = listed(sorted(title(keyid, names.get(keyid)) for keyid in new.owners))
        yield Difference(about, f"LAYOUT OWNERS: {new.threshold} of {owners} must sign it")
    else:
        for keyid in new.owners.keys() - old.owners.keys():
            who = title(keyid, names.get(keyid))
            text = f"OWNER ADDED: {who} may sign the {about}; full key id {keyid}"
            yield Difference(about, text, dangerous=True)
        for keyid in old.owners.keys() - new.owners.keys():
            text = f"OWNER REMOVED: {title(keyid, were.get(keyid))} no longer signs the {about}"
            yield Difference(about, text, dangerous=True)
        if new.threshold != old.threshold:
            yield Difference(
                about,
                f"OWNERS' THRESHOLD: {new.threshold} of {len(new.owners)} must sign the {about}; "
                f"it was {old.threshold} of {len(old.owners)}",
                dangerous=True,
            )
    yield from _metrics(old.metrics if old else (), new.metrics, new.model)
    if (old.signers if old else ()) != new.signers:
        yield Difference(
            about,
            f"MODEL SIGNATURE: releases of {new.model} must carry a model signature by one of "
            f"{len(new.signers)} keys; it was {len(old.signers) if old else 0}",
        )
    before = old.health.describe() if old else ""
    if new.health.describe() != before:
        yield Difference(
            Targets.type,
            f"HEALTH ON DEVICES of {new.model}: {new.health.describe() or 'nothing is demanded'}; "
            f"it was {before or 'nothing'}",
            dangerous=bool(before),
        )


def _metrics(
    old: tuple[MetricGate, ...], new: tuple[MetricGate, ...], model: str
) -> Iterator[Difference]:
    for gate in new[:MAX_METRICS]:
        if gate not in old:
            yield Difference(Targets.type, f"BOUND ADDED for {model}: {_bound(gate)}")
    for gate in old[:MAX_METRICS]:
        if gate not in new:
            yield Difference(
                Targets.type, f"BOUND REMOVED for {model}: {_bound(gate)}", dangerous=True
            )
    if max(len(old), len(new)) > MAX_METRICS:
        yield Difference(Targets.type, f"MORE THAN {MAX_METRICS} BOUNDS for {model}: see inspect")


def _bound(gate: MetricGate) -> str:
    least = f"at least {gate.least:g}" if gate.least is not None else ""
    most = f"at most {gate.most:g}" if gate.most is not None else ""
    return f"{gate.name} in {gate.file} must be {' and '.join(filter(None, (least, most)))}"


def _layout(path: str, new: View) -> Iterator[Difference]:
    model = path.removeprefix(LAYOUTS).removesuffix(".json")
    envelope = dsse.Envelope.parse("layout", new.documents[path])
    layout = Layout.from_content(envelope.content)
    names = owner_names(new.documents.get(policies.model_policy_path(model)))
    signers = listed(sorted(title(keyid, names.get(keyid)) for keyid in envelope.signatures))
    steps = ", ".join(step.name for step in layout.steps)
    yield Difference(
        f"layout of {model}",
        f"LAYOUT SET: releases of {model} must prove the steps {steps}; signed by {signers}; "
        f"expires {strict.rfc3339(layout.expires)}",
        dangerous=True,
    )


def _numbers(request: Request) -> Iterator[Difference]:
    for role, number in request.proposed.numbers.items():
        yield Difference(
            role,
            f"VERSION: {role} continues from version {number} when this is published",
            dangerous=True,
        )


def _renewals(request: Request) -> Iterator[Difference]:
    for role in OFFLINE:
        metadata = request.metadata(role)
        if metadata:
            old = (request.trusted.root if role == Root.type else request.trusted.targets).signed
            yield Difference(
                role,
                f"VERSION {old.version} -> {metadata.signed.version}; "
                f"expires {strict.rfc3339(metadata.signed.expires)}, "
                f"it was {strict.rfc3339(old.expires)}",
            )


def _rest(old: View, new: View) -> Iterator[Difference]:
    """Yield, as they stand, differences that nothing above put into words."""
    for role, then, now in (
        (Root.type, _stripped(old.root), _stripped(new.root)),
        (Targets.type, _stripped(old.targets), _stripped(new.targets)),
    ):
        for path in sorted(then.keys() | now.keys()):
            if then.get(path) != now.get(path):
                yield Difference(
                    role,
                    f"NOT UNDERSTOOD: {path} changes from {_shown(then.get(path))} "
                    f"to {_shown(now.get(path))}",
                    dangerous=True,
                )


def _stripped(signed: Root | Targets) -> dict[str, Any]:
    """Return the fields of root or targets that nothing above has looked at, flat."""
    raw: dict[str, Any] = json.loads(json.dumps(signed.to_dict()))
    for name in ("version", "expires", LOG_FIELD, RESET_FIELD, "targets"):
        raw.pop(name, None)
    part = raw if isinstance(signed, Root) else raw.pop("delegations", None) or {}
    roles = part.pop("roles", {})
    if isinstance(roles, list):
        part["order of roles"] = [role["name"] for role in roles]
        roles = {role["name"]: role for role in roles}
    used = {keyid for role in roles.values() for keyid in role["keyids"]}
    keys = part.pop("keys", {})
    for keyid, key in keys.items():
        key.pop(tuf.HOLDER, None)
        # A key that comes or goes with a role was told of; one that no role uses was not.
        if keyid not in used or key.keys() - {"keytype", "scheme", "keyval"}:
            part[f"key {short(keyid)}"] = key
    for name, role in roles.items():
        left = role.keys() - {"name", "keyids", "threshold", "paths", "terminating", tuf.EXPIRES}
        if left:
            part[f"role {name}"] = {field: role[field] for field in sorted(left)}
    order = part.pop("order of roles", None)
    if order and not _usual_order(order):
        part["order of roles"] = order
    return raw | {f"delegations.{name}": value for name, value in part.items() if part is not raw}


def _usual_order(names: list[str]) -> bool:
    """Tell whether the order of delegations cannot matter: their paths have nothing in common."""
    return all(name == CHANNELS or model_of(name) for name in names)


def ability(role: str) -> str:
    """Return what a role lets people do, to follow "may"."""
    model = model_of(role)
    if model:
        return f"release the model {model}, within what its layout and policy demand"
    return {
        "root": "change who holds every role, this one too",
        "targets": "say which models there are, who releases them and what releases must prove",
        "snapshot": "say which versions of all metadata belong together",
        "timestamp": "say what is current; alone it can only withhold updates",
        CHANNELS: "say which version is meant for which devices",
    }.get(role, f"sign as {role!r}")


def _is_usual(name: str, role: Role) -> bool:
    model = model_of(name)
    usual = [f"models/{model}/*/*"] if model else [f"{CHANNELS}/*"] if name == CHANNELS else None
    return name in TOP_LEVEL or _delegated(role) == {"paths": usual, "terminating": True}


def _paths(role: Role) -> str:
    if not isinstance(role, DelegatedRole) or _is_usual(role.name, role):
        return ""
    paths = ", ".join(ascii(path)[1:-1] for path in role.paths or ()) or "hashed paths"
    return f" (signs for the paths {paths}{'' if role.terminating else ', not exclusively'})"


def _delegated(role: Role) -> Mapping[str, Any]:
    if not isinstance(role, DelegatedRole):
        return {}
    return {"paths": role.paths, "terminating": role.terminating}


def _period(role: Role) -> Any:
    return role.unrecognized_fields.get(tuf.EXPIRES)


def _spoken(seconds: Any) -> str:
    if type(seconds) is not int or not 0 < seconds < timedelta.max.total_seconds():
        return "an unknown time"
    return span(timedelta(seconds=seconds))


def _shown(value: Any) -> str:
    text = json.dumps(value, sort_keys=True)
    return text if len(text) <= MAX_SHOWN else text[: MAX_SHOWN - 3] + "..."
