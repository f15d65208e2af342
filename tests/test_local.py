"""What whoever stands before a device tells it, and how that and updates go together."""

import errno
import itertools
import json
import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import pytest

from modelward import activate, scan
from modelward.config import from_settings, load, merged
from modelward.device import Device
from modelward.errors import ExitCode, Gate, RolledBack
from modelward.formats.channel import Entry
from modelward.formats.journal import MAX_INTERRUPTED, MAX_TRIES
from modelward.formats.release import Requirements
from modelward.install import syscalls, trial
from modelward.install.journal import JournalStore
from modelward.install.reports import ReportStore
from modelward.install.slots import Slots
from modelward.install.trial import Trials
from modelward.update import update
from tests.crash.sticks import Silent
from tests.install.test_trial import cut_at, full
from tests.simulator.chain import digest
from tests.simulator.server import Server
from tests.simulator.thief import CHANNEL, SERVER, Thief
from tests.simulator.world import MODEL, TOKENIZER, World

Run = Callable[..., Any]

KEYS = (*SERVER, CHANNEL)
INTERRUPTED = 130
PASS, FAIL = [sys.executable, "-c", "pass"], [sys.executable, "-c", "raise SystemExit('too slow')"]


@pytest.fixture(scope="session")
def quiet_world(quiet_world, tmp_path_factory) -> World:
    """A world whose device runs 1.1.0 and may fall back to 1.0.0."""
    world = quiet_world.copy(tmp_path_factory.mktemp("local"))
    world.publish("1.1.0")
    with world.serve() as server:
        assert world.client_here("update", server).code == ExitCode.DONE
    return world


@pytest.fixture
def run(world, server):
    def run(command, *options, code=ExitCode.DONE):
        asks = server if command in {"update", "check"} else None
        done = world.client_here(command, asks, *options)
        assert done.code == code, done
        return done.json

    return run


def health(world: World, command: list[str] = PASS, soak: str = "0s") -> None:
    """Set how the device judges new models."""
    path = world.device / "modelward.toml"
    text = path.read_text().partition("[health]")[0]
    path.write_text(f"{text}[health]\ncommand = {json.dumps(command)}\nsoak = {soak!r}\n")


def move_clock(world: World, span: timedelta) -> None:
    """Let a trial have begun earlier, as no test waits for hours."""
    device = Device(load(world.device, {}))
    store = device.trials._journals
    journal = store.load()
    trial = journal.trial and replace(
        journal.trial, soaked=journal.trial.soaked + int(span.total_seconds())
    )
    failed = {key: replace(item, at=item.at - span) for key, item in journal.failed.items()}
    store.save(replace(journal, trial=trial, failed=failed))


def give_up(world: World) -> None:
    """Let what failed have failed as often as it is tried."""
    store = Device(load(world.device, {})).trials._journals
    journal = store.load()
    failed = {key: replace(item, times=MAX_TRIES) for key, item in journal.failed.items()}
    store.save(replace(journal, failed=failed))


def fail(world: World, run: Run, server: Server) -> dict[str, Any]:
    """Offer 1.2.0, which does not work here; return what the update says."""
    health(world, FAIL)
    world.publish("1.2.0")
    return run("update", code=ExitCode.ROLLED_BACK)


def cut_short(world: World, run: Run, server: Server) -> None:
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    world.publish("1.2.0")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(activate, "_probe", stop)
        patch.setattr(Trials, "abandon", lambda _: None)  # nor does the device live to say so
        assert world.client_here("update", server).code == INTERRUPTED


def roll_back(world: World, run: Run, server: Server) -> None:
    health(world, PASS, soak="1h")
    world.publish("1.2.0")
    run("update")
    run("rollback")
    run("unpin")


def replace_what_failed(world: World, run: Run) -> None:
    """Offer 1.3.0, which works."""
    health(world, PASS)
    world.publish("1.3.0")
    assert run("update")["running"] == {MODEL: "1.3.0"}


def requests(run: Run, server: Server) -> int:
    """Return how many requests it takes a check to find that nothing is to be done."""
    server.requests.clear()
    assert run("update")["outcome"] == "unchanged"
    return len(server.requests)


def version(world: World) -> str:
    return world.read_model()[0]


# --- rollback, pin, unpin


def test_rollback_stays_until_unpinned(world, run):
    move = {"model": MODEL, "before": "1.1.0", "after": "1.0.0", "revoked": False}
    assert run("rollback")["changes"] == [move]
    assert version(world) == "1.0.0"
    for _ in range(2):
        updated = run("update")
        assert updated["outcome"] == "unchanged"
    assert version(world) == "1.0.0"
    status = run("status")["models"][MODEL]
    assert (status["pinned"], status["previous"]) == (True, "1.1.0")

    assert run("unpin", MODEL)["models"] == [MODEL]
    assert run("update")["running"] == {MODEL: "1.1.0"}
    assert run("verify")["outcome"] == "intact"


def test_a_newer_release_is_not_installed_over_a_pin(world, run):
    run("pin")
    world.publish("1.2.0")
    assert "held at 1.1.0: it was pinned" in run("update")["reasons"][MODEL]
    run("unpin")
    assert run("update")["running"] == {MODEL: "1.2.0"}


def test_rollback_to_a_damaged_release_is_refused(world, run):
    slots = world.device / "slots" / MODEL
    runs = (world.device / "current" / MODEL).resolve().parent
    (kept,) = (slot for slot in slots.iterdir() if slot != runs)
    path = kept / "files" / "model.onnx"
    path.chmod(0o644)
    path.write_bytes(b"tampered")
    refused = run("rollback", code=ExitCode.REFUSED)
    assert "which is kept to fall back to: model.onnx" in refused["reason"]
    assert version(world) == "1.1.0"


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (("rollback", "face-reader"), "no model 'face-reader' is installed"),
        (("pin", "face-reader"), "no model 'face-reader' is installed"),
        (("unpin", MODEL), "meter-reader is not pinned"),
        (("confirm",), "nothing is on trial"),
    ],
)
def test_what_makes_no_sense(run, arguments, reason):
    assert run(*arguments, code=ExitCode.USAGE)["reason"] == reason


def test_revoked_release_goes_back_to_the_kept_one(world, run):
    """Its counter lies below the floor, but it ran here: it need not come over the network."""
    revoke(world, "1.1.0", offer="1.0.0")
    done = run("update")
    assert done["changes"] == [{"model": MODEL, "before": "1.1.0", "after": "1.0.0"}]
    assert done["fetched"] == 0
    assert run("status")["floors"]["releases"] == {MODEL: 3}
    assert run("update")["outcome"] == "unchanged"
    run("rollback", code=ExitCode.USAGE)  # what is revoked is not kept to fall back to
    assert len(list((world.device / "slots" / MODEL).iterdir())) == 1
    world.publish("1.2.0")
    assert run("update")["running"] == {MODEL: "1.2.0"}


def test_a_kept_release_that_rotted_is_not_dropped_but_mended(world, run):
    """It is what is gone back to, and its own documents prove what it is."""
    revoke(world, "1.1.0", offer="1.0.0")
    device = Device(load(world.device, {}))
    kept = device.slots.directory(MODEL, device.slots.installed().previous[MODEL])
    file = kept / "files/model.onnx"
    file.chmod(0o644)
    file.write_bytes(bytes(file.stat().st_size))
    for _ in range(2):
        refused = run("update", code=ExitCode.REFUSED)
        assert "model.onnx: is not the file that was approved" in refused["reason"]
        assert "verify --repair" in refused["advice"]
    (alarm,) = device.alarms.pending()  # which the daemon mends
    assert (alarm.version, alarm.served) == ("1.0.0", "1.1.0")
    assert version(world) == "1.1.0"
    run("verify", "--repair")
    assert not device.alarms.pending()
    assert run("update")["running"] == {MODEL: "1.0.0"}


def test_a_release_that_fails_on_a_full_disk_has_failed(world, run, monkeypatch):
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    world.publish("1.2.0")
    monkeypatch.setattr(activate.health, "probe", unfit)
    monkeypatch.setattr(trial.Trials, "fail", full)
    assert run("update", code=ExitCode.ROLLED_BACK)["reason"] == "it crashed"
    assert version(world) == "1.1.0"
    monkeypatch.undo()
    assert run("update")["running"] == {MODEL: "1.2.0"}


@pytest.mark.parametrize("takes", ["", "installed.json"])
def test_a_disk_that_is_full_at_the_switch_says_nothing_about_a_release(
    world, run, monkeypatch, takes
):
    """What the next generation takes is what noting that would need."""
    world.publish("1.2.0")
    following = world.device / "generations" / str(number_of_generation(world) + 1)
    with monkeypatch.context() as disk:
        full(disk, room=lambda: not (following / takes).exists())
        for _ in range(MAX_INTERRUPTED + 1):
            assert "No space left" in run("update", code=ExitCode.ERROR)["reason"]
            journal = Device(load(world.device, {})).trials.journal
            assert (journal.failed, journal.probing, following.exists()) == ({}, {}, False)
    assert run("update")["running"] == {MODEL: "1.2.0"}


@pytest.mark.parametrize("soak", ["0s", "1h"])
@pytest.mark.parametrize("at", [1, 2])
def test_nor_does_a_disk_that_fails_once_a_step_is_done(world, run, monkeypatch, soak, at):
    """The journal has its new name, but that may not be durable: what it says is gone by."""
    health(world, soak=soak)
    world.publish("1.2.0")
    save, turns = JournalStore.save, itertools.count(1)

    def fail_after(self, journal):
        save(self, journal)
        if next(turns) == at:
            raise OSError(errno.EIO, os.strerror(errno.EIO))

    with monkeypatch.context() as disk:
        disk.setattr(JournalStore, "save", fail_after)
        run("update", code=ExitCode.ERROR)
    journal = Device(load(world.device, {})).trials.journal
    assert (journal.failed, journal.probing) == ({}, {})
    assert (journal.trial is None) == (at == 1)
    assert version(world) == "1.1.0"
    assert run("update")["running"] == {MODEL: "1.2.0"}


@pytest.mark.parametrize("is_done", [False, True])
def test_nor_does_a_switch_that_fails(world, run, monkeypatch, is_done):
    world.publish("1.2.0")
    switch = Slots.switch

    def fail(self, number):
        if is_done:
            switch(self, number)
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with monkeypatch.context() as disk:
        disk.setattr(Slots, "switch", fail)
        run("update", code=ExitCode.ERROR)
    assert version(world) == ("1.2.0" if is_done else "1.1.0")
    assert run("update")["running"] == {MODEL: "1.2.0"}
    device = Device(load(world.device, {}))
    assert not device.trials.journal.failed
    assert device.floors.load().releases == {MODEL: device.slots.installed().active[MODEL].counter}


def number_of_generation(world: World) -> int:
    return Device(load(world.device, {})).slots.installed().number


@pytest.mark.parametrize("command", ["update", "check", "gc"])
def test_going_back_that_another_command_finishes_is_noted_and_reported(world, run, command):
    health(world, soak="1h")
    world.publish("1.2.0")
    assert run("update")["running"] == {MODEL: "1.2.0"}
    trials = Device(load(world.device, {})).trials
    with cut_at(trials._slots, "switch"):
        trials.roll_back("it crashed", datetime.now(UTC))
    before = ReportStore(world.device).last()
    assert run(command, code=ExitCode.ROLLED_BACK)["reason"] == "it crashed"
    assert run("status")["last"]["reason"] == "it crashed"
    assert ReportStore(world.device).last() == before + 1
    assert version(world) == "1.1.0"
    assert run("update")["outcome"] == "unchanged"


@pytest.mark.parametrize("command", ["gc", "pin", "rollback"])
def test_a_trial_that_ends_at_another_command_is_noted_and_reported(world, run, command):
    health(world, soak="1h")
    world.publish("1.2.0")
    assert run("update")["running"] == {MODEL: "1.2.0"}
    device = Device(load(world.device, {}))
    journals = device.trials._journals
    journal = journals.load()
    starts = trial.MAX_STARTS + 1
    journals.save(replace(journal, trial=replace(journal.trial, starts=starts)))
    before = ReportStore(world.device).last()
    assert "was started" in run(command, code=ExitCode.ROLLED_BACK)["reason"]
    assert run("status")["last"]["outcome"] == "rolled back"
    assert ReportStore(world.device).last() == before + 1
    assert version(world) == "1.1.0"


@pytest.mark.parametrize("folder", ["store", "tuf"])
def test_rollback_needs_no_disk_that_is_away(world, run, folder):
    away = world.place / "disk"
    (world.device / folder).rename(away)
    (world.device / folder).symlink_to(world.place / "elsewhere")
    refused = run("update", code=ExitCode.REFUSED)
    assert "is a link to" in refused["reason"]
    run("rollback")
    assert version(world) == "1.0.0"
    (world.device / folder).unlink()
    away.rename(world.device / folder)
    assert run("update")["outcome"] == "unchanged"


def unfit(*_arguments: object) -> str:
    raise RolledBack("it crashed")


@pytest.mark.parametrize("soak", ["0s", "1h"])
def test_what_replaces_a_revoked_release_keeps_what_was_kept(world, run, soak):
    health(world, soak=soak)
    world.publish("1.2.0", offer=None)
    revoke(world, "1.1.0", offer="1.2.0")
    assert run("update")["running"] == {MODEL: "1.2.0"}
    assert run("status")["models"][MODEL]["previous"] == "1.0.0"
    assert len(list((world.device / "slots" / MODEL).iterdir())) == 2
    run("rollback")
    assert version(world) == "1.0.0"


def test_a_trial_that_fails_goes_back_to_nothing_revoked(world, run):
    health(world, FAIL, soak="1h")
    world.publish("1.2.0", offer=None)
    revoke(world, "1.1.0", offer="1.2.0")
    run("update", code=ExitCode.ROLLED_BACK)
    assert version(world) == "1.0.0"
    assert run("update")["running"] == {MODEL: "1.0.0"}
    assert run("verify")["outcome"] == "intact"


def test_a_trial_goes_back_to_what_is_revoked_if_nothing_else_is_here(world, server, run):
    revoke(world, "1.0.0", offer="1.1.0")
    told = run("update")
    assert told["outcome"] == "unchanged"
    assert run("status")["models"][MODEL]["previous"] is None
    run("rollback", code=ExitCode.USAGE)
    health(world, soak="1h")
    world.publish("1.2.0", offer=None)
    revoke(world, "1.0.0", "1.1.0", offer="1.2.0")
    told = world.client_here("update", server, as_json=False)
    assert "1.1.0 is revoked, but nothing else is kept" in told.out
    assert run("update")["running"] == {MODEL: "1.2.0"}
    assert run("status")["models"][MODEL]["previous"] is None
    told = world.client_here("rollback", as_json=False)
    assert version(world) == "1.1.0"  # never to nothing
    assert f"WARNING: {MODEL} 1.1.0 is revoked" in told.out
    assert "unpin" not in told.out
    assert not run("status")["models"][MODEL]["pinned"]


def test_what_fails_in_the_place_of_a_revoked_release(world, run, server, monkeypatch):
    """It may not run: what the channel names before it does, if it is kept."""
    world.publish("1.2.0", offer=None)
    revoke(world, "1.1.0", offer="1.2.0", before="1.0.0")
    with monkeypatch.context() as patch:
        patch.setattr(activate, "_probe", unfit)
        run("update", code=ExitCode.ROLLED_BACK)
    assert version(world) == "1.1.0"  # nothing was switched
    assert run("update")["running"] == {MODEL: "1.0.0"}
    assert requests(run, server) > 1  # 1.2.0 is to be tried again
    move_clock(world, timedelta(hours=1))
    assert run("update")["running"] == {MODEL: "1.2.0"}


def test_what_failed_is_not_forgotten_when_something_newer_works(world, run, server):
    """The channel may name it once more, and what runs may be revoked."""
    fail(world, run, server)
    replace_what_failed(world, run)
    revoke(world, "1.3.0", offer="1.2.0", before="1.1.0")
    assert run("update")["running"] == {MODEL: "1.1.0"}


def test_a_pin_does_not_hold_what_is_revoked(world, run):
    run("pin")
    revoke(world, "1.1.0", offer="1.0.0")
    assert run("update")["running"] == {MODEL: "1.0.0"}


def test_revoked_release_whose_kept_one_was_replaced_is_not_left(world, run):
    """Only the very release that ran here may come back below the floor (attack row 2)."""
    revoke(world, "1.1.0", offer="0.9.0")
    refused = run("update", code=ExitCode.REFUSED)
    assert refused["gate"] == Gate.RELEASE.label
    assert version(world) == "1.1.0"


def test_revoking_one_model_does_not_end_the_soak_of_another(world, run):
    health(world, PASS, soak="1h")
    world.publish("2.0.0", TOKENIZER)
    run("update")
    revoke(world, "1.1.0", offer="1.0.0", beside={TOKENIZER: Entry("2.0.0")})
    for _ in range(2):
        assert run("update")["running"] == {MODEL: "1.0.0", TOKENIZER: "2.0.0"}
        status = run("status")
        assert [name for name, its in status["models"].items() if its["on_trial"]] == [TOKENIZER]
        assert TOKENIZER not in status["floors"]["releases"]
    run("rollback", TOKENIZER)
    assert {name: its["version"] for name, its in run("status")["models"].items()} == {
        MODEL: "1.0.0"
    }


def revoke(
    world: World,
    *revoked: str,
    offer: str,
    before: str | None = None,
    beside: Mapping[str, Entry] | None = None,
) -> None:
    """Have the channel revoke versions and offer another one."""
    holder = Thief(world, KEYS)
    holder.offer({MODEL: Entry(offer, before, revoked), **(beside or {})})


# --- gate 12


def test_command_that_says_no_rolls_back(world, run, server):
    failed = fail(world, run, server)
    assert (failed["outcome"], failed["gate"]) == ("rolled back", "health")
    assert "too slow" in failed["reason"]
    assert version(world) == "1.1.0"
    assert run("verify")["outcome"] == "intact"
    assert run("status")["floors"]["releases"] == {MODEL: 3}


def test_what_failed_is_not_tried_again_at_once(world, run, server):
    fail(world, run, server)
    for _ in range(2):
        reason = run("update")["reasons"][MODEL]
        assert "1.2.0 failed on this device" in reason
        assert "not tried again before" in reason
    asked = len(server.asked("/blobs/"))
    health(world, PASS)
    assert run("update")["outcome"] == "unchanged"
    assert len(server.asked("/blobs/")) == asked
    move_clock(world, timedelta(hours=1))
    assert run("update")["running"] == {MODEL: "1.2.0"}
    assert run("status")["failed"] == []


def test_retry_by_hand(world, run, server):
    fail(world, run, server)
    run("update", "--retry", code=ExitCode.ROLLED_BACK)
    assert run("status")["failed"][0]["times"] == 2
    health(world, PASS)
    assert run("update", "--retry")["running"] == {MODEL: "1.2.0"}


def test_another_release_is_tried_at_once(world, run, server):
    fail(world, run, server)
    replace_what_failed(world, run)
    assert run("status")["models"][MODEL]["previous"] == "1.1.0"


@pytest.mark.parametrize("undo", [fail, cut_short, roll_back])
def test_what_failed_costs_no_request_once_something_newer_runs(world, run, server, undo):
    undo(world, run, server)
    replace_what_failed(world, run)
    assert requests(run, server) == 1


def test_what_failed_costs_requests_while_it_is_to_be_tried_again(world, run, server):
    fail(world, run, server)
    health(world, PASS)
    for _ in range(2):
        assert requests(run, server) > 1
    world.offer("1.1.0")  # not any more
    assert [requests(run, server) for _ in range(2)][1] == 1
    world.offer("1.2.0")
    assert requests(run, server) > 1  # which it remembers
    move_clock(world, timedelta(hours=1))
    assert run("update")["running"] == {MODEL: "1.2.0"}


@pytest.mark.parametrize("hold", ["gives it up", "is told to stay"])
def test_what_failed_costs_no_request_while_it_is_not_to_be_tried_again(world, run, server, hold):
    fail(world, run, server)
    health(world, PASS)
    if hold == "gives it up":
        give_up(world)
    else:
        run("pin")
    assert [requests(run, server) for _ in range(2)][1] == 1
    move_clock(world, timedelta(days=9))
    assert requests(run, server) == 1
    if hold == "is told to stay":
        run("unpin")
    assert run("update", "--retry")["running"] == {MODEL: "1.2.0"}


def test_soak(world, run):
    health(world, PASS, soak="1h")
    world.publish("1.2.0")
    assert run("update")["running"] == {MODEL: "1.2.0"}
    status = run("status")
    assert status["models"][MODEL]["on_trial"]
    assert status["floors"]["releases"] == {MODEL: 3}
    run("update")
    assert run("status")["models"][MODEL]["on_trial"]
    move_clock(world, timedelta(hours=1))
    run("update")
    status = run("status")
    assert not status["models"][MODEL]["on_trial"]
    assert status["floors"]["releases"] == {MODEL: 4}


def test_what_is_hashed_again_before_a_switch_is_told(world, server, monkeypatch):
    """After a kill at gate 11 all of it is: over a large model, that takes hours."""
    world.publish("1.2.0")
    config = from_settings(world.device, merged(world.device, {}, {"repository": server.url}))
    with monkeypatch.context() as patch:
        patch.setattr(activate, "_probe", interrupted)
        with pytest.raises(KeyboardInterrupt):
            update(Device(config), (), Silent())
    told = Told()
    assert update(Device(config), (), told).carried.fetched == 0
    assert len(told.hashed) == len(world.offered)
    assert told.hashed[-1] == 2 * (sum(map(len, world.offered.values())),)
    assert [done for done, _ in told.hashed] == sorted({done for done, _ in told.hashed})


class Told(Silent):
    """Notes what it is told of what is hashed."""

    def __init__(self) -> None:
        self.hashed: list[tuple[int, int]] = []

    def hashing(self, done: int, total: int) -> None:
        self.hashed.append((done, total))


def interrupted(*_arguments: object) -> str:
    raise KeyboardInterrupt


def test_a_clock_that_is_set_right_does_not_end_a_soak(world, server):
    """A device without a clock of its own updates before the network tells it the time."""
    health(world, PASS, soak="1h")
    world.publish("1.2.0")
    config = from_settings(world.device, merged(world.device, {}, {"repository": server.url}))
    for behind in (timedelta(hours=3), timedelta()):
        clock = partial(lambda behind: datetime.now(UTC) - behind, behind)
        device = Device(config, clock=clock)
        assert update(device, (), Silent()).installed.active[MODEL].version == "1.2.0"
        assert device.trials.on_trial().keys() == {MODEL}
        assert device.floors.load().releases == {MODEL: 3}


def test_soak_during_which_it_falls_ill(world, run):
    health(world, PASS, soak="1h")
    world.publish("1.2.0")
    run("update")
    health(world, FAIL, soak="1h")
    assert "too slow" in run("update", code=ExitCode.ROLLED_BACK)["reason"]
    assert version(world) == "1.1.0"
    assert run("status")["models"][MODEL]["previous"] == "1.0.0"


def test_confirm(world, run):
    health(world, PASS, soak="1h")
    world.publish("1.2.0")
    run("update")
    assert run("confirm")["models"] == {MODEL: "1.2.0"}
    assert run("status")["floors"]["releases"] == {MODEL: 4}


def test_rollback_during_a_trial(world, run):
    health(world, PASS, soak="1h")
    world.publish("1.2.0")
    run("update")
    assert run("rollback")["changes"] == [
        {"model": MODEL, "before": "1.2.0", "after": "1.1.0", "revoked": False}
    ]
    assert "held at 1.1.0: it was rolled back by hand" in run("update")["reasons"][MODEL]


def test_hotfix_during_a_trial(world, run):
    health(world, PASS, soak="1h")
    for number in ("1.2.0", "1.2.1"):
        world.publish(number)
        assert run("update")["running"] == {MODEL: number}
    assert run("status")["models"][MODEL]["previous"] == "1.1.0"


# --- gc


def test_gc(world, run):
    name = digest(b"stray")
    stray = world.device / "store" / name
    stray.write_bytes(bytes(10_000))
    found = run("gc", "--dry-run")
    assert found["paths"] == [str(stray.relative_to(world.device))]
    assert found["freed"] >= 10_000
    assert stray.exists()
    assert run("gc")["freed"] == found["freed"]
    assert not stray.exists()
    assert run("gc") == {"outcome": "collected", "paths": [], "freed": 0}
    assert run("verify")["outcome"] == "intact"


def scanned_while(world, act, left):
    """Return what is found by a scan during which, with so many bytes left, something is done."""
    acted = []

    def progress(done, total):
        if not acted and total - done <= left:
            acted.append(act())

    found = scan.scan(Device(load(world.device, {})), (), progress)
    assert acted
    return found


def test_what_a_trial_ends_while_it_is_verified_is_no_damage(world, run):
    """`verify` by hand holds no lock."""
    health(world, soak="1h")
    world.publish("1.2.0")
    run("update")
    found = scanned_while(world, lambda: run("confirm"), 1 << 30)
    assert found.damage == ()
    assert [slot.version for _, slot in found.slots] == ["1.2.0", "1.1.0"]


def test_what_nothing_needs_and_is_removed_meanwhile_is_no_damage(world, run):
    for data in (b"stray", b"other"):
        (world.device / "store" / digest(data)).write_bytes(data)
    assert scanned_while(world, lambda: run("gc"), len("stray")).damage == ()


def test_component_that_is_held_stops_what_needs_another(world, run):
    world.publish("1.2.0", requires=Requirements(components=((TOKENIZER, "1.0.0"),)))
    run("update")
    run("pin", TOKENIZER)
    world.publish("2.0.0", TOKENIZER, offer=None)
    world.publish("1.3.0", requires=Requirements(components=((TOKENIZER, "2.0.0"),)))
    reason = run("update", code=ExitCode.REFUSED)["reason"]
    assert (
        reason == "tokenizer 2.0.0 is needed, but tokenizer is held at 1.0.0: it was pinned by hand"
    )
    run("unpin")
    assert run("update")["running"] == {MODEL: "1.3.0", TOKENIZER: "2.0.0"}
    refused = run("rollback", TOKENIZER, code=ExitCode.USAGE)
    assert refused["reason"].startswith("meter-reader 1.3.0 needs tokenizer 2.0.0")
    assert run("rollback")["changes"] == [
        {"model": MODEL, "before": "1.3.0", "after": "1.2.0", "revoked": False},
        {"model": TOKENIZER, "before": "2.0.0", "after": "1.0.0", "revoked": False},
    ]


# --- a full disk, seen from outside: what a recovery could not note holds for all of a command


def superseding_was_cut(world: World, server, monkeypatch: pytest.MonkeyPatch) -> None:
    """1.2.0 is on trial and revoked; who was to put 1.1.0 in its place was ended before that."""

    def end(*_: object) -> None:
        raise KeyboardInterrupt

    health(world, soak="1h")
    world.publish("1.2.0")
    assert world.client_here("update", server).code == ExitCode.DONE
    revoke(world, "1.2.0", offer="1.1.0")
    with monkeypatch.context() as patch:
        patch.setattr(Slots, "switch", end)
        assert world.client_here("update", server).code == INTERRUPTED


def test_a_stale_note_keeps_nobody_from_going_back(world, server, monkeypatch):
    superseding_was_cut(world, server, monkeypatch)

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as disk:
        for name in ("create", "symlink", "make_directory"):
            disk.setattr(syscalls, name, full)
        world.client_here("rollback", None)
    assert version(world) == "1.1.0"


def test_a_stale_note_confirms_nothing_when_room_comes(world, server, monkeypatch):
    superseding_was_cut(world, server, monkeypatch)
    floors = Device(load(world.device, {})).floors.load().releases
    health(world, FAIL, soak="1h")
    create, sweep, is_full = syscalls.create, Slots.sweep, [True]

    def create_if_room(path, *details):
        if is_full:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return create(path, *details)

    def make_room(self):
        sweep(self)
        is_full.clear()

    with monkeypatch.context() as disk:
        disk.setattr(syscalls, "create", create_if_room)
        disk.setattr(Slots, "sweep", make_room)
        done = world.client_here("update", server)
    assert done.code == ExitCode.ROLLED_BACK, done
    assert (version(world), Device(load(world.device, {})).floors.load().releases) == (
        "1.1.0",
        floors,
    )
