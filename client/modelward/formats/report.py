"""Device reports: what runs on a device and why, what it refused, and what it saw of the log.

A DSSE envelope, signed by the device's key. Reports are for people: no device and no publisher acts
on one. Each names the digest of the one before, so that what is lost, replayed or made up by a
second device with the same key shows (attack row 34).
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from modelward.errors import FormatError
from modelward.formats import note, strict
from modelward.formats.dsse import Envelope
from modelward.formats.log_evidence import LogEvidence
from modelward.formats.names import check_name, check_version

DOCUMENT = "report"
SCHEMA = "modelward/report/1"
PAYLOAD_TYPE = "application/vnd.modelward.report+json"
CAP = 256 << 10  # bytes of the envelope: evidence of two post-quantum checkpoints fits
EVIDENCE_CAP = 96 << 10  # bytes of all evidence in one report
MAX_EVIDENCE = 2
MAX_MODELS = 256
MAX_LABELS = 64
MAX_SOURCES = 64
MAX_ALARMS = 16
MAX_TEXT = 1024  # characters
MAX_DEVICE = 128  # characters of a device's id


@dataclass(frozen=True)
class Running:
    """A model that is installed.

    Attributes:
        version: The version that runs.
        counter: Its release counter.
        release: Digest of its release.json, which names every file by digest.
        fallback: The version kept to fall back to, or None.
        fallback_release: The digest of that one's release.json, or None.
    """

    version: str
    counter: int
    release: str
    fallback: str | None = None
    fallback_release: str | None = None


@dataclass(frozen=True)
class Ended:
    """How an update ended.

    Attributes:
        time: When.
        outcome: Such as ``updated`` or ``refused``.
        gate: The label of the gate that stopped it, or None.
        reason: Why; empty where nothing is to be said.
    """

    time: datetime
    outcome: str
    gate: str | None = None
    reason: str = ""


@dataclass(frozen=True)
class SeenFloors:
    """The oldest that the device still accepts.

    Attributes:
        root: Version of root.
        timestamp: Version of timestamp, or None.
        snapshot: Version of snapshot, or None.
        releases: Release counters by model.
        time: What time it is at least, or None.
    """

    root: int = 0
    timestamp: int | None = None
    snapshot: int | None = None
    releases: Mapping[str, int] = field(default_factory=dict)
    time: datetime | None = None


@dataclass(frozen=True)
class SeenLog:
    """The last tree of the log that the device believed.

    Attributes:
        log: Digest of the log's vkey.
        checkpoint: The signed note, cosignatures and all, as it was kept.
    """

    log: str
    checkpoint: str


@dataclass(frozen=True)
class Alarm:
    """Something that somebody must look at.

    Attributes:
        kind: ``tampering``, with what is installed; ``damage``: what is kept of it, of floors or
            of the log cannot be read, so that the report says nothing of that; ``evidence``,
            against the log; or ``freeze``: others have seen more.
        name: What it is called on the device.
        reason: One sentence for people.
    """

    kind: str
    name: str
    reason: str


@dataclass(frozen=True)
class Report:
    """What a device says of itself.

    Attributes:
        device: Its id.
        counter: Which report of this device it is, from 1.
        previous: Digest of the payload of the report before; None for the first.
        time: When it was made, by the device's clock.
        repository: The id of the repository that the device follows, or None if root has none:
            a report to one repository is worth nothing to another (attack row 28).
        client: The version of the client.
        channel: The channel it follows.
        labels: What it is and where it stands. Anybody's text: never to be rendered as markup.
        generation: Number of the installed generation.
        models: What is installed, by model.
        decisions: Why each model runs what it runs, where the update got as far as to know.
        floors: The oldest that it accepts.
        ended: How the last update ended, or None if there was none.
        refused: The last refusal or rollback, or None.
        log: The last tree of the log that it believed, or None.
        alarms: What it gives alarm about.
        evidence: What it keeps against the log, as far as it fits.
        received: Bytes by where they came from, in the update that the report tells of.
    """

    device: str
    counter: int
    previous: str | None
    time: datetime
    repository: str | None
    client: str
    channel: str
    labels: Mapping[str, str] = field(default_factory=dict)
    generation: int = 0
    models: Mapping[str, Running] = field(default_factory=dict)
    decisions: Mapping[str, str] = field(default_factory=dict)
    floors: SeenFloors = field(default_factory=SeenFloors)
    ended: Ended | None = None
    refused: Ended | None = None
    log: SeenLog | None = None
    alarms: tuple[Alarm, ...] = ()
    evidence: tuple[LogEvidence, ...] = ()
    received: Mapping[str, int] = field(default_factory=dict)

    @classmethod
    def parse(cls, data: bytes) -> "Report":
        """Parse a report without its envelope.

        Raises:
            FormatError: Ill-formed, or over its cap.
        """
        return cls.from_content(strict.load(DOCUMENT, data, CAP))

    @classmethod
    def from_content(cls, content: Any) -> "Report":
        """Read the payload of an envelope, parsed.

        Raises:
            FormatError: Ill-formed.
        """
        fields = strict.Fields(DOCUMENT, content)
        fields.schema(SCHEMA)
        fields.critical()
        return cls(
            device=fields.checked("device", check_device),
            counter=fields.integer("counter", least=1),
            previous=fields.sha256("previous") if fields.has("previous") else None,
            time=fields.time("time"),
            repository=fields.sha256("repository") if fields.has("repository") else None,
            client=fields.text("client", most=64),
            channel=fields.checked("channel", check_name),
            labels=_texts(fields, "labels", MAX_LABELS),
            generation=fields.integer("generation"),
            models=_models(fields.fields("models")),
            decisions=_texts(fields, "decisions", MAX_MODELS),
            floors=_floors(fields.fields("floors")),
            ended=_ended(fields, "ended"),
            refused=_ended(fields, "refused"),
            log=_log(fields),
            alarms=tuple(
                Alarm(each.text("kind", 64), each.text("name", 128), each.text("reason"))
                for each in fields.each("alarms", MAX_ALARMS)
            ),
            evidence=tuple(
                LogEvidence.parse(strict.dump(item))
                for item in fields.items("evidence", MAX_EVIDENCE)
            ),
            received=_received(fields.fields("received")),
        )

    def to_dict(self) -> dict[str, Any]:
        """Return the report as a JSON object."""
        return {
            "schema": SCHEMA,
            "device": self.device,
            "counter": self.counter,
            "previous": self.previous,
            "time": strict.rfc3339(self.time),
            "repository": self.repository,
            "client": self.client,
            "channel": self.channel,
            "labels": dict(self.labels),
            "generation": self.generation,
            "models": {model: vars(running) for model, running in self.models.items()},
            "decisions": dict(self.decisions),
            "floors": {
                "root": self.floors.root,
                "timestamp": self.floors.timestamp,
                "snapshot": self.floors.snapshot,
                "releases": dict(self.floors.releases),
                "time": strict.rfc3339(self.floors.time) if self.floors.time else None,
            },
            "ended": _ended_dict(self.ended),
            "refused": _ended_dict(self.refused),
            "log": vars(self.log) if self.log else None,
            "alarms": [vars(alarm) for alarm in self.alarms],
            "evidence": [item.to_dict() for item in self.evidence],
            "received": dict(self.received),
        }

    def to_bytes(self) -> bytes:
        """Return the report without an envelope."""
        return strict.dump(self.to_dict())

    def unsigned(self) -> Envelope:
        """Return the report in an envelope that nobody has signed yet."""
        return Envelope.unsigned(self.to_dict(), PAYLOAD_TYPE)


def read_envelope(data: bytes) -> tuple[Envelope, Report]:
    """Read a report in its envelope. The signature is not verified: see `trust.report`.

    Raises:
        FormatError: Ill-formed, or over its cap.
    """
    envelope = Envelope.parse(DOCUMENT, data, PAYLOAD_TYPE, CAP)
    return envelope, Report.from_content(envelope.content)


def digest(envelope: Envelope) -> str:
    """Return by what the next report names this one."""
    return hashlib.sha256(envelope.payload).hexdigest()


def check_device(text: str) -> str:
    """Return a device's id: printable, not empty, of limited length.

    Raises:
        ValueError: Anything else.
    """
    if not 0 < len(text) <= MAX_DEVICE or not text.isprintable():
        raise ValueError(f"must be 1 to {MAX_DEVICE} printable characters")
    return text


def shorten(text: str) -> str:
    """Return a text that a report may hold, for people."""
    return "".join(char if char.isprintable() else "?" for char in text)[:MAX_TEXT]


def _models(fields: strict.Fields) -> dict[str, Running]:
    found = {}
    for model in _names(fields, MAX_MODELS):
        running = fields.fields(model)
        kept = running.has("fallback")
        found[model] = Running(
            running.checked("version", check_version),
            running.integer("counter"),
            running.sha256("release"),
            running.checked("fallback", check_version) if kept else None,
            running.sha256("fallback_release") if kept else None,
        )
    return found


def _names(fields: strict.Fields, most: int) -> list[str]:
    if len(fields.raw) > most:
        raise FormatError(DOCUMENT, fields.path, f"has more than {most} entries")
    for name in fields.raw:
        try:
            check_name(name)
        except ValueError as error:
            raise fields.wrong(name, str(error)) from error
    return list(fields.raw)


def _texts(outer: strict.Fields, name: str, most: int) -> dict[str, str]:
    fields = outer.fields(name)
    if len(fields.raw) > most:
        raise outer.wrong(name, f"has more than {most} entries")
    for key in fields.raw:
        if len(key) > MAX_TEXT or not key.isprintable():
            raise fields.wrong(key, "is not a name")
    return {key: fields.text(key) for key in fields.raw}


def _floors(fields: strict.Fields) -> SeenFloors:
    releases = fields.fields("releases")
    return SeenFloors(
        fields.integer("root"),
        fields.integer("timestamp") if fields.has("timestamp") else None,
        fields.integer("snapshot") if fields.has("snapshot") else None,
        {model: releases.integer(model) for model in _names(releases, 4 * MAX_MODELS)},
        fields.time("time") if fields.has("time") else None,
    )


def _ended(outer: strict.Fields, name: str) -> Ended | None:
    if not outer.has(name):
        return None
    fields = outer.fields(name)
    return Ended(
        fields.time("time"),
        fields.text("outcome", 64),
        fields.text("gate", 64) if fields.has("gate") else None,
        fields.text("reason", MAX_TEXT),
    )


def _ended_dict(ended: Ended | None) -> dict[str, Any] | None:
    return None if ended is None else vars(ended) | {"time": strict.rfc3339(ended.time)}


def _log(outer: strict.Fields) -> SeenLog | None:
    if not outer.has("log"):
        return None
    fields = outer.fields("log")
    text = fields.any("checkpoint")
    if not isinstance(text, str) or len(text) > note.CAP:
        raise fields.wrong("checkpoint", "must be a signed note")
    return SeenLog(fields.sha256("log"), text)


def _received(fields: strict.Fields) -> dict[str, int]:
    if len(fields.raw) > MAX_SOURCES:
        raise FormatError(DOCUMENT, fields.path, f"has more than {MAX_SOURCES} entries")
    for source in fields.raw:
        if len(source) > MAX_TEXT or not source.isprintable():
            raise fields.wrong(source, "is not a source")
    return {source: fields.integer(source) for source in fields.raw}
