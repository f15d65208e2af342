"""Device reports: made, queued durably, sent as far as that is possible.

A report never stops an update, nor makes one wait for long: what cannot be sent now waits in a
bounded queue for the next time. What is in one: `modelward.formats.report`.
"""

import contextlib
import importlib.metadata
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import TypeVar

from tuf.api.exceptions import RepositoryError

from modelward import fastpath, log_memory
from modelward.device import Device
from modelward.errors import (
    Busy,
    FormatError,
    ModelwardError,
    RolledBack,
    Unavailable,
    UsageError,
)
from modelward.formats import report as reports
from modelward.formats import strict
from modelward.formats.dsse import Envelope
from modelward.formats.floors import Floors
from modelward.formats.installed import Installed
from modelward.formats.leaf import REPOSITORY_FIELD
from modelward.formats.log_evidence import LogEvidence
from modelward.formats.report import Alarm, Ended, Report, Running, SeenFloors, SeenLog, shorten
from modelward.install import device_key, last
from modelward.install.reports import ReportStore
from modelward.log_memory import Memory
from modelward.transfer.network import Network
from modelward.transfer.post import Answer, post
from modelward.trust.tuf_cache import Cache

PATH = "/reports"
AGAIN = timedelta(hours=1)  # the same refusal is reported this often; what waits long is tried so
RECEIVED = (200, 201, 202, 204)
NEVER = (400, 409, 413, 422)  # trying again would not help: this very report is not wanted
NOT_NOW = (408, 429, 500, 502, 503, 504)  # another time may be better, whoever this device is
NOTEWORTHY = ("updated", "refused", "rolled back")
Found = TypeVar("Found")


@dataclass(frozen=True)
class Happened:
    """What an update has to report.

    Attributes:
        outcome: Such as ``updated``, ``unchanged``, ``refused``.
        gate: The label of the gate that stopped it, or None.
        reason: Why it stopped; else empty.
        decisions: Why each model runs what it runs, as far as that was decided.
        received: Bytes by where they came from.
    """

    outcome: str
    gate: str | None = None
    reason: str = ""
    decisions: Mapping[str, str] = field(default_factory=dict)
    received: Mapping[str, int] = field(default_factory=dict)

    @classmethod
    def of_error(cls, error: ModelwardError) -> "Happened":
        """Return what there is to say of an update that stopped."""
        gate = error.gate.label if error.gate else None
        return cls(error.outcome, gate, error.reason)


@dataclass(frozen=True)
class Sent:
    """What became of the queue.

    Attributes:
        received: How many reports the server took.
        refused: How many it will never take.
        waiting: How many wait for another time.
        problem: Why they wait; empty if none does.
    """

    received: int = 0
    refused: int = 0
    waiting: int = 0
    problem: str = ""


def tell(device: Device, happened: Happened | None, *, send: bool = True) -> None:
    """Report how an update ended, if that is news, and send what waits. Never raises.

    Without an update, only alarms may be news: those that came, and those that are over.

    Nothing new is reported at most once a period; so is what could not be had. A refusal that
    repeats itself is reported once an hour.

    Args:
        device: The device.
        happened: How the update ended, if there was one.
        send: False where no connection may be opened: the next check is a full one then, and sends.
    """
    if not device.config.reports.send:
        return
    # Reports are for people; nothing that goes wrong here may hide how the update ended.
    with contextlib.suppress(OSError, ModelwardError):
        store = ReportStore(device.config.state)
        if not _is_news(device, store, happened) and not store.pending():
            return
        store.prepare()
        with store.chain():
            if _is_news(device, store, happened):
                _queue(device, store, happened)
        if send:
            _send_or_leave(device, store)
        else:
            fastpath.forget(device.config.state)


def send_waiting(device: Device) -> None:
    """Send what waits, and report nothing. Never raises."""
    if not device.config.reports.send:
        return
    with contextlib.suppress(OSError, ModelwardError):
        store = ReportStore(device.config.state)
        if store.pending():
            _send_or_leave(device, store)


@contextlib.contextmanager
def rollbacks(device: Device, *, send: bool = True) -> Iterator[None]:
    """Report and note it if what is on trial goes back meanwhile: see `went_back`."""
    try:
        yield
    except RolledBack as error:
        went_back(device, error, send=send)
        raise


def went_back(device: Device, error: RolledBack, *, send: bool) -> None:
    """Report that a trial was undone, and note it as the last update's end.

    That is a change, even where none was asked for. As to sending it: see `tell`.
    """
    tell(device, Happened.of_error(error), send=send)
    with contextlib.suppress(OSError):  # the note must not hide what it is about
        last.write(device.config.state, device.clock(), error.to_dict())


def now(device: Device) -> Sent:
    """Make a report and send it, with what else waits.

    Raises:
        UsageError: The configuration says that there are to be none.
        Unavailable: Another process is sending.
    """
    if not device.config.reports.send:
        raise UsageError(
            "this device is configured not to send reports",
            "take `send = false` out of [reports] in modelward.toml",
        )
    store = ReportStore(device.config.state)
    store.prepare()
    with store.sending():
        with store.chain():
            _queue(device, store, None)
        return _send(device, store)


def draft(device: Device) -> Report:
    """Return the report that would be made now. Nothing is written."""
    return _make(device, ReportStore(device.config.state), None)


def due(device: Device) -> bool:
    """Tell whether this device has not reported for a whole period."""
    newest = _newest(ReportStore(device.config.state))
    if newest is None:
        return True
    age = (device.clock() - newest[1].time).total_seconds()
    return not 0 <= age < device.config.reports.period


def _is_news(device: Device, store: ReportStore, happened: Happened | None) -> bool:
    newest = _newest(store)
    if newest is not None and _other_alarms(device, newest[1]):
        return True
    if happened is None or happened.outcome not in NOTEWORTHY or newest is None:
        return due(device)
    ended = newest[1].ended
    same = ended is not None and (ended.outcome, ended.gate, ended.reason) == (
        happened.outcome,
        happened.gate,
        shorten(happened.reason),
    )
    if happened.outcome == "updated" or not same:
        return True
    return not timedelta() <= device.clock() - newest[1].time < AGAIN


def _other_alarms(device: Device, newest: Report) -> bool:
    """Tell whether there are other alarms than those that the newest report has."""
    known = {(alarm.kind, alarm.name) for alarm in newest.alarms}
    now = {(alarm.kind, alarm.name) for alarm in _alarms(device, _Known.of(device))}
    return now != known


def _queue(device: Device, store: ReportStore, happened: Happened | None) -> None:
    report = _make(device, store, happened)
    key = device_key.load_or_make(device.config.state)
    store.add(report.counter, _sign(_capped(report), key))


def _sign(report: Report, key: device_key.DeviceKey) -> bytes:
    envelope = report.unsigned()
    signature = key.sign(envelope.signed_bytes)
    return replace(envelope, signatures={key.public.keyid: signature}).to_bytes()


def _capped(report: Report) -> Report:
    """Leave out, of what is for convenience, what would take the report over its cap."""
    slimmer = (
        report,
        replace(report, evidence=report.evidence[:1]),
        replace(report, evidence=(), decisions={}, received={}),
    )
    fits = (each for each in slimmer if len(each.unsigned().to_bytes()) < reports.CAP - 1024)
    return next(fits, replace(slimmer[-1], labels={}, log=None))


def _make(device: Device, store: ReportStore, happened: Happened | None) -> Report:
    newest = _newest(store)
    now = device.clock().replace(microsecond=0)
    known = _Known.of(device)
    floors, installed = known.floors, known.installed
    ended = None if newest is None else newest[1].ended
    if happened is not None:
        ended = Ended(now, happened.outcome, happened.gate, shorten(happened.reason))
    refused = None if newest is None else newest[1].refused
    if ended is not None and ended.outcome in ("refused", "rolled back"):
        refused = ended
    return Report(
        device=device.config.device_id,
        counter=newest[1].counter + 1 if newest else _begin(store),
        previous=reports.digest(newest[0]) if newest else None,
        time=now,
        repository=_repository_id(device),
        client=importlib.metadata.version("modelward"),
        channel=device.config.channel,
        labels={name: shorten(text) for name, text in device.config.labels.items()},
        generation=installed.number,
        models={
            model: Running(
                slot.version,
                slot.counter,
                slot.sha256,
                installed.previous[model].version if model in installed.previous else None,
                installed.previous[model].sha256 if model in installed.previous else None,
            )
            for model, slot in installed.active.items()
        },
        decisions={
            model: shorten(reason)
            for model, reason in (happened.decisions if happened else {}).items()
        },
        floors=SeenFloors(
            floors.root,
            floors.timestamp.version if floors.timestamp else None,
            floors.snapshot.version if floors.snapshot else None,
            dict(floors.releases),
            floors.time.at if floors.time else None,
        ),
        ended=ended,
        refused=refused,
        log=_seen_log(known.memory),
        alarms=_alarms(device, known),
        evidence=_evidence(known.memory),
        received=dict(happened.received) if happened else {},
    )


def _begin(store: ReportStore) -> int:
    """Return where a chain begins: after a damaged report with a gap, for nothing follows it."""
    last = max(store.last(), store.sent())
    return last + 2 if last else 1


def _newest(store: ReportStore) -> tuple[Envelope, Report] | None:
    """Return the report that the next one follows; None if there is none, or a damaged one."""
    data = store.newest()
    with contextlib.suppress(FormatError):
        return reports.read_envelope(data) if data is not None else None
    return None


def _repository_id(device: Device) -> str | None:
    cache = Cache(device.cache)
    if cache.file("root").exists():
        with contextlib.suppress(OSError, RepositoryError):
            value = cache.root().unrecognized_fields.get(REPOSITORY_FIELD)
            return value if isinstance(value, str) and strict.SHA256.fullmatch(value) else None
    return None


def _seen_log(memory: Memory) -> SeenLog | None:
    if memory.state is None:
        return None
    return SeenLog(memory.state.log, memory.state.signed.to_bytes().decode())


@dataclass(frozen=True)
class _Known:
    """What a device can read of what it keeps. A report that cannot tell a thing says why.

    Attributes:
        installed: What is installed; nothing if that cannot be read.
        floors: The oldest that is accepted; likewise.
        memory: What is known of the log; likewise.
        damage: An alarm about each of them that cannot be read.
    """

    installed: Installed
    floors: Floors
    memory: Memory
    damage: tuple[Alarm, ...]

    @classmethod
    def of(cls, device: Device) -> "_Known":
        """Read it."""
        damage = []

        def read(name: str, thing: Callable[[], Found], nothing: Found) -> Found:
            try:
                return thing()
            except ModelwardError as error:
                damage.append(Alarm("damage", name, error.reason))
                return nothing

        installed = read("installed", device.trials.installed, Installed())
        floors = read("floors", device.floors.load, Floors())
        memory = Memory(None, None, {}, ())
        if not device.log.is_empty():
            memory = read("log", lambda: log_memory.remember(device), memory)
        return cls(installed, floors, memory, tuple(damage))


def _alarms(device: Device, known: _Known) -> tuple[Alarm, ...]:
    memory = known.memory
    found = [*known.damage]
    found += [
        Alarm("tampering", found.name, f"{found.version}: {found.problem}")
        for found in device.alarms.pending()
    ]
    found += [Alarm("evidence", kept.name, kept.judgement.reason) for kept in memory.alarms]
    found += [Alarm("freeze", "log", memory.freeze)] if memory.freeze else []
    return tuple(replace(alarm, reason=shorten(alarm.reason)) for alarm in found)[
        : reports.MAX_ALARMS
    ]


def _evidence(memory: Memory) -> tuple[LogEvidence, ...]:
    """Return what is kept against the log, proof first, as far as it fits."""
    chosen: list[LogEvidence] = []
    room = reports.EVIDENCE_CAP
    for kept in sorted(memory.evidence, key=lambda kept: not kept.judgement.proven):
        size = len(kept.evidence.to_bytes())
        if size <= room and len(chosen) < reports.MAX_EVIDENCE:
            chosen.append(kept.evidence)
            room -= size
    return tuple(chosen)


def _send_or_leave(device: Device, store: ReportStore) -> None:
    """Send what waits, or leave it to whoever is sending; if that one is past it, to the next."""
    try:
        with store.sending():
            _send(device, store)
    except Busy:
        fastpath.forget(device.config.state)


def _send(device: Device, store: ReportStore) -> Sent:
    """Send what waits, the oldest first, until the server is not to be had.

    So is what others queue meanwhile.
    """
    url = (device.config.reports.url or device.config.repository) + PATH
    network = Network.of(device.config.transfer)
    counter = received = refused = 0
    problem = ""
    while counter := next((each for each in store.pending() if each > counter), 0):
        data = store.read(counter)
        if data is not None:
            try:
                answer = post(url, data, network)
            except Unavailable as error:
                problem = error.reason
                _try_again(device, data)
                break
            if answer.status in NOT_NOW:
                _try_again(device, data)
            if answer.status not in (*RECEIVED, *NEVER):
                problem = f"{url} answers {answer.status}{_words(answer)}"
                break
            received += answer.status in RECEIVED
            if answer.status in RECEIVED:
                _compare(device, answer)
            refused += answer.status in NEVER
            if answer.status in NEVER:
                problem = f"{url} answers {answer.status}{_words(answer)}"
        store.received(counter)
    return Sent(received, refused, len(store.pending()), problem)


def _try_again(device: Device, data: bytes) -> None:
    """Let a report that could not be sent be tried by each check for an hour, then once an hour.

    So one that finds nothing is a full one then, and no more of them than that.
    """
    now = device.clock()
    with contextlib.suppress(FormatError):
        _, waiting = reports.read_envelope(data)
        if not timedelta() <= now - waiting.time < AGAIN:
            fastpath.end_at(device.config.state, now + AGAIN)
            return
    fastpath.forget(device.config.state)


def _compare(device: Device, answer: Answer) -> None:
    """Compare the log that the server shows with one's own. Both did, then."""
    with contextlib.suppress(ValueError, AttributeError, RecursionError, ModelwardError):
        shown = json.loads(answer.body).get("checkpoint")
        if isinstance(shown, str):
            log_memory.gossip(device, shown.encode())


def _words(answer: Answer) -> str:
    """Return what the server said of it, for people."""
    with contextlib.suppress(ValueError, AttributeError, RecursionError):
        said = json.loads(answer.body).get("reason")
        return f" ({shorten(said)[:200]})" if isinstance(said, str) else ""
    return ""
