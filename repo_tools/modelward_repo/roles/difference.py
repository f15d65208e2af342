"""What is different between two versions of something, in words that people can act upon."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from tuf.api.metadata import (
    DelegatedRole,
    Delegations,
    Metadata,
    MetaFile,
    Role,
    Root,
    Signed,
    Snapshot,
    TargetFile,
    Targets,
    Timestamp,
)

from modelward.formats import strict
from modelward_repo.roles.expiry import span
from modelward_repo.roles.holders import Authorities
from modelward_repo.roles.metadata import EXPIRES

MAX_SHOWN = 100  # characters of a value that are shown


@dataclass(frozen=True)
class Change:
    """One difference.

    Attributes:
        where: What it is about: a role, a target, a field.
        text: What happened to it.
        routine: Whether every renewal brings it: the version and the expiry.
    """

    where: str
    text: str
    routine: bool = False

    def __str__(self) -> str:
        return f"{self.where}: {self.text}" if self.where else self.text

    def to_dict(self) -> dict[str, str]:
        """Return it as a JSON object."""
        return {"where": self.where, "text": self.text}


def changes(old: Signed, new: Signed, names: Authorities | None = None) -> Iterator[Change]:
    """Yield what is different between two versions of a role's content.

    Args:
        old: The one.
        new: The other, of the same type.
        names: Knows who holds which key.

    Raises:
        TypeError: They are of different types.
    """
    if type(old) is not type(new):
        raise TypeError(f"{old.type} and {new.type} have nothing in common")
    known = names or Authorities(it for it in (old, new) if isinstance(it, Root | Targets))
    yield from _common(old, new)
    if isinstance(old, Root) and isinstance(new, Root):
        yield from _root(old, new, known)
    elif isinstance(old, Targets) and isinstance(new, Targets):
        yield from _targets(old, new, known)
    elif isinstance(old, Snapshot) and isinstance(new, Snapshot):
        yield from _meta(old.meta, new.meta)
    elif isinstance(old, Timestamp) and isinstance(new, Timestamp):
        yield from _meta({"snapshot.json": old.snapshot_meta}, {"snapshot.json": new.snapshot_meta})
    yield from _extras("", old.unrecognized_fields, new.unrecognized_fields)


def signature_changes(
    role: str | None, old: Metadata[Any], new: Metadata[Any], names: Authorities
) -> Iterator[Change]:
    """Yield whose signatures only one of two versions bears.

    Where `names` knows the role's keys, only valid signatures of such keys count; where it does
    not, the key ids that the signatures claim are all there is.
    """
    if role and names.knows(role):
        before = {key.keyid for key in names.signers(role, old)}
        after = {key.keyid for key in names.signers(role, new)}
        what = "signed"
    else:
        before, after = set(old.signatures), set(new.signatures)
        what = "signature (not verified)"
    for keyid in sorted(before | after):
        who = _who(keyid, names)
        if keyid in before and keyid in after:
            continue
        which = "the second" if keyid in after else "the first"
        yield Change("signatures", f"{who}: {what} only in {which}")


def document_changes(old: Any, new: Any, where: str = "") -> Iterator[Change]:
    """Yield what is different between two JSON values, field by field."""
    if isinstance(old, dict) and isinstance(new, dict):
        for name in sorted(old.keys() | new.keys()):
            inner = f"{where}.{name}" if where else str(name)
            if name not in new:
                yield Change(inner, f"removed, was {shown(old[name])}")
            elif name not in old:
                yield Change(inner, f"added: {shown(new[name])}")
            else:
                yield from document_changes(old[name], new[name], inner)
    elif isinstance(old, list) and isinstance(new, list):
        yield from _list_changes(old, new, where)
    elif type(old) is not type(new) or old != new:
        yield Change(where, f"{shown(old)} -> {shown(new)}")


def shown(value: Any) -> str:
    """Return a value as one short printable text."""
    text = value if isinstance(value, str) else strict.dump(value).decode().strip()
    text = text if text.isprintable() else repr(text)
    return text if len(text) <= MAX_SHOWN else f"{text[: MAX_SHOWN - 4]} ..."


def period_text(seconds: object) -> str:
    """Return a role's period in words."""
    if type(seconds) is not int or not 0 <= seconds < timedelta.max.total_seconds():
        return "unknown" if seconds is None else shown(seconds)
    return span(timedelta(seconds=seconds))


def _list_changes(old: list[Any], new: list[Any], where: str) -> Iterator[Change]:
    one, other = _by_name(old), _by_name(new)
    if one is not None and other is not None:
        yield from document_changes(one, other, where)
        return
    if _is_set(old) and _is_set(new):
        yield from (Change(where, f"without {shown(item)}") for item in old if item not in new)
        yield from (Change(where, f"with {shown(item)}") for item in new if item not in old)
        if sorted(map(str, old)) == sorted(map(str, new)) and old != new:
            yield Change(where, "in another order")
        return
    for index in range(max(len(old), len(new))):
        inner = f"{where}[{index}]"
        if index >= len(new):
            yield Change(inner, f"removed, was {shown(old[index])}")
        elif index >= len(old):
            yield Change(inner, f"added: {shown(new[index])}")
        else:
            yield from document_changes(old[index], new[index], inner)


def _is_set(items: list[Any]) -> bool:
    """Tell whether a list is of different texts, which are compared as a set."""
    return all(isinstance(item, str) for item in items) and len(set(items)) == len(items)


def _by_name(items: list[Any]) -> dict[str, Any] | None:
    """Return a list of objects that have names or paths by these, or None."""
    found = {}
    for item in items:
        name = item.get("name", item.get("path")) if isinstance(item, dict) else None
        if not isinstance(name, str) or name in found:
            return None
        found[name] = item
    return found


def _common(old: Signed, new: Signed) -> Iterator[Change]:
    if old.version != new.version:
        back = " (BACKWARDS)" if new.version < old.version else ""
        yield Change("version", f"{old.version} -> {new.version}{back}", routine=not back)
    if old.spec_version != new.spec_version:
        yield Change("specification", f"{shown(old.spec_version)} -> {shown(new.spec_version)}")
    if old.expires != new.expires:
        yield Change("expires", _moved(old.expires, new.expires), routine=new.expires > old.expires)


def _moved(old: datetime, new: datetime) -> str:
    which = "later" if new > old else "EARLIER"
    return f"{strict.rfc3339(old)} -> {strict.rfc3339(new)} ({span(new - old)} {which})"


def _root(old: Root, new: Root, names: Authorities) -> Iterator[Change]:
    if old.consistent_snapshot != new.consistent_snapshot:
        yield Change(
            "consistent_snapshot", f"{old.consistent_snapshot} -> {new.consistent_snapshot}"
        )
    yield from _roles(old.roles, new.roles, names)
    yield from _renamed(old.keys, new.keys)


def _targets(old: Targets, new: Targets, names: Authorities) -> Iterator[Change]:
    for path in sorted(old.targets.keys() | new.targets.keys()):
        before, after = old.targets.get(path), new.targets.get(path)
        if before is None and after is not None:
            yield Change(f"target {shown(path)}", f"added ({_file(after)})")
        elif before is not None and after is None:
            yield Change(f"target {shown(path)}", f"removed ({_file(before)})")
        elif before is not None and after is not None and before != after:
            yield Change(f"target {shown(path)}", f"changed ({_file(before)} -> {_file(after)})")
    one, other = old.delegations or Delegations({}, {}), new.delegations or Delegations({}, {})
    yield from _roles(one.roles or {}, other.roles or {}, names)
    yield from _renamed(one.keys, other.keys)
    if (one.succinct_roles is None) != (other.succinct_roles is None):
        yield Change("delegations", "succinct roles only in one of both")


def _file(info: TargetFile) -> str:
    digest = info.hashes.get("sha256", "")
    return f"{info.length} bytes, {f'sha256 {digest[:12]}' if digest else 'no sha256'}"


def _roles(
    old: Mapping[str, Role], new: Mapping[str, Role], names: Authorities
) -> Iterator[Change]:
    for name in [*old, *(name for name in new if name not in old)]:
        if name not in new:
            yield Change(f"role {shown(name)}", "removed: nobody may sign it any longer")
        elif name not in old:
            role = new[name]
            who = ", ".join(_who(keyid, names) for keyid in role.keyids)
            yield Change(
                f"role {shown(name)}",
                f"added: {role.threshold} of {len(role.keyids)} must sign ({who})",
            )
            yield from _paths(name, (), _patterns(role))
        else:
            yield from _role(name, old[name], new[name], names)


def _role(name: str, old: Role, new: Role, names: Authorities) -> Iterator[Change]:
    where = f"role {shown(name)}"
    for keyid in old.keyids:
        if keyid not in new.keyids:
            yield Change(where, f"{_who(keyid, names)} may no longer sign")
    for keyid in new.keyids:
        if keyid not in old.keyids:
            yield Change(where, f"{_who(keyid, names)} may sign")
    if (old.threshold, len(old.keyids)) != (new.threshold, len(new.keyids)):
        yield Change(
            where,
            f"{old.threshold} of {len(old.keyids)} must sign -> "
            f"{new.threshold} of {len(new.keyids)}",
        )
    periods = [role.unrecognized_fields.get(EXPIRES) for role in (old, new)]
    if periods[0] != periods[1]:
        yield Change(
            where, f"signed for {period_text(periods[0])} -> {period_text(periods[1])} at a time"
        )
    yield from _paths(name, _patterns(old), _patterns(new))
    if isinstance(old, DelegatedRole) and isinstance(new, DelegatedRole):
        if old.terminating != new.terminating:
            yield Change(where, f"terminating: {old.terminating} -> {new.terminating}")
        if old.path_hash_prefixes != new.path_hash_prefixes:
            yield Change(where, "its path hash prefixes changed")
    extras = [
        {key: value for key, value in role.unrecognized_fields.items() if key != EXPIRES}
        for role in (old, new)
    ]
    yield from _extras(where, extras[0], extras[1])


def _patterns(role: Role) -> tuple[str, ...]:
    return tuple(role.paths or ()) if isinstance(role, DelegatedRole) else ()


def _paths(name: str, old: Iterable[str], new: Iterable[str]) -> Iterator[Change]:
    for path in sorted({*old} - {*new}):
        yield Change(f"role {shown(name)}", f"may no longer vouch for {shown(path)}")
    for path in sorted({*new} - {*old}):
        yield Change(f"role {shown(name)}", f"may vouch for {shown(path)}")


def _renamed(old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[Change]:
    """Yield what else changed in key objects that kept their key."""
    for keyid in sorted(old.keys() & new.keys()):
        spelt = [(key[keyid].keytype, key[keyid].scheme, key[keyid].keyval) for key in (old, new)]
        if spelt[0] != spelt[1]:
            yield Change(f"key {shown(keyid)[:8]}", "ANOTHER key under the same key id")
        fields = [key[keyid].unrecognized_fields for key in (old, new)]
        yield from _extras(f"key {shown(keyid)[:8]}", fields[0], fields[1])


def _meta(old: Mapping[str, MetaFile], new: Mapping[str, MetaFile]) -> Iterator[Change]:
    for file in sorted(old.keys() | new.keys()):
        name = shown(file.removesuffix(".json"))
        before, after = old.get(file), new.get(file)
        if before is None and after is not None:
            yield Change(name, f"listed now, version {after.version}")
        elif before is not None and after is None:
            yield Change(name, f"no longer listed (was version {before.version})")
        elif before is not None and after is not None and before.version != after.version:
            back = " (BACKWARDS)" if after.version < before.version else ""
            yield Change(name, f"{before.version} -> {after.version}{back}")
        elif before != after:
            yield Change(name, "other bytes under the SAME version")


def _extras(where: str, old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[Change]:
    for change in document_changes(dict(old), dict(new)):
        yield Change(f"{where}, {change.where}" if where else change.where, change.text)


def _who(keyid: str, names: Authorities) -> str:
    name = names.name(keyid)
    return f"{name} ({keyid[:8]})" if name else f"key {shown(keyid)[:8]}"
