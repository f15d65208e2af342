"""channels/<channel>.json: which version of each model is meant for whom."""

import base64
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from modelward.errors import FormatError
from modelward.formats import strict
from modelward.formats.names import check_name, check_version
from modelward.formats.window import check_window

DOCUMENT = "channel"
SCHEMA = "modelward/channel/1"
CAP = 1 << 20
MILLION = 1_000_000
MAX_AFTER = timedelta(days=3650)

_DURATION = re.compile(r"P(?:(\d{1,4})D)?(?:T(?:(\d{1,5})H)?(?:(\d{1,7})M)?)?", re.ASCII)


@dataclass(frozen=True)
class Stage:
    """One step of a rollout.

    Attributes:
        ppm: Share of the fleet it covers, in parts per million.
        labels: For each label name, the values a device may have; empty for every device.
        after: How long after the rollout's start it opens.
        promotion: Digest of the signed promotion it waits for, or None.
    """

    ppm: int
    labels: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    after: timedelta = timedelta()
    promotion: str | None = None


@dataclass(frozen=True)
class Rollout:
    """How a version spreads over the fleet.

    Attributes:
        salt: Fresh random bytes per rollout, so that canaries change.
        not_before: When it starts.
        urgent: Whether maintenance windows are to be ignored.
        halted: Whether nobody else may move to the version.
        stages: In the order they open.
        windows: Local times of day in which a device may switch, such as ``02:00-05:00``.
    """

    salt: bytes
    not_before: datetime
    urgent: bool
    halted: bool
    stages: tuple[Stage, ...]
    windows: tuple[str, ...] = ()


@dataclass(frozen=True)
class Entry:
    """What a channel says of one model.

    Attributes:
        version: The version it offers.
        previous: The version before it, or None.
        revoked: Versions that no device may run any longer than it must.
        rollout: How the version spreads; None for everyone at once.
    """

    version: str
    previous: str | None = None
    revoked: tuple[str, ...] = ()
    rollout: Rollout | None = None


@dataclass(frozen=True)
class Channel:
    """A channel: per model, its entry."""

    name: str
    models: Mapping[str, Entry]

    @classmethod
    def parse(cls, data: bytes) -> "Channel":
        """Parse a channel's document.

        Raises:
            FormatError: The document breaks the format; the error names the field.
        """
        fields = strict.Fields(DOCUMENT, strict.load(DOCUMENT, data, CAP))
        fields.schema(SCHEMA)
        fields.critical()
        models = fields.fields("models")
        for name in models.raw:
            try:
                check_name(name)
            except ValueError as error:
                raise FormatError(DOCUMENT, "models", str(error)) from error
        return cls(
            name=fields.checked("channel", check_name),
            models={name: _entry(models.fields(name)) for name in models.raw},
        )

    def to_bytes(self) -> bytes:
        """Return the document."""
        return strict.dump(
            {
                "schema": SCHEMA,
                "channel": self.name,
                "models": {name: _entry_dict(entry) for name, entry in self.models.items()},
                "critical": [],
            }
        )


def target_path(channel: str) -> str:
    """Return the TUF target path of a channel's document."""
    return f"channels/{channel}.json"


def _entry(fields: strict.Fields) -> Entry:
    entry = Entry(
        version=fields.checked("version", check_version),
        previous=fields.checked("previous", check_version) if fields.has("previous") else None,
        revoked=fields.texts("revoked") if fields.has("revoked") else (),
        rollout=_rollout(fields.fields("rollout")) if fields.has("rollout") else None,
    )
    if entry.version in entry.revoked:
        raise fields.wrong("version", f"{entry.version!r} is revoked by the same entry")
    return entry


def _entry_dict(entry: Entry) -> dict[str, Any]:
    return {
        "version": entry.version,
        "previous": entry.previous,
        "revoked": list(entry.revoked),
        "rollout": _rollout_dict(entry.rollout) if entry.rollout else None,
    }


def _rollout(fields: strict.Fields) -> Rollout:
    windows = fields.texts("windows", most=16) if fields.has("windows") else ()
    for index, window in enumerate(windows):
        try:
            check_window(window)
        except ValueError as error:
            raise fields.wrong(f"windows[{index}]", str(error)) from error
    return Rollout(
        salt=fields.base64("salt"),
        not_before=fields.time("not_before"),
        urgent=fields.boolean("urgent"),
        halted=fields.boolean("halted"),
        stages=tuple(_stage(stage) for stage in fields.each("stages", most=64)),
        windows=windows,
    )


def _rollout_dict(rollout: Rollout) -> dict[str, Any]:
    return {
        "salt": base64.b64encode(rollout.salt).decode(),
        "not_before": strict.rfc3339(rollout.not_before),
        "urgent": rollout.urgent,
        "halted": rollout.halted,
        "stages": [
            {
                "ppm": stage.ppm,
                "labels": {name: list(values) for name, values in stage.labels.items()},
                "after": f"PT{int(stage.after.total_seconds()) // 60}M",
                "promotion": stage.promotion,
            }
            for stage in rollout.stages
        ],
        "windows": list(rollout.windows),
    }


def _stage(fields: strict.Fields) -> Stage:
    labels: dict[str, tuple[str, ...]] = {}
    if fields.has("labels"):
        inner = fields.fields("labels")
        labels = {name: inner.texts(name) for name in inner.raw}
    return Stage(
        ppm=fields.integer("ppm", most=MILLION),
        labels=labels,
        after=_duration(fields, "after") if fields.has("after") else timedelta(),
        promotion=fields.sha256("promotion") if fields.has("promotion") else None,
    )


def _duration(fields: strict.Fields, name: str) -> timedelta:
    text = fields.text(name, most=32)
    match = _DURATION.fullmatch(text)
    if not match or text in ("P", "PT") or text.endswith("T"):
        raise fields.wrong(name, f"{text!r} is not a duration such as PT24H or P3D")
    days, hours, minutes = (int(part or 0) for part in match.groups())
    duration = timedelta(days=days, hours=hours, minutes=minutes)
    if duration > MAX_AFTER:
        raise fields.wrong(name, f"{text!r} is longer than {MAX_AFTER.days} days")
    return duration
