"""Reports are taken from registered devices, one after the other, and nothing else is."""

import threading
from dataclasses import replace
from http import HTTPStatus
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelward.errors import UsageError
from modelward.formats.log_evidence import LogEvidence
from modelward.formats.log_policy import LogPolicy
from modelward.formats.log_state import log_digest
from modelward.formats.report import CAP, Alarm, SeenLog
from modelward.formats.tile import Tile
from modelward.trust.split_view import Verdict, judge
from modelward_repo.fleet.gossip import Ledger
from modelward_repo.fleet.intake import HOUR, MOST_PER_HOUR, Intake
from modelward_repo.fleet.store import KEPT_ALARMS, KEPT_BYTES, KEPT_REPORTS, Fleet
from tests.simulator.log import Log, leaf
from tests.simulator.reporter import DEVICE, Reporter

NOW = 1_800_000_000
ID = "ab" * 32


class Served:
    """A log in memory, as a server shows it."""

    def __init__(self, log: Log | None = None) -> None:
        self.log = log

    def repository_id(self) -> str | None:
        return ID

    def policy(self) -> LogPolicy | None:
        return self.log.policy if self.log else None

    def checkpoint(self) -> bytes | None:
        return self.log.signed().to_bytes() if self.log else None

    def tile(self, tile: Tile) -> bytes:
        assert self.log
        return self.log.tiles([tile])[tile]


class Desk:
    """An intake with one device registered."""

    def __init__(self, folder: Path, log: Log | None = None) -> None:
        self.fleet = Fleet(folder)
        self.fleet.create()
        self.served = Served(log)
        self.intake = Intake(self.fleet, Ledger(self.served))
        self.reporter = Reporter.of_seed("honest")
        self.register(self.reporter)

    def register(self, reporter: Reporter) -> None:
        with self.fleet.write() as turn:
            turn.add_device(reporter.device, reporter.key.public, NOW)

    def take(self, data: bytes, now: int = NOW) -> str:
        return self.intake.take(data, now).outcome

    def send(self, now: int = NOW, **fields: object) -> str:
        return self.take(self.reporter.sign(self.reporter.next(**fields)), now)

    def alarms(self) -> list[str]:
        with self.fleet.read() as turn:
            return [alarm.kind for alarm in turn.alarms()]

    def counters(self) -> list[int]:
        with self.fleet.read() as turn:
            return [stored.counter for stored in turn.reports(DEVICE)]


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path / "fleet")


def seen(log: Log, size: int | None = None) -> SeenLog:
    signed = log.signed(size)
    return SeenLog(log_digest(log.policy.vkey), signed.to_bytes().decode())


def grown(count: int, *more: int) -> Log:
    log = Log()
    log.append(*(leaf(number) for number in (*range(count), *more)))
    return log


# --- the chain ------------------------------------------------------------------------------------


def test_reports_follow_one_another(desk: Desk) -> None:
    assert [desk.send() for _ in range(3)] == ["stored"] * 3
    assert desk.counters() == [3, 2, 1]
    assert not desk.alarms()


def test_an_answer_that_got_lost(desk: Desk) -> None:
    data = desk.reporter.sign(desk.reporter.next())
    assert [desk.take(data), desk.take(data)] == ["stored", "known"]
    assert desk.send() == "stored"
    assert not desk.alarms()


def test_replay(desk: Desk) -> None:
    first = desk.reporter.sign(desk.reporter.next())
    assert desk.take(first) == "stored"
    assert desk.send() == "stored"
    answer = desk.intake.take(first, NOW)
    assert (answer.status, answer.outcome) == (HTTPStatus.CONFLICT, "replay")
    assert desk.alarms() == ["replay"]
    assert desk.counters() == [2, 1]
    assert desk.send() == "stored"


def test_fork(desk: Desk) -> None:
    assert desk.send() == "stored"
    twin = replace(desk.reporter)  # a copy of the device, key and all
    assert desk.send(labels={"where": "here"}) == "stored"
    rejected = twin.sign(twin.next(labels={"where": "there"}))
    assert desk.take(rejected) == "fork"
    assert desk.take(twin.sign(twin.next())) == "fork"
    assert desk.alarms() == ["fork"]
    with desk.fleet.read() as turn:
        (alarm,) = turn.alarms()
        assert (alarm.device, alarm.count, alarm.document) == (DEVICE, 2, rejected)
    assert desk.send() == "stored"  # whoever was first goes on


def test_what_got_lost_on_the_way_shows(desk: Desk) -> None:
    assert desk.send() == "stored"
    for _ in range(4):
        desk.reporter.sign(desk.reporter.next())
    assert desk.send() == "stored"
    with desk.fleet.read() as turn:
        assert [stored.missing for stored in turn.reports(DEVICE)] == [4, 0]


def test_a_new_key_begins_a_new_chain(desk: Desk) -> None:
    assert desk.send() == "stored"
    other = Reporter.of_seed("after the repair")
    desk.register(other)
    assert desk.take(other.sign(other.next())) == "stored"
    assert desk.send() == "forged"


def test_a_key_is_one_devices(desk: Desk) -> None:
    thief = replace(desk.reporter, device="camera-13")
    with pytest.raises(UsageError, match="is registered for 'camera-12'"):
        desk.register(thief)


@pytest.mark.fuzz
@given(st.lists(st.integers(0, 7), max_size=12))
def test_any_order_of_reports_makes_one_chain(tmp_path_factory, order):
    """Whatever arrives, in whatever order: what is stored is one chain without a break."""
    desk = Desk(tmp_path_factory.mktemp("any"))
    sent = [desk.reporter.sign(desk.reporter.next()) for _ in range(8)]
    newest = -1
    for index in order:
        expected = "stored" if index > newest else "known" if index == newest else None
        outcome = desk.take(sent[index])
        assert outcome == expected if expected else outcome in ("replay", "fork")
        newest = max(newest, index)
    assert desk.counters() == sorted({n + 1 for n in _rising(order)}, reverse=True)


def _rising(order: list[int]) -> list[int]:
    found: list[int] = []
    for index in order:
        if not found or index > found[-1]:
            found.append(index)
    return found


def test_two_processes_take_one_report_once(desk: Desk) -> None:
    data = [desk.reporter.sign(desk.reporter.next()) for _ in range(2)]
    outcomes: list[str] = []

    def deliver(each: bytes) -> None:
        outcomes.append(
            Intake(Fleet(desk.fleet._path.parent), Ledger(Served())).take(each, NOW).outcome
        )

    for each in data:
        threads = [threading.Thread(target=deliver, args=(each,)) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert sorted(outcomes) == ["known"] * 6 + ["stored"] * 2
    assert not desk.alarms()


# --- who may --------------------------------------------------------------------------------------


def test_signatures_that_are_nobodys(desk: Desk) -> None:
    thief = Reporter.of_seed("thief")
    answer = desk.intake.take(thief.sign(thief.next()), NOW)
    assert (answer.status, answer.outcome) == (HTTPStatus.FORBIDDEN, "forged")
    good = desk.reporter.envelope(desk.reporter.next())
    for signatures in (
        {},
        {desk.reporter.key.public.keyid: b"\0" * 64},
        {desk.reporter.key.public.keyid: b""},
        {**good.signatures, thief.key.public.keyid: b"x"},
    ):
        assert desk.take(replace(good, signatures=signatures).to_bytes()) == "forged"
    tampered = desk.reporter.next(labels={"a": "b"}).unsigned()
    assert desk.take(replace(tampered, signatures=good.signatures).to_bytes()) == "forged"
    assert desk.alarms() == ["forged"]
    assert not desk.counters()


def test_a_signature_of_another_kind_of_document(desk: Desk) -> None:
    report = desk.reporter.next().unsigned()
    signed = desk.reporter.key.sign(replace(report, payload_type="text/plain").signed_bytes)
    forged = replace(report, signatures={desk.reporter.key.public.keyid: signed})
    assert desk.take(forged.to_bytes()) == "forged"


def test_a_device_in_the_name_of_another(desk: Desk) -> None:
    other = Reporter.of_seed("other", "camera-13")
    desk.register(other)
    assert desk.take(other.sign(other.next(device=DEVICE))) == "forged"
    assert not desk.counters()


def test_a_revoked_key(desk: Desk) -> None:
    with desk.fleet.write() as turn:
        assert turn.revoke(DEVICE, NOW)
        assert not turn.revoke("nobody", NOW)
    assert desk.send() == "revoked"
    assert desk.alarms() == ["revoked"]


def test_a_report_to_another_repository(desk: Desk) -> None:
    assert desk.send(repository="cd" * 32) == "elsewhere"
    assert not desk.counters()


# --- floods ---------------------------------------------------------------------------------------


def test_flood_of_a_device(desk: Desk) -> None:
    outcomes = [desk.send() for _ in range(MOST_PER_HOUR)]
    assert set(outcomes) == {"stored"}
    again = desk.reporter.sign(desk.reporter.next())
    answer = desk.intake.take(again, NOW + 1)
    assert (answer.status, answer.outcome) == (HTTPStatus.TOO_MANY_REQUESTS, "too many")
    assert answer.retry_after
    assert desk.take(again, NOW + HOUR + 1) == "stored"
    assert desk.alarms() == ["flood"]


def test_storage_is_bounded(desk: Desk) -> None:
    labels = {f"{number}": "x" * 1000 for number in range(60)}
    for hour in range(KEPT_REPORTS + 10):
        assert desk.send(NOW + hour * HOUR, labels=labels) == "stored"
    with desk.fleet.read() as turn:
        kept = turn.reports(DEVICE)
    assert kept[0].counter == KEPT_REPORTS + 10
    assert 1 < len(kept) < KEPT_REPORTS
    assert sum(len(stored.envelope) for stored in kept) <= KEPT_BYTES


def test_strangers_fill_nothing(desk: Desk) -> None:
    for number in range(20):
        stranger = Reporter.of_seed(f"{number}", f"made up {number}")
        assert desk.take(stranger.sign(stranger.next())) == "unknown"
    with desk.fleet.read() as turn:
        (alarm,) = turn.alarms()
    assert (alarm.kind, alarm.device, alarm.count) == ("unknown", "", 1)


def test_alarms_are_bounded(desk: Desk) -> None:
    with desk.fleet.write() as turn:
        for number in range(KEPT_ALARMS + 5):
            turn.raise_alarm("test", "d", str(number), "x", NOW + number)
        kept = turn.alarms()
    assert len(kept) == KEPT_ALARMS
    assert kept[-1].last == NOW + KEPT_ALARMS + 4


def test_too_long(desk: Desk) -> None:
    answer = desk.intake.take(b" " * (CAP + 1), NOW)
    assert answer.status is HTTPStatus.REQUEST_ENTITY_TOO_LARGE


@pytest.mark.fuzz
@given(st.binary(max_size=100))
def test_any_bytes(tmp_path_factory, data):
    desk = Intake(Fleet(tmp_path_factory.getbasetemp()), Ledger(Served()))
    assert desk.take(data, NOW).status is HTTPStatus.BAD_REQUEST


# --- what it shows of the log ---------------------------------------------------------------------


@pytest.mark.parametrize("size", range(1, 8))
def test_a_device_behind_or_even(tmp_path: Path, size: int) -> None:
    desk = Desk(tmp_path, grown(7))
    assert desk.send(log=seen(grown(7), size)) == "stored"
    assert not desk.alarms()


def test_a_device_ahead_exposes_a_freeze(tmp_path: Path) -> None:
    desk = Desk(tmp_path, grown(7))
    assert desk.send(log=seen(grown(9))) == "stored"
    assert desk.alarms() == ["freeze"]
    desk.served.log = grown(12)
    assert desk.send(log=seen(grown(12))) == "stored"
    with desk.fleet.read() as turn:
        (alarm,) = turn.alarms()
        assert not turn.ahead(log_digest(grown(1).policy.vkey))
    assert "has seen 9 leaves of the log, and this server shows 7" in alarm.reason


@pytest.mark.parametrize(
    ("theirs", "verdict"),
    [
        (grown(6, 99), Verdict.SPLIT_VIEW),  # the same size
        (grown(3, 99), Verdict.REWRITTEN),  # smaller
    ],
    ids=["same size", "smaller"],
)
def test_a_device_that_was_shown_a_fork(tmp_path: Path, theirs: Log, verdict: Verdict) -> None:
    desk = Desk(tmp_path, grown(7))
    assert desk.send(log=seen(theirs)) == "stored"
    with desk.fleet.read() as turn:
        (alarm,) = turn.alarms()
    assert (alarm.kind, alarm.device) == (verdict.value, DEVICE)
    assert alarm.document
    assert judge(LogEvidence.parse(alarm.document), grown(1).policy).verdict is verdict


def test_two_devices_ahead_that_contradict_each_other(tmp_path: Path) -> None:
    desk = Desk(tmp_path, grown(7))
    other = Reporter.of_seed("other", "camera-13")
    desk.register(other)
    assert desk.send(log=seen(grown(9))) == "stored"
    assert desk.take(other.sign(other.next(log=seen(grown(7, 50, 51))))) == "stored"
    assert sorted(desk.alarms()) == ["freeze", "freeze", "split view"]


def test_a_fork_ahead_is_judged_once_the_log_got_there(tmp_path: Path) -> None:
    desk = Desk(tmp_path, grown(7))
    assert desk.send(log=seen(grown(7, 50, 51))) == "stored"
    assert desk.alarms() == ["freeze"]
    desk.served.log = grown(12)
    assert desk.send(log=seen(grown(12))) == "stored"
    assert sorted(desk.alarms()) == ["freeze", "history rewritten"]


def test_evidence_that_a_device_kept_reaches_people(tmp_path: Path) -> None:
    desk = Desk(tmp_path, grown(7))
    evidence = LogEvidence(grown(1).policy, grown(3).signed(), grown(2, 9).signed())
    told = Alarm("evidence", "0123456789abcdef", "the log lies")
    assert desk.send(alarms=(told,), evidence=(evidence,)) == "stored"
    assert sorted(desk.alarms()) == ["device: evidence", "split view"]


def test_evidence_that_proves_nothing_accuses_nobody(tmp_path: Path) -> None:
    desk = Desk(tmp_path, grown(7))
    stranger = Log(origin="other.example/log")
    stranger.append(leaf(1), leaf(2))
    fork = stranger.fork(leaf(3), leaf(4))
    for evidence in (
        LogEvidence(stranger.policy, stranger.signed(), fork.signed()),  # of another log
        LogEvidence(grown(1).policy, grown(3).signed(), grown(4).signed()),  # two honest trees
    ):
        assert desk.send(evidence=(evidence,)) == "stored"
    assert desk.send(log=seen(stranger)) == "stored"
    assert desk.send(log=SeenLog(log_digest(grown(1).policy.vkey), "no note")) == "stored"
    assert not desk.alarms()


def test_a_dismissed_alarm_comes_back(tmp_path: Path) -> None:
    desk = Desk(tmp_path, grown(7))
    desk.send(log=seen(grown(9)))
    with desk.fleet.write() as turn:
        (alarm,) = turn.alarms()
        assert turn.dismiss(alarm.number, NOW)
        assert turn.alarms()[0].dismissed == NOW
    desk.send(log=seen(grown(9)))
    with desk.fleet.read() as turn:
        (alarm,) = turn.alarms()
    assert (alarm.dismissed, alarm.count) == (None, 2)
