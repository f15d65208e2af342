"""The journal of a device: what it is in the midst of, what failed on it, what it was told.

All of that is one small file, so that every step of an update is one atomic replacement of it
(docs/install.md has the diagram). Its checksum tells a damaged file from a true one.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from enum import Enum
from typing import Any

from modelward.errors import FormatError
from modelward.formats import strict
from modelward.formats.installed import Slot, read_slots
from modelward.formats.names import check_name, check_version

DOCUMENT = "journal"
SCHEMA = "modelward/journal/1"
CAP = 1 << 20
MAX_FAILED = 64  # releases to remember: the newest
MAX_REASON = 1000  # characters

FIRST_WAIT = timedelta(hours=1)
LONGEST_WAIT = timedelta(days=1)
MAX_TRIES = 6  # of the same release; then only by `modelward update --retry`
MAX_INTERRUPTED = 3  # trials of one release that the device did not live through


class Phase(Enum):
    """How far a generation on trial has come."""

    TRIAL = "trial"  # it runs, or is about to; nobody has confirmed it yet
    COMMITTING = "committing"  # it is confirmed: what is left is to raise the floors
    RETURNING = "returning"  # it failed: what is left is to go back


@dataclass(frozen=True)
class Trial:
    """A generation on trial.

    Attributes:
        phase: How far it has come.
        good: The generation to go back to; 0 for none, before anything was installed.
        generation: The generation on trial.
        soak: Seconds that it is to be on trial.
        soaked: Seconds that it has been, up to when it was last looked at.
        boot: The boot during which that was.
        uptime: Seconds since that boot began, then.
        starts: How often the device was started since, and not seen alive at two checks.
        seen: Whether this boot saw a check that found it healthy.
    """

    phase: Phase
    good: int
    generation: int
    soak: int
    soaked: int = 0
    boot: str = ""
    uptime: int = 0
    starts: int = 0
    seen: bool = False

    @property
    def left(self) -> int:
        """Seconds that it remains on trial."""
        return max(0, self.soak - self.soaked)

    def looked_at(self, boot: str, uptime: int) -> "Trial":
        """Return the trial with what this boot has run since the last look added to `soaked`.

        No clock that somebody can set has a say in it. What a boot ran before its first look and
        after its last does not count; nor does the time that the device was off.
        """
        same = boot == self.boot and uptime >= self.uptime
        ran = uptime - self.uptime if same else 0
        return replace(self, soaked=self.soaked + ran, boot=boot, uptime=uptime)

    @classmethod
    def read(cls, fields: strict.Fields) -> "Trial":
        """Read a trial.

        Raises:
            FormatError: It is ill-formed.
        """
        try:
            phase = Phase(fields.text("phase"))
        except ValueError as error:
            raise fields.wrong("phase", "is not a phase of a trial") from error
        return cls(
            phase=phase,
            good=fields.integer("good"),
            generation=fields.integer("generation", least=1),
            soak=fields.integer("soak"),
            soaked=fields.integer("soaked"),
            boot=fields.text("boot"),
            uptime=fields.integer("uptime"),
            starts=fields.integer("starts"),
            seen=fields.boolean("seen"),
        )

    def to_dict(self) -> dict[str, Any]:
        """Return the trial as a JSON object."""
        return {
            "phase": self.phase.value,
            "good": self.good,
            "generation": self.generation,
            "soak": self.soak,
            "soaked": self.soaked,
            "boot": self.boot,
            "uptime": self.uptime,
            "starts": self.starts,
            "seen": self.seen,
        }


@dataclass(frozen=True)
class Failure:
    """A release that did not work on this device.

    Attributes:
        model: The model.
        version: The version.
        at: When it failed last.
        times: How often it did.
        interrupted: How often the device has stopped while it was tried, since then.
        reason: Why, for people.
    """

    model: str
    version: str
    at: datetime
    times: int = 0
    interrupted: int = 0
    reason: str = ""

    @property
    def wait(self) -> timedelta | None:
        """How long it is not tried again; None for ever."""
        if self.times >= MAX_TRIES:
            return None
        return min(FIRST_WAIT * 2 ** (self.times - 1), LONGEST_WAIT) if self.times else timedelta()

    def blocks(self, now: datetime) -> bool:
        """Tell whether it is too early to try it again.

        A failure that lies further in the future than one waits was noted under a wrong clock.
        """
        return self.wait is None or abs(now - self.at) < self.wait

    def __str__(self) -> str:
        again = (
            "not tried again by itself"
            if self.wait is None
            else f"not tried again before {strict.rfc3339(self.at + self.wait)}"
        )
        return f"{self.version} failed on this device ({self.reason}); {again}"

    @classmethod
    def read(cls, fields: strict.Fields) -> "Failure":
        """Read a failure.

        Raises:
            FormatError: It is ill-formed.
        """
        return cls(
            model=fields.checked("model", check_name),
            version=fields.checked("version", check_version),
            at=fields.time("at"),
            times=fields.integer("times"),
            interrupted=fields.integer("interrupted"),
            reason=fields.text("reason"),
        )

    def to_dict(self) -> dict[str, Any]:
        """Return the failure as a JSON object."""
        return {
            "model": self.model,
            "version": self.version,
            "at": strict.rfc3339(self.at),
            "times": self.times,
            "interrupted": self.interrupted,
            "reason": self.reason,
        }


@dataclass(frozen=True)
class Pin:
    """A model that stays as it is until somebody says otherwise.

    Attributes:
        slot: The release it stays at.
        since: The first generation in which it holds. One that was never switched to makes it void.
        reason: Who said so, for people.
    """

    slot: Slot
    since: int
    reason: str

    @classmethod
    def read(cls, fields: strict.Fields) -> "Pin":
        """Read a pin.

        Raises:
            FormatError: It is ill-formed.
        """
        return cls(Slot.read(fields), fields.integer("since"), fields.text("reason"))

    def to_dict(self) -> dict[str, Any]:
        """Return the pin as a JSON object."""
        return {**self.slot.to_dict(), "since": self.since, "reason": self.reason}


@dataclass(frozen=True)
class Journal:
    """See the module.

    Attributes:
        trial: The generation on trial, if any.
        probing: Staged releases that are being tried right now, by model.
        failed: Releases that did not work here, by digest.
        pins: Models that stay as they are.
    """

    trial: Trial | None = None
    probing: Mapping[str, Slot] = field(default_factory=dict)
    failed: Mapping[str, Failure] = field(default_factory=dict)
    pins: Mapping[str, Pin] = field(default_factory=dict)

    def why(self, slots: Mapping[str, Slot]) -> str:
        """Return why releases failed, as far as that is known."""
        failed = (self.failed.get(slot.sha256) for slot in slots.values())
        return next((each.reason for each in failed if each and each.reason), "it did not work")

    @classmethod
    def parse(cls, data: bytes) -> "Journal":
        """Parse a journal.

        Raises:
            FormatError: Ill-formed, or its checksum does not match.
        """
        outer = strict.Fields(DOCUMENT, strict.load(DOCUMENT, data, CAP))
        outer.schema(SCHEMA)
        body = outer.fields("journal")
        if outer.sha256("sha256") != _checksum(body.raw):
            raise FormatError(DOCUMENT, "sha256", "does not match the content")
        failed, pins = body.fields("failed"), body.fields("pins")
        for digest in failed.raw:
            if not strict.SHA256.fullmatch(digest):
                raise failed.wrong(digest, "is not a digest")
        return cls(
            trial=Trial.read(body.fields("trial")) if body.has("trial") else None,
            probing=read_slots(body.fields("probing")),
            failed={digest: Failure.read(failed.fields(digest)) for digest in failed.raw},
            pins={model: Pin.read(pins.fields(model)) for model in read_slots(pins)},
        )

    def to_bytes(self) -> bytes:
        """Return the file, with a checksum of its content."""
        body: dict[str, Any] = {
            "probing": {model: slot.to_dict() for model, slot in self.probing.items()},
            "failed": {digest: failure.to_dict() for digest, failure in self.failed.items()},
            "pins": {model: pin.to_dict() for model, pin in self.pins.items()},
        }
        if self.trial is not None:
            body["trial"] = self.trial.to_dict()
        return strict.dump({"schema": SCHEMA, "sha256": _checksum(body), "journal": body})

    def with_failure(self, slots: Mapping[str, Slot], reason: str, now: datetime) -> "Journal":
        """Remember that releases failed together."""
        failed = dict(self.failed)
        now = now.replace(microsecond=0)
        for model, slot in slots.items():
            before = failed.get(slot.sha256)
            times = (before.times if before else 0) + 1
            failed[slot.sha256] = Failure(
                model, slot.version, now, min(times, MAX_TRIES), 0, reason[:MAX_REASON]
            )
        return replace(self, failed=_newest(failed))

    def with_interruption(self, now: datetime) -> "Journal":
        """Remember that the device stopped while releases were being tried.

        Once may be an accident. As often as `MAX_INTERRUPTED` it is the release (attack row 30).
        """
        changed = replace(self, probing={})
        for model, slot in self.probing.items():
            before = changed.failed.get(slot.sha256) or Failure(
                model, slot.version, now.replace(microsecond=0)
            )
            count = before.interrupted + 1
            if count >= MAX_INTERRUPTED:
                reason = f"the device stopped {count} times while it was tried"
                changed = changed.with_failure({model: slot}, reason, now)
            else:
                failed = {**changed.failed, slot.sha256: replace(before, interrupted=count)}
                changed = replace(changed, failed=_newest(failed))
        return changed

    def without_failures(self, slots: Mapping[str, Slot]) -> "Journal":
        """Forget failures of releases that work now."""
        works = {slot.sha256 for slot in slots.values()}
        kept = {digest: item for digest, item in self.failed.items() if digest not in works}
        return replace(self, failed=kept)


def _newest(failed: Mapping[str, Failure]) -> dict[str, Failure]:
    kept = sorted(failed, key=lambda digest: failed[digest].at)[-MAX_FAILED:]
    return {digest: failed[digest] for digest in kept}


def _checksum(body: Mapping[str, Any]) -> str:
    return hashlib.sha256(strict.dump(body)).hexdigest()
