"""Who signed what, and about when: read from nothing but the metadata that lies in a repository.

TUF metadata does not say when it was signed. It says when it expires, and whoever delegates to
the role says for how long each signature lasts; the difference is about when it was signed. For
roles other than root it is not certain which delegator was in force: the newest that existed at
the time so computed is taken.
"""

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from tuf.api.exceptions import RepositoryError
from tuf.api.metadata import Metadata, Root, Snapshot, Targets, Timestamp

from modelward.formats import strict
from modelward_repo.roles.difference import changes
from modelward_repo.roles.expiry import period
from modelward_repo.roles.holders import Authorities, Holder, Names

MOST_CHANGES = 3  # that a summary names
_FILE = re.compile(r"metadata/(?:([1-9][0-9]{0,17})\.)?(.+)\.json")
_ORDER = ("root", "targets", "snapshot", "timestamp")


@dataclass(frozen=True)
class Entry:
    """One version of one role.

    Attributes:
        role: The role.
        version: Its version.
        about: About when it was signed; None if nothing says for how long it was.
        expires: When it expires; None if it cannot be read.
        signers: Whose valid signatures it bears.
        summary: What changed to the version before.
        published: Whether the repository has got to it; what a killed publisher left never is.
    """

    role: str
    version: int
    about: datetime | None
    expires: datetime | None
    signers: tuple[Holder, ...]
    summary: str
    published: bool = True

    def __str__(self) -> str:
        about = f"about {strict.rfc3339(self.about)}" if self.about else "at an unknown time"
        who = ", ".join(map(str, self.signers)) or "NOBODY (no valid signature)"
        until = strict.rfc3339(self.expires) if self.expires else "never"
        note = "" if self.published else " [not published]"
        return f"{about}  {self.role} {self.version}{note}  by {who}, until {until}: {self.summary}"

    def to_dict(self) -> dict[str, Any]:
        """Return it as a JSON object."""
        return {
            "role": self.role,
            "version": self.version,
            "about": strict.rfc3339(self.about) if self.about else None,
            "expires": strict.rfc3339(self.expires) if self.expires else None,
            "signers": [{"keyid": key.keyid, "holder": key.name} for key in self.signers],
            "summary": self.summary,
            "published": self.published,
        }


@dataclass(frozen=True)
class _File:
    role: str
    version: int
    metadata: Metadata[Any] | None


def history(files: Iterable[tuple[str, bytes]], names: Names | None = None) -> list[Entry]:
    """Return every version of every role, oldest first.

    Args:
        files: The repository's metadata files: paths such as ``metadata/3.targets.json``, content.
        names: Holders of keys whose names were not signed with them.
    """
    found = sorted(filter(None, map(_read, files)), key=lambda file: file.version)
    by_role: dict[str, list[_File]] = defaultdict(list)
    for file in found:
        by_role[file.role].append(file)
    delegators = [
        file.metadata.signed
        for role in ("root", Targets.type)
        for file in by_role[role]
        if file.metadata
    ]
    authorities = Authorities(delegators, names)
    times = _Times(by_role)
    current = _current(by_role)
    entries: list[Entry] = []
    for role in sorted(by_role, key=_rank):
        before: Metadata[Any] | None = None
        for file in by_role[role]:
            entries.append(_entry(file, before, times, authorities, current))
            before = file.metadata or before
    return sorted(entries, key=times.order)


def role_of_file(path: str) -> tuple[str, int | None] | None:
    """Return the role and the version that a metadata file's path names, or None."""
    match = _FILE.fullmatch(path)
    return (match[2], int(match[1]) if match[1] else None) if match else None


def _read(file: tuple[str, bytes]) -> _File | None:
    path, data = file
    named = role_of_file(path)
    if named is None:
        return None
    role, version = named
    try:
        metadata = Metadata[Any].from_bytes(data)
        if version is None and not isinstance(metadata.signed, Timestamp):
            return None  # only the timestamp lies there without a version
    except (RepositoryError, ValueError, RecursionError):
        return _File(role, version or 0, None)
    return _File(role, version or metadata.signed.version, metadata)


class _Times:
    """About when each version was signed."""

    def __init__(self, by_role: Mapping[str, list[_File]]) -> None:
        self._known: dict[tuple[str, int], datetime] = {}
        self._not_before: dict[tuple[str, int], datetime] = {}
        roots = self._delegators(by_role.get("root", []), None)
        targets = self._delegators(by_role.get(Targets.type, []), roots)
        for role, files in by_role.items():
            if role not in ("root", Targets.type):
                top = role in ("snapshot", "timestamp")
                self._add(files, roots if top else targets)

    def get(self, role: str, version: int) -> datetime | None:
        """Return when a version was signed, or None."""
        return self._known.get((role, version))

    def order(self, entry: Entry) -> tuple[float, tuple[int, str], int]:
        """Sort entries by time; what cannot be dated stands at the end."""
        time = self._not_before.get((entry.role, entry.version))
        return time.timestamp() if time else float("inf"), _rank(entry.role), entry.version

    def _delegators(
        self, files: list[_File], above: list[tuple[datetime, Any]] | None
    ) -> list[tuple[datetime, Any]]:
        """Date the versions of a role that delegates to others; root dates itself."""
        self._add(files, above)
        return [
            (self._known[file.role, file.version], file.metadata.signed)
            for file in files
            if file.metadata and (file.role, file.version) in self._known
        ]

    def _add(self, files: list[_File], above: list[tuple[datetime, Any]] | None) -> None:
        last: datetime | None = None
        for file in files:
            if file.metadata is None:
                continue
            signed = file.metadata.signed
            time = _dated(signed, file.role, above)
            if time is not None:
                self._known[file.role, file.version] = time
                # A wrong clock, or another period, must not put a version before its predecessor.
                last = max(time, last) if last else time
                self._not_before[file.role, file.version] = last


def _dated(signed: Any, role: str, above: list[tuple[datetime, Any]] | None) -> datetime | None:
    if above is None:
        own = period(signed, role) if isinstance(signed, Root) else None
        return signed.expires - own if own else None
    time: datetime | None = None
    for since, delegator in reversed(above):
        length = period(delegator, role)
        if length is not None:
            time = signed.expires - length
            if since <= time:
                break
    return time


def _entry(
    file: _File,
    before: Metadata[Any] | None,
    times: _Times,
    authorities: Authorities,
    current: Mapping[str, int],
) -> Entry:
    published = file.version <= current.get(file.role, file.version)
    if file.metadata is None:
        text = "this file is damaged: it is not TUF metadata"
        return Entry(file.role, file.version, None, None, (), text, published)
    return Entry(
        role=file.role,
        version=file.version,
        about=times.get(file.role, file.version),
        expires=file.metadata.signed.expires,
        signers=authorities.signers(file.role, file.metadata),
        summary=_summary(before, file.metadata, authorities),
        published=published,
    )


def _summary(before: Metadata[Any] | None, now: Metadata[Any], names: Authorities) -> str:
    if before is None:
        only = isinstance(now.signed, Timestamp)
        return "the only one that is kept" if only else "the oldest that is here"
    if type(before.signed) is not type(now.signed):
        return f"of another type than the version before: {now.signed.type}"
    found = [str(it) for it in changes(before.signed, now.signed, names) if not it.routine]
    if not found:
        return "renewed, with the same content"
    more = len(found) - MOST_CHANGES
    return "; ".join(found[:MOST_CHANGES]) + (f"; and {more} more" if more > 0 else "")


def _current(by_role: Mapping[str, list[_File]]) -> dict[str, int]:
    """Return the version of each role that the timestamp leads to."""
    found: dict[str, int] = {}
    for file in by_role.get("timestamp", []):
        if file.metadata and isinstance(file.metadata.signed, Timestamp):
            found["snapshot"] = file.metadata.signed.snapshot_meta.version
    for file in by_role.get("snapshot", []):
        if file.metadata and file.version == found.get("snapshot"):
            listed: Snapshot = file.metadata.signed
            for name, meta in listed.meta.items():
                found[name.removesuffix(".json")] = meta.version
    return found


def _rank(role: str) -> tuple[int, str]:
    return (_ORDER.index(role) if role in _ORDER[:2] else 2 + (role in _ORDER), role)
