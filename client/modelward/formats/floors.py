"""Floors: the oldest versions a device still accepts, kept apart from TUF's own cache.

TUF's client keeps its memory of what it has seen in files that a power cut can empty; it would
then accept an old repository again (attack row 3). Floors are that memory, kept durably.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from modelward.errors import FormatError
from modelward.formats import strict
from modelward.formats.floors_reset import FloorsReset

DOCUMENT = "floors"
SCHEMA = "modelward/floors/1"
CAP = 4 << 20  # lists as many roles as TUF's largest snapshot, 2 MB, can


@dataclass(frozen=True)
class RoleFloor:
    """The newest metadata of a role that this device has acted upon.

    Attributes:
        version: Its version.
        sha256: Digest of its file.
        signers: Key ids that had signed it. The floor holds for as long as root still trusts
            enough of them: rotating a stolen key is how a fleet recovers from a fast-forward
            (TUF 5.3.11), and only root's threshold can do that.
    """

    version: int
    sha256: str
    signers: frozenset[str]


@dataclass(frozen=True)
class TimeFloor:
    """A time that has certainly passed: a quorum of a log's witnesses said so.

    Attributes:
        at: The time.
        log: Digest of that log's key. The floor holds for as long as root names that log:
            witnesses whose keys were stolen may have said anything.
    """

    at: datetime
    log: str


@dataclass(frozen=True)
class Floors:
    """Everything that may only rise.

    Attributes:
        root: Version of the newest root.
        timestamp: Newest timestamp acted upon, or None.
        snapshot: Newest snapshot acted upon, or None.
        listed: Version of every targets role, as that snapshot lists it.
        releases: Per model, the counter of the newest release installed.
        time: What time it is at least, or None.
        reset: The last reset that root signed and this device has applied, with those models whose
            floor has not risen again since.
    """

    root: int = 0
    timestamp: RoleFloor | None = None
    snapshot: RoleFloor | None = None
    listed: Mapping[str, int] = field(default_factory=dict)
    releases: Mapping[str, int] = field(default_factory=dict)
    time: TimeFloor | None = None
    reset: FloorsReset | None = None

    @classmethod
    def parse(cls, data: bytes) -> "Floors":
        """Parse a floors file.

        Raises:
            FormatError: Ill-formed, or its checksum does not match (a torn write).
        """
        outer = strict.Fields(DOCUMENT, strict.load(DOCUMENT, data, CAP))
        outer.schema(SCHEMA)
        body = outer.fields("floors")
        if outer.sha256("sha256") != _checksum(body.raw):
            raise FormatError(DOCUMENT, "sha256", "does not match the content")
        return cls(
            root=body.integer("root"),
            timestamp=_role(body, "timestamp"),
            snapshot=_role(body, "snapshot"),
            listed=_integers(body.fields("listed")),
            releases=_integers(body.fields("releases")),
            time=_time(body),
            reset=FloorsReset.read(body.fields("reset")) if body.has("reset") else None,
        )

    def with_releases(self, counters: Mapping[str, int]) -> "Floors":
        """Return the floors raised to the counters of releases, by model."""
        risen = {
            model: max(counter, self.releases.get(model, 0)) for model, counter in counters.items()
        }
        reset = self.reset and FloorsReset(
            self.reset.id,
            {name: to for name, to in self.reset.releases.items() if name not in counters},
        )
        return replace(self, releases={**self.releases, **risen}, reset=reset)

    def holding(self, running: Mapping[str, int]) -> "Floors":
        """Return the floors raised to the counters of what runs, where no reset allows less."""
        lowered = self.reset.releases if self.reset is not None else {}
        counters = {model: count for model, count in running.items() if model not in lowered}
        return self.with_releases(counters)

    def lowered_by(self, reset: FloorsReset | None) -> "Floors":
        """Return the floors after a reset that root signed; unchanged if it was applied before."""
        if reset is None or (self.reset is not None and self.reset.id == reset.id):
            return self
        lowered = {
            model: counter
            for model, counter in reset.releases.items()
            if self.releases.get(model, counter + 1) > counter
        }
        return replace(
            self,
            releases={**self.releases, **lowered},
            reset=FloorsReset(reset.id, lowered),
        )

    def least(self, model: str, running: int | None) -> int:
        """Return the least counter that a release of a model must have to be installed.

        Args:
            model: The model.
            running: The counter of the release that runs, or None. A newer one must be above it,
                unless a reset allows to go below.
        """
        floor = self.releases.get(model, 0)
        if running is None or (self.reset is not None and model in self.reset.releases):
            return floor
        return max(floor, running + 1)

    def to_bytes(self) -> bytes:
        """Return the file, with a checksum of its content."""
        body: dict[str, Any] = {
            "root": self.root,
            "timestamp": _role_dict(self.timestamp),
            "snapshot": _role_dict(self.snapshot),
            "listed": dict(self.listed),
            "releases": dict(self.releases),
        }
        if self.time is not None:
            body["time"] = {"at": strict.rfc3339(self.time.at), "log": self.time.log}
        if self.reset is not None:
            body["reset"] = self.reset.to_dict()
        return strict.dump({"schema": SCHEMA, "sha256": _checksum(body), "floors": body})


def _checksum(body: Mapping[str, Any]) -> str:
    return hashlib.sha256(strict.dump(body)).hexdigest()


def _role(fields: strict.Fields, name: str) -> RoleFloor | None:
    if not fields.has(name):
        return None
    role = fields.fields(name)
    return RoleFloor(
        role.integer("version", least=1), role.sha256("sha256"), frozenset(role.texts("signers"))
    )


def _time(body: strict.Fields) -> TimeFloor | None:
    if not body.has("time"):
        return None
    fields = body.fields("time")
    return TimeFloor(fields.time("at"), fields.sha256("log"))


def _role_dict(floor: RoleFloor | None) -> dict[str, Any] | None:
    if floor is None:
        return None
    return {"version": floor.version, "sha256": floor.sha256, "signers": sorted(floor.signers)}


def _integers(fields: strict.Fields) -> dict[str, int]:
    return {name: fields.integer(name) for name in fields.raw}
