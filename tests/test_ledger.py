"""Gate 4 on a device: what it asks for, what it remembers, when it gives alarm.

What is believed, and why, is in tests/trust/test_log.py; the attacks are in tests/attacks/.
"""

import errno
import hashlib
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modelward import fastpath, ledger, log_memory, report
from modelward.config import from_settings
from modelward.device import Device
from modelward.errors import FormatError, Gate, NotFound, Refused, TooLong, Unavailable
from modelward.fastpath import Rest
from modelward.formats.leaf import Leaf, RoleDigest
from modelward.formats.log_state import SMALL
from modelward.formats.tile import Tile
from modelward.install import fsops, syscalls
from modelward.install.log_state import COPIES, EVIDENCE, HEARD, MAX_EVIDENCE, LogStore
from modelward.ledger import Logged
from modelward.trust.merkle import leaf_hash
from modelward.trust.repository import Repository
from modelward.trust.split_view import Order, SplitView, Verdict
from tests.install.test_floors import cannot_read
from tests.simulator.log import NO_DATE, Log, also_cosigned, leaf
from tests.simulator.tuf_repository import TufRepository, in_days

URL = "https://models.example"
LOG_URL = f"{URL}/log/"
ID = "1d" * 32
HOUR = timedelta(hours=1)


class LoggedRepository(TufRepository):
    """A repository whose every snapshot is logged."""

    def __init__(self, log: Log | None = None) -> None:
        super().__init__()
        self.log = log or Log()
        self.at = in_days(0)
        self.name_log()

    def name_log(self, log: Log | None = None) -> None:
        """Publish a root that names a log."""
        self.log = log or self.log
        self.root.unrecognized_fields["x-log"] = self.log.policy.to_dict()
        self.root.unrecognized_fields["x-repository"] = ID
        self.publish("root")

    def leaf(self) -> Leaf:
        return Leaf(ID, self._role("root"), self._role("snapshot"))

    def _role(self, role: str) -> RoleDigest:
        version = self.metadata[role].signed.version
        return RoleDigest(version, hashlib.sha256(self.served(role)).hexdigest())

    def log_snapshot(self, others: int = 0, **how: Any) -> None:
        """Publish a snapshot, logged after so many others, and the timestamp that proves it."""
        self.publish("targets", "snapshot")
        self.log.append(*(leaf(len(self.log.entries) + n) for n in range(others)), self.leaf())
        self.prove(self.log, **how)

    def prove(self, log: Log, index: int | None = None, **how: Any) -> None:
        """Publish a timestamp with a proof from any log."""
        index = len(log.entries) - 1 if index is None else index
        proof = log.timestamp_proof(index, **{"at": int(self.at.timestamp())} | how)
        self.timestamp.unrecognized_fields["x-tlog"] = proof.to_dict()
        self.publish("timestamp")


class Site:
    """A device and what it is served."""

    def __init__(self, folder: Path, served: TufRepository) -> None:
        config = from_settings(folder, {"repository": URL, "device_id": "d"})
        (folder / "tuf").mkdir(exist_ok=True)
        self.device = Device(config)
        self.served = served
        self.root = served.files["metadata/1.root.json"]
        self.asked: list[str] = []
        self.tiles: Callable[[Tile], bytes] = self.honest_tile

    def honest_tile(self, tile: Tile) -> bytes:
        return self.served.log.tiles([tile])[tile]

    def fetch(self, url: str, limit: int) -> bytes:
        path = url.removeprefix(f"{URL}/")
        self.asked.append(path)
        if path.startswith("log/"):
            data = self.tiles(Tile.parse(path.removeprefix("log/")))
        else:
            data = self.served.files.get(path)
        if data is None:
            raise NotFound(f"no {path}")
        if len(data) > limit:
            raise TooLong(path)
        return data

    def check(self) -> Logged | None:
        """Take the repository through gates 3 and 4."""
        self.asked.clear()
        repository = Repository(
            cache=self.device.cache,
            metadata_url=f"{URL}/metadata",
            targets_url=f"{URL}/targets",
            fetcher=self,
            root=self.root,
        )
        repository.refresh()
        policy = ledger.policy_of(repository.cache.root())
        return ledger.check(repository.cache, policy, self.device, self, LOG_URL)

    @property
    def size(self) -> int:
        state = self.device.log.load()
        return state.signed.checkpoint.size if state else 0

    @property
    def asked_of_the_log(self) -> list[str]:
        return [path for path in self.asked if path.startswith("log/")]


@pytest.fixture
def site(tmp_path) -> Site:
    """A device that has seen a log of 20 leaves."""
    served = LoggedRepository()
    served.log_snapshot(19)
    site = Site(tmp_path, served)
    site.check()
    return site


def fork(served: LoggedRepository, common: int, size: int) -> Log:
    """A log that shares its first leaves with the honest one and ends in the snapshot served."""
    log = Log(served.log.entries[:common])
    log.append(*(leaf(5000 + n) for n in range(common, size - 1)), served.leaf())
    return log


def lied_to(site: Site, *, reason: str) -> SplitView:
    with pytest.raises(SplitView, match=reason) as refusal:
        site.check()
    assert refusal.value.gate is Gate.LOG
    return refusal.value


# --- what it asks for -----------------------------------------------------------------------------


def test_first_use(site):
    assert site.size == 20
    assert site.asked_of_the_log == []


@pytest.mark.parametrize("behind", range(17))
def test_no_extra_request_up_to_16_leaves_behind(site, behind):
    if behind:
        site.served.log_snapshot(behind - 1)
    site.check()
    assert site.size == 20 + behind
    versions = {0: ["timestamp"], 1: ["timestamp", "2.snapshot", "2.targets"]}
    asked = [path for path in site.asked if not path.endswith(".root.json")]
    assert len(asked) == len(versions[min(behind, 1)]), asked
    assert site.asked_of_the_log == []


@pytest.mark.parametrize("behind", [17, 300, 1000])
def test_tiles_beyond(site, behind):
    site.served.log_snapshot(behind - 1)
    site.check()
    assert site.size == 20 + behind
    assert 1 <= len(site.asked_of_the_log) <= 6


def test_full_tile_in_place_of_a_partial_one(site):
    """A log may drop partial tiles once the tile is full (tlog-tiles)."""
    site.served.log_snapshot(99)
    tree = Log(list(site.served.log.entries))
    tree.append(*map(leaf, range(400)))
    site.tiles = lambda tile: tree.tiles([tile])[tile] if tile.full == tile else None
    site.check()
    assert site.size == 120
    assert "log/tile/0/000" in site.asked_of_the_log


def test_tiles_that_cannot_be_had(site):
    site.served.log_snapshot(99)
    site.tiles = lambda _: None
    with pytest.raises(Unavailable) as problem:
        site.check()
    assert (problem.value.gate, problem.value.advice != "") == (Gate.LOG, True)
    assert site.size == 20
    site.tiles = site.honest_tile
    site.check()
    assert site.size == 120


def test_wrong_tiles_are_no_evidence(site):
    site.served.log_snapshot(99)
    site.tiles = lambda tile: bytes(len(site.honest_tile(tile)))
    with pytest.raises(Unavailable, match="tiles do not belong"):
        site.check()
    assert site.device.log.evidence() == ()


@given(st.lists(st.integers(min_value=0, max_value=300), min_size=1, max_size=6))
@settings(max_examples=25)
@pytest.mark.fuzz
def test_device_that_skips_any_number_of_versions(steps):
    with TemporaryDirectory() as folder:
        served = LoggedRepository()
        site = Site(Path(folder), served)
        for step in steps:
            served.log_snapshot(step)
            found = site.check()
            assert found.verified.index == site.size - 1 == len(served.log.entries) - 1
            if step < 16:
                assert site.asked_of_the_log == []
            for name in COPIES:
                assert (Path(folder) / name).stat().st_size < SMALL
        # It remembers enough to notice any other history.
        common = len(served.log.entries) // 2
        served.publish("targets", "snapshot")
        lie = fork(served, common, len(served.log.entries) + 3)
        served.prove(lie)
        site.tiles = lambda tile: lie.tiles([tile])[tile]
        with pytest.raises(SplitView):
            site.check()


# --- what it believes -----------------------------------------------------------------------------


def test_repository_without_a_log(tmp_path):
    site = Site(tmp_path, TufRepository())
    assert site.check() is None
    assert site.device.log.is_empty()
    assert log_memory.remember(site.device).to_dict() is None


def test_repository_that_begins_a_log(tmp_path):
    served = TufRepository()
    site = Site(tmp_path, served)
    site.check()
    logged = LoggedRepository()
    logged.__dict__ |= {**served.__dict__, "log": Log(), "at": in_days(0)}
    logged.name_log()
    logged.log_snapshot()
    site.served = logged
    site.check()
    assert site.size == 1


def test_no_proof_is_unavailable(site):
    del site.served.timestamp.unrecognized_fields["x-tlog"]
    site.served.publish("timestamp")
    with pytest.raises(Unavailable, match="no proof") as problem:
        site.check()
    assert problem.value.gate is Gate.LOG


def test_root_that_drops_the_log(site):
    """Nobody gets around the log by naming none."""
    del site.served.root.unrecognized_fields["x-log"]
    site.served.publish("root", "timestamp")
    with pytest.raises(Unavailable, match="no longer names a transparency log"):
        site.check()


@pytest.mark.parametrize(
    ("change", "field"),
    [
        (lambda fields: fields.pop("x-repository"), "x-repository"),
        (lambda fields: fields.update({"x-repository": "models.example"}), "x-repository"),
        (lambda fields: fields.update({"x-log": {"vkey": "x"}}), "x-log: vkey"),
    ],
)
def test_root_that_names_a_log_badly(site, change, field):
    change(site.served.root.unrecognized_fields)
    site.served.publish("root")
    with pytest.raises(FormatError, match=field) as refusal:
        site.check()
    assert refusal.value.gate is Gate.LOG


def test_proof_that_is_none(site):
    site.served.timestamp.unrecognized_fields["x-tlog"] = {"proof": 1, "tail": []}
    site.served.publish("timestamp")
    with pytest.raises(FormatError) as refusal:
        site.check()
    assert refusal.value.gate is Gate.LOG


def test_snapshot_that_was_not_logged(site):
    """The proof is of the snapshot before."""
    site.served.publish("targets", "snapshot", "timestamp")
    with pytest.raises(Refused, match="snapshot version 3 is not in the log"):
        site.check()
    assert site.size == 20


def test_between_a_new_root_and_its_timestamp(site):
    """A publisher writes root a moment before the timestamp: no reason for an alarm."""
    site.served.publish("root")
    with pytest.raises(Unavailable, match="root version 3 is not logged yet"):
        site.check()
    site.served.log_snapshot()
    site.check()
    assert site.size == 21


def test_quorum_that_is_missing(site):
    site.served.log_snapshot(by=["w1.example"])
    with pytest.raises(Unavailable, match="too few witnesses"):
        site.check()
    assert site.size == 20


# --- the clock ------------------------------------------------------------------------------------


def test_time_that_a_quorum_states(site):
    later = site.served.at + HOUR
    site.served.log_snapshot(at=int(later.timestamp()))
    assert site.check().verified.time == later


def test_time_beyond_what_offline_roles_signed_for_does_not_count(site):
    """Stolen witnesses and a stolen timestamp key do not set a clock years ahead."""
    far = in_days(4000)
    site.served.timestamp.expires = site.served.snapshot.expires = far
    site.served.log_snapshot(at=int(in_days(3000).timestamp()))
    with pytest.raises(Unavailable, match="its time is in the future"):
        site.check()


def test_expiry_by_trusted_time(site):
    site.check()
    repository = Repository(
        cache=site.device.cache,
        metadata_url=f"{URL}/metadata",
        targets_url=f"{URL}/targets",
        fetcher=site,
        root=site.root,
    )
    repository.refresh()
    repository.judge_expiry_by(in_days(29))
    with pytest.raises(Refused, match="expired at") as refusal:
        repository.judge_expiry_by(in_days(31))
    assert refusal.value.gate is Gate.CLOCK


def test_expiry_of_a_delegated_role_by_trusted_time(site):
    site.served.delegate("channels", ["channels/*"], expires=in_days(2))
    site.served.add_target("channels/stable.json", b"{}", "channels")
    site.served.publish("channels")
    site.served.log_snapshot()
    site.check()
    repository = Repository(
        cache=site.device.cache,
        metadata_url=f"{URL}/metadata",
        targets_url=f"{URL}/targets",
        fetcher=site,
        root=site.root,
    )
    repository.refresh()
    assert repository.target("channels/stable.json") == b"{}"
    repository.judge_expiry_by(in_days(3))
    for look in (repository.target, repository.target_info):
        with pytest.raises(Refused, match="channels expired") as refusal:
            look("channels/stable.json")
        assert refusal.value.gate is Gate.CLOCK


# --- when the log lies ----------------------------------------------------------------------------


def rest(now: datetime) -> Rest:
    return Rest("a" * 64, "b" * 64, 0, now, now + HOUR, "https://example.com", False, {})


def test_other_tree_of_the_same_size(site):
    fastpath.remember(site.device.config.state, rest(in_days(0)))
    site.served.prove(fork(site.served, 10, 20))
    evidence = lied_to(site, reason="other than the one").evidence
    (kept,) = site.device.log.evidence()
    assert kept.evidence == evidence
    assert kept.judgement.verdict is Verdict.SPLIT_VIEW
    assert not (site.device.config.state / fastpath.FILE).exists()
    assert site.size == 20


def test_rewritten_history_is_proven_by_tiles(site):
    site.served.publish("targets", "snapshot")
    lie = fork(site.served, 10, 25)
    site.served.prove(lie)
    site.tiles = lambda tile: lie.tiles([tile])[tile]
    lied_to(site, reason="rewrote its history")
    (kept,) = site.device.log.evidence()
    assert kept.judgement.verdict is Verdict.REWRITTEN


@pytest.mark.parametrize("answer", [lambda _: None, lambda tile: bytes(32 * tile.width)])
def test_rewritten_history_without_its_tiles(site, answer):
    """The tail reaches and does not fit, and nobody shows why: refused, but not proven."""
    site.served.publish("targets", "snapshot")
    site.served.prove(fork(site.served, 10, 25))
    site.tiles = answer
    lied_to(site, reason="does not show")
    (kept,) = site.device.log.evidence()
    assert kept.judgement.verdict is Verdict.OPEN


def test_log_that_was_proven_to_lie_is_not_believed_again(site):
    honest = site.served.log
    site.served.prove(fork(site.served, 10, 20))
    lied_to(site, reason="other than the one")
    site.served.log = honest
    site.served.log_snapshot()
    lied_to(site, reason="keeps evidence")
    assert len(site.device.log.evidence()) == 1
    # Only a root that names a new log lifts this.
    site.served.name_log(Log(origin="models.example/second"))
    site.served.log_snapshot()
    site.check()
    assert site.size == 1
    memory = log_memory.remember(site.device)
    assert (len(memory.evidence), memory.alarms) == (1, ())


def test_suspicion_passes_where_nothing_was_proven(site):
    """Whoever has the timestamp's key alone must not be able to lock a device for good."""
    honest = Log(list(site.served.log.entries))
    site.served.publish("targets", "snapshot")
    site.served.prove(fork(site.served, 10, 15))
    lied_to(site, reason="shrank from 20 to 15")
    assert log_memory.remember(site.device).alarms == ()
    site.served.log = honest
    site.served.log_snapshot()
    site.check()
    assert site.size == 21


def test_evidence_is_capped_and_a_proof_is_not_crowded_out(site):
    store = site.device.log
    seen = store.load()

    def lie(size: int) -> Any:
        site.served.prove(fork(site.served, 0, size))
        with pytest.raises(SplitView) as refusal:
            site.check()
        return refusal.value.evidence

    for size in range(2, 2 + MAX_EVIDENCE + 3):
        lie(size)
    assert len(store.evidence()) == MAX_EVIDENCE
    first = store.evidence()[0].name
    proof = lie(20)
    kept = store.evidence()
    assert len(kept) == MAX_EVIDENCE
    assert first not in {each.name for each in kept}
    assert proof in [each.evidence for each in kept if each.judgement.proven]
    assert store.keep(proof) == next(each.name for each in kept if each.judgement.proven)
    assert store.load() == seen


def test_alarm_outlives_a_damaged_cache(site):
    site.served.prove(fork(site.served, 10, 20))
    lied_to(site, reason="other than the one")
    cached = site.device.cache / "root.json"
    for damage in (lambda: cached.write_bytes(bytes(100)), cached.unlink):
        damage()
        assert len(log_memory.remember(site.device).alarms) == 1


def test_full_disk_does_not_hide_the_lie(site, monkeypatch):
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(fsops, "write_file", full)
    site.served.prove(fork(site.served, 10, 20))
    lied_to(site, reason="other than the one")


# --- what it remembers ----------------------------------------------------------------------------


def test_state_is_written_before_anybody_acts_and_only_if_it_changed(site, monkeypatch):
    written = []
    rename = syscalls.rename

    def note(source: Path, destination: Path) -> None:
        written.append(destination.name)
        rename(source, destination)

    monkeypatch.setattr(syscalls, "rename", note)
    site.check()
    assert written == []
    site.served.log_snapshot()
    site.check()
    assert written == list(COPIES)


@pytest.mark.parametrize("damage", [b"", bytes(900), b'{"schema"', None])
@pytest.mark.parametrize("copy", COPIES)
def test_one_copy_is_damaged(site, copy, damage):
    before = site.device.log.load()
    path = site.device.config.state / copy
    path.unlink()
    if damage is not None:
        path.write_bytes(damage)
    assert site.device.log.load() == before


def test_cut_between_the_copies(site):
    older = (site.device.config.state / COPIES[1]).read_bytes()
    site.served.log_snapshot()
    site.check()
    (site.device.config.state / COPIES[1]).write_bytes(older)
    assert site.size == 21
    site.check()


def test_cut_between_state_and_floors(site):
    """The state is ahead of what was acted upon: the same proof is good once more."""
    site.served.log_snapshot()
    site.check()
    assert site.device.floors.load().timestamp is None
    site.check()
    assert site.size == 21


@pytest.mark.parametrize("text", [b"", b"{}", bytes(100)])
def test_damaged_evidence_is_left_out(site, text):
    folder = site.device.config.state / EVIDENCE
    folder.mkdir()
    (folder / "0.json").write_bytes(text)
    assert LogStore(site.device.config.state).evidence() == ()
    site.check()


@pytest.mark.parametrize("number", [errno.EIO, errno.EACCES, errno.EMFILE])
@pytest.mark.parametrize("what", ["state", "heard", "proof"])
def test_what_cannot_be_read_is_not_forgotten(site, monkeypatch, what, number):
    """Else reading that fails once makes a device believe what it would never believe again."""
    honest, store = site.served.log, site.device.log
    if what == "proof":
        site.served.prove(fork(site.served, 10, 20))
        lied_to(site, reason="other than the one")
        site.served.log = honest
    elif what == "heard":
        honest.append(leaf(99))
        log_memory.gossip(site.device, honest.signed().to_bytes())
    site.served.log_snapshot()
    kept = [f"{each.name}.json" for each in store.evidence()]
    before = (store.load(), store.heard(), kept)
    cannot_read(monkeypatch, number, *{"state": COPIES, "heard": (HEARD,), "proof": kept}[what])
    with pytest.raises(Unavailable, match="cannot be read") as caught:
        site.check()
    assert caught.value.gate is Gate.LOG
    monkeypatch.undo()
    assert (store.heard(), [f"{each.name}.json" for each in store.evidence()]) == before[1:]
    assert what == "heard" or store.load() == before[0]


# --- neighbours -----------------------------------------------------------------------------------


def test_gossip(site):
    note = site.served.log.signed().to_bytes()
    assert log_memory.gossip(site.device, note).order is Order.SAME
    older = site.served.log.signed(5).to_bytes()
    assert "the neighbour is behind" in log_memory.gossip(site.device, older).to_text()
    site.served.log_snapshot()
    newer = log_memory.gossip(site.device, site.served.log.signed().to_bytes())
    assert (newer.own, newer.other) == (20, 21)
    assert "keeps newer states from this device" in newer.to_text()


def test_witness_that_states_a_time_without_a_date(site):
    """It counts for nothing, and makes nothing fail that asks what is known of the log."""
    site.served.log_snapshot()
    log = site.served.log
    proof = log.timestamp_proof(20, by=log.witnesses[:2])
    late = also_cosigned(proof.proof.checkpoint, log.witnesses[2], NO_DATE)
    proof = replace(proof, proof=replace(proof.proof, checkpoint=late))
    site.served.timestamp.unrecognized_fields["x-tlog"] = proof.to_dict()
    site.served.publish("timestamp")
    assert site.check().verified.ignored == {log.witnesses[2]: "its time is in the future"}
    assert log_memory.remember(site.device).times.keys() == set(log.witnesses[:2])
    assert log_memory.gossip(site.device, late.to_bytes()).order is Order.SAME
    assert report.draft(site.device).log.checkpoint == late.to_bytes().decode()


def test_gossip_finds_a_split_view(site):
    lie = fork(site.served, 10, 20).signed().to_bytes()
    with pytest.raises(SplitView):
        log_memory.gossip(site.device, lie)
    assert log_memory.remember(site.device).alarms
    lied_to(site, reason="keeps evidence")


@pytest.mark.parametrize("note", [b"", b"x\n", Log(origin="other").signed(0).to_bytes()])
def test_gossip_of_something_else(site, note):
    with pytest.raises(Refused) as refusal:
        log_memory.gossip(site.device, note)
    assert refusal.value.gate is Gate.LOG
    assert site.device.log.evidence() == ()


def test_gossip_before_anything_was_seen(tmp_path):
    with pytest.raises(Unavailable):
        log_memory.gossip(Site(tmp_path, TufRepository()).device, b"")


def test_what_is_remembered(site):
    memory = log_memory.remember(site.device)
    told = memory.to_dict()
    assert (told["origin"], told["size"]) == ("models.example/log", 20)
    assert set(told["cosigned"]) == set(site.served.log.witnesses)
    assert told["checkpoint"].startswith("models.example/log\n20\n")
    (line,) = memory.lines()
    assert "of size 20, cosigned by w1.example at" in line
    assert "needed: 2 of {w1.example, w2.example, w3.example}" in line


def test_leaf_is_of_what_was_verified(site):
    assert leaf_hash(site.served.leaf().to_bytes()) == leaf_hash(site.served.log.entries[-1])
