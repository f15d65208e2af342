"""The state machine of an update on disk: on trial, then confirmed or undone."""

import contextlib
import errno
import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import timedelta

import pytest

from modelward import activate
from modelward.errors import Gate, Unavailable
from modelward.formats.floors import Floors
from modelward.formats.floors_reset import FloorsReset
from modelward.formats.journal import (
    FIRST_WAIT,
    LONGEST_WAIT,
    MAX_INTERRUPTED,
    MAX_TRIES,
    Phase,
    Pin,
)
from modelward.formats.release import Requirements
from modelward.install import syscalls
from modelward.install.trial import MAX_STARTS
from tests.install.site import MODEL, Site, chain, documents
from tests.install.test_floors import cannot_read

ONE, TWO, THREE = (chain(f"{number}.0.0", number) for number in (1, 2, 3))
OTHER, OTHER_TWO = (chain(f"{number}.0.0", number, model="other") for number in (1, 2))
HOUR = timedelta(hours=1)


@pytest.fixture
def site(tmp_path) -> Site:
    """A device that runs 2.0.0 and may fall back to 1.0.0."""
    site = Site(tmp_path / "state")
    site.install(ONE)
    site.install(TWO)
    return site


@pytest.fixture
def on_trial(site) -> Site:
    """A device on which 3.0.0 is on trial for an hour."""
    site.try_out(THREE, soak=HOUR)
    return site


def later(site: Site, span: timedelta) -> None:
    site.now += span
    site.uptime += int(span.total_seconds())


def reboot(site: Site) -> None:
    site.boot += "+"
    site.uptime = 0
    site.trials.recover(site.now)


def test_commit_raises_floors_and_drops_what_is_older(site):
    assert site.device.floors.load().releases == {MODEL: 2}
    assert site.versions() == ("2.0.0", "1.0.0")
    assert site.trials.journal.trial is None
    assert site.problems() == site.leftovers() == []


def test_on_trial(on_trial):
    assert on_trial.versions() == ("3.0.0", "2.0.0")
    assert {slot.version for slot in on_trial.trials.on_trial().values()} == {"3.0.0"}
    assert on_trial.device.floors.load().releases == {MODEL: 2}
    on_trial.trials.collect()
    assert len(list(on_trial.state.glob("slots/*/*"))) == 3


def test_trial_that_is_confirmed(on_trial):
    on_trial.trials.commit(Floors(root=7))
    assert on_trial.versions() == ("3.0.0", "2.0.0")
    assert on_trial.device.floors.load() == Floors(root=7, releases={MODEL: 3})
    assert on_trial.problems() == on_trial.leftovers() == []


def test_trial_that_fails(on_trial):
    on_trial.trials.roll_back("it is no good", on_trial.now)
    assert on_trial.versions() == ("2.0.0", "1.0.0")
    assert on_trial.device.floors.load().releases == {MODEL: 2}
    assert on_trial.problems() == on_trial.leftovers() == []
    (failure,) = on_trial.trials.journal.failed.values()
    assert (failure.model, failure.version, failure.times) == (MODEL, "3.0.0", 1)
    assert failure.reason == "it is no good"


def test_first_installation_that_fails(tmp_path):
    site = Site(tmp_path / "state")
    site.try_out(ONE, soak=HOUR)
    site.trials.roll_back("it is no good", site.now)
    assert site.versions() == (None, None)
    assert not (site.state / "current").is_symlink()
    assert site.leftovers() == list(site.store.digests()) == []
    assert site.install(ONE).number == 1


def test_all_models_go_back_together(site):
    site.install(OTHER)
    site.try_out(THREE, OTHER_TWO, soak=HOUR)
    site.trials.roll_back("one of them is no good", site.now)
    active = site.slots.installed().active
    assert {model: slot.version for model, slot in active.items()} == {
        MODEL: "2.0.0",
        "other": "1.0.0",
    }
    assert len(site.trials.journal.failed) == 2


def test_an_update_during_a_trial_joins_it(on_trial):
    on_trial.try_out(OTHER, soak=HOUR)
    assert on_trial.trials.on_trial().keys() == {MODEL, "other"}
    assert on_trial.versions() == ("3.0.0", "2.0.0")
    on_trial.trials.roll_back("no good", on_trial.now)
    assert on_trial.slots.installed().active.keys() == {MODEL}
    assert on_trial.versions() == ("2.0.0", "1.0.0")
    assert on_trial.leftovers() == []


def test_a_release_during_a_trial_replaces_what_is_on_trial(on_trial):
    four = chain("4.0.0", 4)
    on_trial.try_out(four, soak=HOUR)
    assert on_trial.versions() == ("4.0.0", "2.0.0")  # 3.0.0 was never confirmed
    on_trial.trials.commit()
    assert on_trial.versions() == ("4.0.0", "2.0.0")
    assert on_trial.leftovers() == []


@pytest.fixture
def two_models(tmp_path) -> Site:
    """A device on which 3.0.0 is on trial; the other model runs 2.0.0, with 1.0.0 kept."""
    site = Site(tmp_path / "state")
    site.install(ONE, OTHER)
    site.install(TWO, OTHER_TWO)
    site.try_out(THREE, soak=HOUR)
    site.trials.healthy()
    return site


def revoke_other(site: Site) -> None:
    kept = {"other": site.slots.installed().previous["other"]}
    site.trials.switch({}, 0, confirmed=True, kept=kept)
    site.trials.collect()


def by_hand(site: Site) -> None:
    site.trials.go_back({"other": site.slots.installed().previous["other"]}, "by hand")


def runs(site: Site) -> dict[str, str]:
    return {model: slot.version for model, slot in site.slots.installed().active.items()}


@pytest.mark.parametrize("go_back", [revoke_other, by_hand])
def test_another_model_that_goes_back_ends_no_trial(two_models, go_back):
    before = two_models.trials.journal.trial
    go_back(two_models)
    two_models.trials.recover(two_models.now)
    assert runs(two_models) == {MODEL: "3.0.0", "other": "1.0.0"}
    assert two_models.trials.on_trial().keys() == {MODEL}
    after = two_models.trials.journal.trial
    assert replace(after, good=before.good, generation=before.generation) == before
    assert two_models.device.floors.load().releases[MODEL] == 2


@pytest.mark.parametrize("go_back", [revoke_other, by_hand])
def test_a_trial_that_fails_does_not_undo_that_another_model_went_back(two_models, go_back):
    go_back(two_models)
    two_models.trials.roll_back("it is no good", two_models.now)
    two_models.trials.recover(two_models.now)
    assert runs(two_models) == {MODEL: "2.0.0", "other": "1.0.0"}
    failed = two_models.trials.journal.failed.values()
    assert [(item.model, item.version) for item in failed] == [(MODEL, "3.0.0")]
    assert set(two_models.trials.journal.pins) == ({"other"} if go_back is by_hand else set())
    assert two_models.problems() == two_models.leftovers() == []


@pytest.mark.parametrize("go_back", [revoke_other, by_hand])
def test_a_cut_while_another_model_goes_back_during_a_trial(two_models, go_back, monkeypatch):
    def cut(number):
        raise KeyboardInterrupt

    monkeypatch.setattr(two_models.trials._slots, "switch", cut)
    with pytest.raises(KeyboardInterrupt):
        go_back(two_models)
    monkeypatch.undo()
    two_models.trials.recover(two_models.now)
    once = two_models.tree()
    two_models.trials.recover(two_models.now)
    assert two_models.tree() == once
    assert runs(two_models) == {MODEL: "3.0.0", "other": "1.0.0"}
    two_models.trials.roll_back("it is no good", two_models.now)
    assert runs(two_models) == {MODEL: "2.0.0", "other": "1.0.0"}


def test_a_model_that_goes_back_together_with_a_new_release_on_trial(site):
    site.install(OTHER)
    site.install(OTHER_TWO)
    kept = {"other": site.slots.installed().previous["other"]}
    site.trials.switch({MODEL: site.stage(THREE)}, 3600, confirmed=False, kept=kept)
    assert site.trials.on_trial().keys() == {MODEL}
    site.trials.roll_back("it is no good", site.now)
    assert runs(site) == {MODEL: "2.0.0", "other": "1.0.0"}


def test_a_release_on_trial_that_is_revoked_ends_its_trial(two_models):
    kept = {MODEL: two_models.slots.installed().previous[MODEL]}
    two_models.trials.switch({}, 0, confirmed=True, kept=kept)
    two_models.trials.recover(two_models.now)
    assert two_models.versions() == ("2.0.0", "1.0.0")
    assert two_models.trials.journal.trial is None
    assert two_models.device.floors.load().releases[MODEL] == 2


def test_a_release_without_a_soak_joins_an_open_trial(two_models):
    """The settings may have changed since that trial began."""
    slots = {"other": two_models.stage(chain("3.0.0", 3, model="other"))}
    two_models.trials.switch(slots, 0, confirmed=True)
    trial = two_models.trials.journal.trial
    assert (trial.phase, trial.left) == (Phase.TRIAL, 3600)
    assert two_models.trials.on_trial().keys() == {MODEL, "other"}


def test_a_pin_during_a_trial_that_fails_holds(two_models):
    two_models.trials.pin([MODEL, "other"], "by hand")
    two_models.trials.roll_back("it is no good", two_models.now)
    two_models.trials.recover(two_models.now)
    pins = two_models.trials.journal.pins
    assert pins == {"other": Pin(two_models.slots.installed().active["other"], 2, "by hand")}


def test_a_device_that_is_started_again_and_again_goes_back(on_trial):
    for _ in range(MAX_STARTS):
        reboot(on_trial)
        on_trial.trials.healthy()  # right after the start, and never again
        assert on_trial.versions()[0] == "3.0.0"
    reboot(on_trial)
    assert on_trial.versions() == ("2.0.0", "1.0.0")
    assert [item.version for item in on_trial.trials.journal.failed.values()] == ["3.0.0"]


def test_a_device_that_is_switched_off_every_night_does_not(on_trial):
    for _ in range(3 * MAX_STARTS):
        reboot(on_trial)
        on_trial.trials.healthy()
        on_trial.trials.healthy()
    assert on_trial.versions()[0] == "3.0.0"


def test_a_start_that_cannot_be_counted_ends_the_trial(on_trial, monkeypatch):
    full(monkeypatch)
    on_trial.boot = "second"
    found = on_trial.trials.recover(on_trial.now)
    assert found.rolled_back == "its start cannot be noted: No space left on device"
    assert on_trial.versions() == ("2.0.0", "1.0.0")
    monkeypatch.undo()
    assert on_trial.trials.recover(on_trial.now).rolled_back is None
    assert on_trial.trials.journal.trial is None


def test_what_else_cannot_be_noted_does_not(two_models, monkeypatch):
    """As that another release could not be tried: what is on trial is healthy all the same."""
    site = two_models
    site.trials.healthy()
    staged = site.stage(chain("3.0.0", 3, model="other"))
    site.trials.begin({"other": staged})
    running = site.versions()
    full(monkeypatch)
    assert site.trials.recover(site.now).rolled_back is None
    assert (site.versions(), site.trials.on_trial().keys()) == (running, {MODEL})
    monkeypatch.undo()
    assert site.trials.recover(site.now).rolled_back is None
    assert site.trials.on_trial()
    assert site.trials.journal.failed[staged.sha256].interrupted == 1


@pytest.mark.parametrize("cut", ["probing", "superseding", "superseding at once"])
def test_nor_does_it_keep_what_is_on_trial_from_being_taken_back(two_models, monkeypatch, cut):
    site = two_models
    slots = {MODEL: site.stage(chain("4.0.0", 4))}
    if cut == "probing":
        site.trials.begin(slots)
    else:
        at_once = cut == "superseding at once"
        with cut_at(site.trials._slots, "switch"):
            site.trials.switch(slots, 0 if at_once else 3600, confirmed=at_once)
    full(monkeypatch)
    site.trials.recover(site.now)
    assert site.trials.on_trial().keys() == {MODEL}
    site.trials.roll_back("it is no good", site.now)
    assert runs(site) == {MODEL: "2.0.0", "other": "2.0.0"}


@pytest.mark.parametrize("cut", ["probing", "switching"])
def test_what_was_fetched_outlives_a_cut_and_a_full_disk(site, monkeypatch, cut):
    """It was never on trial: it is not what fills the disk."""
    slots = {MODEL: site.stage(THREE)}
    if cut == "probing":
        site.trials.begin(slots)
    else:
        with cut_at(site.trials._slots, "switch"):
            site.trials.switch(slots, 3600, confirmed=False)
    full(monkeypatch)
    assert site.trials.recover(site.now).rolled_back is None
    assert site.trials.kept() == (site.slots.installed(),)
    assert site.slots.directory(MODEL, slots[MODEL]).is_dir()
    monkeypatch.undo()
    site.trials.recover(site.now)
    assert (site.trials.journal.trial, site.trials.journal.probing) == (None, {})
    assert (slots[MODEL].sha256 in site.trials.journal.failed) == (cut == "probing")


def test_a_trial_that_is_over_makes_room_for_saying_so(on_trial, monkeypatch):
    """What did not work may be what fills the disk, and who went back was killed just then."""
    site = on_trial
    site.trials.healthy()
    place = site.slots.directory(MODEL, site.slots.installed().active[MODEL])
    full(monkeypatch, room=lambda: not place.exists())
    with cut_at(site.trials._slots, "retire"):
        site.trials.roll_back("it fills the disk", site.now)
    assert place.exists()
    site.trials.recover(site.now)
    assert site.trials.journal.trial is None
    assert site.versions() == ("2.0.0", "1.0.0")
    assert site.leftovers() == []


def test_a_void_pin_that_could_not_be_noted_does_not_come_to_hold(site, monkeypatch):
    """Room comes in the midst of an update, which would make the generation that it waits for."""
    with cut_at(site.trials._slots, "switch"):
        site.trials.go_back(site.slots.installed().previous, "by the operator")
    with monkeypatch.context() as patch:
        full(patch)
        site.trials.recover(site.now)
    site.commit({MODEL: site.stage(THREE)})
    assert site.versions() == ("3.0.0", "2.0.0")
    assert not site.trials.journal.pins


def test_so_it_does_not_where_nothing_ran_before(tmp_path, monkeypatch):
    site = Site(tmp_path / "state")
    site.try_out(ONE, soak=HOUR)
    full(monkeypatch)
    site.boot = "second"
    with pytest.raises(OSError, match="No space left"):
        site.trials.recover(site.now)
    assert site.versions() == ("1.0.0", None)


def test_a_full_disk_can_be_left_again_and_again(site, monkeypatch):
    for _ in range(3):
        site.try_out(THREE, soak=HOUR)
        full(monkeypatch)
        site.trials.roll_back("it filled the disk", site.now)
        monkeypatch.undo()
        assert site.versions() == ("2.0.0", "1.0.0")


def full(monkeypatch: pytest.MonkeyPatch, room: Callable[[], bool] = lambda: False) -> None:
    """Let nothing more be made on the disk until something makes room."""

    def wrapped(real):
        def call(*arguments):
            if not room():
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return real(*arguments)

        return call

    for name in ("create", "symlink", "make_directory"):
        monkeypatch.setattr(syscalls, name, wrapped(getattr(syscalls, name)))


@contextlib.contextmanager
def cut_at(place: object, name: str) -> Iterator[None]:
    """Let the power go when something is called."""

    def cut(*_: object) -> None:
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(place, name, cut)
        with pytest.raises(KeyboardInterrupt):
            yield


def test_recovery_in_the_same_boot_counts_no_start(on_trial):
    for _ in range(3 * MAX_STARTS):
        on_trial.trials.recover(on_trial.now)
    assert on_trial.trials.journal.trial.starts == 0


def left(site: Site) -> timedelta:
    return site.trials.until(site.now) - site.now


@pytest.mark.parametrize("jump", [timedelta(days=-365), 3 * HOUR, timedelta(days=365)])
def test_a_clock_that_is_set_neither_ends_nor_prolongs_a_soak(on_trial, jump):
    on_trial.now += jump
    assert left(on_trial) == HOUR
    later(on_trial, HOUR / 4)
    on_trial.trials.healthy()
    on_trial.now -= 2 * jump
    assert left(on_trial) == HOUR * 3 / 4
    later(on_trial, HOUR)
    assert left(on_trial) == timedelta()


@pytest.mark.parametrize("boot_id", ["", "+"])
def test_a_soak_goes_on_over_boots(on_trial, boot_id):
    """But not what a boot ran after its last check, nor the day for which the device was off."""
    later(on_trial, HOUR / 4)
    on_trial.trials.healthy()
    later(on_trial, HOUR / 4)
    on_trial.now += timedelta(days=1)
    on_trial.boot += boot_id  # not every system tells its boots apart
    on_trial.uptime = 60
    on_trial.trials.recover(on_trial.now)
    assert left(on_trial) == HOUR * 3 / 4


def test_a_soak_that_ends_unjudged_is_not_confirmed(on_trial):
    """It ends during a long fetch, say: the next run judges it before it is confirmed."""
    later(on_trial, HOUR)
    assert not activate.may_commit(on_trial.device, {})
    on_trial.trials.healthy()
    assert activate.may_commit(on_trial.device, {})


def test_a_release_that_joins_a_trial_soaks_in_full_and_shortens_no_other(on_trial):
    later(on_trial, HOUR / 4)
    on_trial.try_out(OTHER, soak=HOUR)
    assert left(on_trial) == HOUR
    later(on_trial, HOUR / 4)
    on_trial.try_out(OTHER_TWO, soak=HOUR / 4)
    assert left(on_trial) == HOUR * 3 / 4


def test_a_staged_release_that_fails_is_dropped(site):
    staged = {MODEL: site.stage(THREE)}
    site.trials.begin(staged)
    site.trials.fail(staged, "golden outputs differ", site.now)
    assert site.versions() == ("2.0.0", "1.0.0")
    assert site.leftovers() == []
    assert staged[MODEL].sha256 in site.trials.journal.failed


def test_so_it_is_on_a_disk_that_it_fills_and_remembered(site, monkeypatch):
    staged = {MODEL: site.stage(THREE)}
    place = site.slots.directory(MODEL, staged[MODEL])
    site.trials.begin(staged)
    full(monkeypatch, room=lambda: not place.exists())
    site.trials.fail(staged, "golden outputs differ", site.now)
    assert site.leftovers() == []
    assert site.trials.recover(site.now).notes == ()
    assert site.trials.journal.failed[staged[MODEL].sha256].reason == "golden outputs differ"


def test_so_it_is_where_even_then_nothing_can_be_noted(site, monkeypatch):
    staged = {MODEL: site.stage(THREE)}
    site.trials.begin(staged)
    full(monkeypatch)
    with pytest.raises(OSError, match="No space left"):
        site.trials.fail(staged, "golden outputs differ", site.now)
    assert site.leftovers() == []


def test_a_release_that_stops_the_device_is_given_up(site):
    for count in range(1, MAX_INTERRUPTED + 1):
        staged = {MODEL: site.stage(THREE)}
        site.trials.begin(staged)
        assert "stopped while it tried" in site.trials.recover(site.now).notes[0]  # the power went
        failure = site.trials.journal.failed[staged[MODEL].sha256]
        assert failure.blocks(site.now) == (count == MAX_INTERRUPTED)
    assert failure.reason == f"the device stopped {MAX_INTERRUPTED} times while it was tried"


def test_back_off_doubles_up_to_a_day_and_ends(site):
    staged = {MODEL: site.stage(THREE)}
    waits = []
    for _ in range(MAX_TRIES):
        site.trials.fail(staged, "no good", site.now)
        failure = site.trials.journal.failed[staged[MODEL].sha256]
        waits.append(failure.wait)
        assert failure.blocks(site.now)
        if failure.wait:
            assert failure.blocks(site.now + failure.wait - timedelta(seconds=1))
            assert not failure.blocks(site.now + failure.wait)
            assert not failure.blocks(site.now - failure.wait)  # the clock was wrong
    assert waits == [FIRST_WAIT * 2**n for n in range(MAX_TRIES - 1)] + [None]
    assert max(wait for wait in waits if wait) <= LONGEST_WAIT
    assert failure.blocks(site.now + timedelta(days=9999))


def test_a_release_that_works_at_last_is_forgiven(site):
    staged = {MODEL: site.stage(THREE)}
    site.trials.fail(staged, "no good", site.now)
    site.install(THREE)
    assert not site.trials.journal.failed


def test_going_back_by_the_operators_word(site):
    previous = site.slots.installed().previous[MODEL]
    site.trials.go_back({MODEL: previous}, "by the operator")
    assert site.versions() == ("1.0.0", "2.0.0")
    assert site.trials.journal.pins[MODEL].slot == previous
    assert site.device.floors.load().releases == {MODEL: 2}
    assert site.problems() == site.leftovers() == []
    site.trials.recover(site.now)
    assert site.trials.journal.pins
    site.trials.unpin([MODEL])
    assert not site.trials.journal.pins


def test_a_pin_of_a_switch_that_never_was_is_void(site, monkeypatch):
    def cut(number):
        raise KeyboardInterrupt

    monkeypatch.setattr(site.trials._slots, "switch", cut)
    with pytest.raises(KeyboardInterrupt):
        site.trials.go_back(site.slots.installed().previous, "by the operator")
    monkeypatch.undo()
    site.trials.recover(site.now)
    assert site.versions() == ("2.0.0", "1.0.0")
    assert not site.trials.journal.pins


@pytest.mark.parametrize("content", [b"", b"{}", b"\0" * 300])
def test_a_damaged_journal_is_set_aside(on_trial, content):
    (on_trial.state / "journal").write_bytes(content)
    assert "was damaged" in on_trial.trials.recover(on_trial.now).notes[0]
    assert on_trial.versions() == ("3.0.0", "2.0.0")
    assert (on_trial.state / "journal.damaged").read_bytes() == content
    assert on_trial.device.floors.load().releases == {MODEL: 3}  # the trial counts as confirmed
    assert on_trial.trials.recover(on_trial.now).notes == ()
    on_trial.install(chain("4.0.0", 4))
    assert on_trial.versions() == ("4.0.0", "3.0.0")
    assert on_trial.leftovers() == []


def test_a_trial_whose_journal_is_gone_counts_as_confirmed(on_trial):
    (on_trial.state / "journal").unlink()
    on_trial.trials.recover(on_trial.now)
    assert on_trial.device.floors.load().releases == {MODEL: 3}


def test_a_lost_journal_does_not_undo_a_reset(site):
    reset = FloorsReset("r", {MODEL: 1})
    site.device.floors.save(site.device.floors.load().lowered_by(reset))
    (site.state / "journal").write_bytes(b"{}")
    site.trials.recover(site.now)
    assert site.device.floors.load().releases == {MODEL: 1}


@pytest.mark.parametrize("number", [errno.EIO, errno.EMFILE, errno.EACCES])
def test_a_journal_that_cannot_be_read_is_left_alone(on_trial, monkeypatch, number):
    before = on_trial.tree()
    cannot_read(monkeypatch, number, "journal")
    for act in (on_trial.trials.recover, lambda _: on_trial.trials.commit()):
        with pytest.raises(Unavailable, match="journal cannot be read") as caught:
            act(on_trial.now)
        assert caught.value.gate is Gate.RECOVER
    monkeypatch.undo()
    assert on_trial.tree() == before
    on_trial.trials.recover(on_trial.now)
    assert on_trial.trials.on_trial()


@pytest.mark.parametrize("before", ["switching", "closing"])
def test_who_finishes_going_back_tells_of_it(on_trial, before):
    """Whoever began to may not have lived to."""
    site = on_trial
    site.trials.fail({"other": site.stage(OTHER)}, "another reason", site.now - HOUR)
    switching = (site.trials._slots, "switch")
    with cut_at(*(switching if before == "switching" else (site.trials, "_save"))):
        site.trials.roll_back("it is no good", site.now)
    found = site.trials.recover(site.now)
    assert found.notes == ("finished going back, which was interrupted",)
    assert found.rolled_back == "it is no good"
    assert site.versions() == ("2.0.0", "1.0.0")
    assert site.trials.recover(site.now).rolled_back is None


def test_going_back_is_done_though_its_end_cannot_be_noted(on_trial, monkeypatch):
    site, save = on_trial, on_trial.trials._journals.save

    def fills_up(journal) -> None:
        save(journal)
        full(monkeypatch)

    monkeypatch.setattr(site.trials._journals, "save", fills_up)
    assert site.trials.roll_back("it is no good", site.now, pin=True).active[MODEL].counter == 2
    assert site.versions() == ("2.0.0", "1.0.0")
    for _ in range(2):  # a disk that stays full does not end one update after the other
        assert site.trials.recover(site.now).rolled_back is None
        assert site.trials.journal.trial is None
    monkeypatch.undo()
    site.trials.recover(site.now)
    assert site.trials.journal.trial is None
    assert [pin.slot.version for pin in site.trials.journal.pins.values()] == ["2.0.0"]
    assert site.problems() == site.leftovers() == []


@pytest.mark.parametrize("phase", Phase)
def test_whatever_was_interrupted_is_finished_or_undone(on_trial, phase):
    """Twice is once; the journal is closed unless the trial goes on."""
    journal = on_trial.trials.journal
    on_trial.trials._journals.save(replace(journal, trial=replace(journal.trial, phase=phase)))
    on_trial.trials.recover(on_trial.now)
    once = on_trial.tree()
    on_trial.trials.recover(on_trial.now)
    assert on_trial.tree() == once
    runs, counter = {Phase.RETURNING: ("2.0.0", 2), Phase.COMMITTING: ("3.0.0", 3)}.get(
        phase, ("3.0.0", 2)
    )
    assert on_trial.versions()[0] == runs
    assert on_trial.device.floors.load().releases == {MODEL: counter}
    assert (on_trial.trials.journal.trial is None) == (phase is not Phase.TRIAL)


def test_a_trial_goes_back_to_no_mixture_that_nobody_approved(tmp_path):
    """What is revoked runs again if another model was approved with nothing else."""
    site = Site(tmp_path / "state")
    site.install(ONE)
    site.install(TWO)
    needs_two = replace(OTHER.release, requires=Requirements(components=((MODEL, "2.0.0"),)))
    site.bring(OTHER)
    staged = site.slots.stage(needs_two, needs_two.to_bytes(), documents(OTHER))
    site.commit({"other": staged})
    revoked = {site.slots.installed().active[MODEL].sha256}
    for good in ("2.0.0", "1.0.0"):
        site.trials.switch({MODEL: site.stage(THREE)}, 3600, confirmed=False, revoked=revoked)
        site.trials.roll_back("no good", site.now)
        assert site.versions()[0] == good
        site.install(OTHER_TWO)  # which needs nothing


@pytest.mark.parametrize("stopped", ["killed", "without power"])
def test_soak_goes_on_after_a_cut_before_what_supersedes(on_trial: Site, stopped: str) -> None:
    site = on_trial
    site.trials.healthy()
    good = site.slots.generation(site.trials.journal.trial.good).active
    with cut_at(site.trials._slots, "switch"):
        site.trials.switch({}, 0, confirmed=True, kept=dict(good))
    if stopped == "killed":
        site.trials.recover(site.now)
    else:
        reboot(site)
    trial = site.trials.look()
    assert trial is not None
    assert (trial.phase, trial.left) == (Phase.TRIAL, 3600)


def test_going_back_is_told_with_its_own_reason(on_trial: Site) -> None:
    """Another release failed, under a clock that was years ahead."""
    site = on_trial
    other = {"other": site.stage(OTHER)}
    site.trials.fail(other, "golden outputs differ", site.now + timedelta(days=1500))
    with cut_at(site.trials._slots, "switch"):
        site.trials.roll_back("the command says no", site.now)
    assert site.trials.recover(site.now).rolled_back == "the command says no"
