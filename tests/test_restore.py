"""What ran is found again when nothing says any more what is installed; nothing good is deleted."""

import errno
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from modelward import intact, restore, scan
from modelward.errors import Refused, Unavailable
from modelward.formats.journal import Phase
from modelward.install import fsops, syscalls
from modelward.install.opened import Folder
from modelward.install.slots import Installed
from tests.install.site import MODEL, Site, chain

ONE, TWO, THREE = (chain(f"{number}.0.0", number) for number in (1, 2, 3))
HOUR = timedelta(hours=1)


@pytest.fixture
def site(tmp_path: Path) -> Site:
    """A device that runs 2.0.0 and keeps 1.0.0."""
    site = Site(tmp_path / "state")
    site.install(ONE)
    site.install(TWO)
    return site


def lose(site: Site) -> None:
    (site.state / "current").unlink()


def lose_floors(site: Site) -> None:
    for name in ("floors.a", "floors.b"):
        (site.state / name).unlink()


def put_folder(site: Site) -> None:
    lose(site)
    (site.state / "current").mkdir()


def go_back(site: Site) -> None:
    site.trials.go_back(site.slots.installed().previous, "by hand")


def try_out(site: Site) -> None:
    site.try_out(THREE, soak=HOUR)


@pytest.mark.parametrize("before", [lambda _: None, go_back, try_out])
@pytest.mark.parametrize("damage", [lose, put_folder])
@pytest.mark.parametrize("further", [lambda _: None, lose_floors])
def test_the_pointer_is_put_back(
    site: Site,
    before: Callable[[Site], None],
    damage: Callable[[Site], None],
    further: Callable[[Site], None],
) -> None:
    before(site)
    was, journal, on_trial = site.slots.installed(), site.trials.journal, site.trials.on_trial()
    damage(site)
    further(site)
    tree = site.tree()
    for touch in (
        site.slots.installed,
        site.slots.sweep,
        site.trials.collect,
        lambda: site.trials.recover(site.now),
    ):
        with pytest.raises(Refused, match="is missing"):
            touch()
    assert site.tree() == tree
    assert "is missing" in (restore.current(site.device) or "")
    assert not site.trials.recover(site.now).notes
    assert (site.slots.installed(), site.trials.journal) == (was, journal)
    assert site.trials.on_trial() == on_trial
    assert not site.problems()
    assert restore.current(site.device) is None


def test_a_pointer_that_is_a_folder_is_replaced_in_one_step(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_folder(site)
    there = []
    for name in ("exchange", "rename", "unlink", "remove_directory"):
        real = getattr(syscalls, name)

        def call(*arguments, real=real):
            real(*arguments)
            there.append(os.path.lexists(site.state / "current"))

        monkeypatch.setattr(syscalls, name, call)
    restore.current(site.device)
    assert site.versions() == ("2.0.0", "1.0.0")
    assert there
    assert all(there)
    assert not site.leftovers()


def test_what_ran_is_told_from_slots_if_generations_are_gone_too(site: Site) -> None:
    shutil.rmtree(site.state / "generations")
    lose(site)
    with pytest.raises(Refused, match="is missing"):
        site.trials.recover(site.now)
    assert restore.current(site.device)
    assert site.versions() == ("2.0.0", "1.0.0")


@pytest.mark.parametrize("phase", Phase)
def test_a_trial_is_forgotten_if_generations_are_gone(site: Site, phase: Phase) -> None:
    try_out(site)
    journal = site.trials.journal
    site.trials._journals.save(replace(journal, trial=replace(journal.trial, phase=phase)))
    shutil.rmtree(site.state / "generations")
    restore.notes(site.device)
    site.trials.recover(site.now)
    assert site.versions() == ("2.0.0", "1.0.0")
    assert site.trials.journal.trial is None
    assert not site.problems()
    try_out(site)
    assert site.versions() == ("3.0.0", "2.0.0")
    assert site.trials.roll_back("no good", site.now).active[MODEL].version == "2.0.0"


def test_where_nothing_is_left_releases_are_installed_anew(site: Site) -> None:
    for name in ("slots", "generations"):
        shutil.rmtree(site.state / name)
    lose(site)
    assert restore.current(site.device) is None
    assert site.install(TWO).active[MODEL].version == "2.0.0"
    assert site.device.floors.load().releases == {MODEL: 2}


def test_what_is_left_of_a_first_installation_is_not_taken_for_what_ran(tmp_path: Path) -> None:
    site = Site(tmp_path / "state")
    slot = site.stage(ONE)
    assert restore.current(site.device) is None
    site.trials.begin({MODEL: slot})
    site.slots.prepare(Installed(1, {MODEL: slot}))
    assert restore.current(site.device) is None
    site.trials.switch({MODEL: slot}, 3600, confirmed=False)
    lose(site)
    assert restore.current(site.device) is None
    site.trials.recover(site.now)
    assert site.install(ONE).number == 1


def zero(note: Path) -> None:
    size = note.stat().st_size
    note.chmod(0o644)
    note.write_bytes(bytes(size))


@pytest.mark.parametrize("damage", [zero, Path.unlink, lambda note: shutil.rmtree(note.parent)])
def test_the_note_of_what_a_trial_goes_back_to_is_written_anew(
    site: Site, damage: Callable[[Path], None]
) -> None:
    other = chain("7.0.0", 7, model="other")
    site.install(other)
    was = site.slots.installed()
    try_out(site)
    now = site.slots.installed()
    note = site.state / f"generations/{was.number}/installed.json"
    damage(note)
    (found,) = (each for each in scan.scan(site.device, (), lambda *_: None).damage
                if each.part is scan.Part.GENERATION)  # fmt: skip
    assert found.path == f"generations/{was.number}"
    assert "\\n" not in found.problem
    assert [*restore.notes(site.device)] == [found.path]
    assert site.slots.generation(was.number) == was
    assert site.slots.installed() == now
    site.trials.recover(site.now)
    assert site.trials.roll_back("no good", site.now) == was
    assert not site.problems()


@pytest.mark.parametrize("damage", [zero, Path.unlink, lambda note: shutil.rmtree(note.parent)])
@pytest.mark.parametrize("kept", [False, True])
def test_so_it_is_if_it_is_revoked(
    tmp_path: Path, damage: Callable[[Path], None], kept: bool
) -> None:
    site = Site(tmp_path / "state")
    for item in (ONE, TWO) if kept else (TWO,):
        site.install(item)
    revoked = {site.slots.installed().active[MODEL].sha256}
    site.trials.switch({MODEL: site.stage(THREE)}, 3600, confirmed=False, revoked=revoked)
    site.trials.collect()
    good = site.slots.generation(site.trials.journal.trial.good)
    damage(site.state / f"generations/{good.number}/installed.json")
    restore.notes(site.device)
    site.trials.recover(site.now)
    assert site.versions() == ("3.0.0", "1.0.0" if kept else None)
    assert site.trials.roll_back("no good", site.now) == good
    assert site.versions() == ("1.0.0" if kept else "2.0.0", None)
    assert not site.problems()


@pytest.mark.parametrize(
    "name", ["generations", "slots", "store", "tuf", "store/.partial", "reports", "seals"]
)
def test_a_file_in_the_place_of_a_folder_is_set_aside(site: Site, name: str) -> None:
    place = site.state / name
    shutil.rmtree(place, ignore_errors=True)
    place.write_bytes(b"what?")
    aside = place.with_name(f"{place.name}.damaged")
    if name == "generations":  # told from slots, whose proof a bare site has no root for
        assert name in restore.folders(site.device)
    else:
        assert "was no folder" in restore.notes(site.device)[name]
    assert aside.read_bytes() == b"what?"
    assert not restore.folders(site.device)
    if name not in {"generations", "slots"}:
        site.trials.recover(site.now)
        site.install(THREE)
        assert site.versions() == ("3.0.0", "2.0.0")


def test_a_folder_that_is_elsewhere_and_away_is_not_made_anew(site: Site, tmp_path: Path) -> None:
    place = site.state / "store"
    place.rename(tmp_path / "disk")
    place.symlink_to(tmp_path / "disk")
    assert not restore.notes(site.device)
    (tmp_path / "disk").rename(tmp_path / "away")
    tree = site.tree()
    with pytest.raises(Refused, match="is a link to") as refused:
        restore.notes(site.device)
    assert "mount what it leads to" in refused.value.advice
    assert site.tree() == tree


@pytest.mark.parametrize("name", ["journal", "floors.a", "floors.b"])
@pytest.mark.parametrize("what", ["folder", "link", "pipe"])
def test_what_is_no_file_is_damage(site: Site, name: str, what: str) -> None:
    floors = site.device.floors.load()
    place = site.state / name
    place.unlink()
    if what == "link":
        place.symlink_to(name)
    elif what == "pipe":  # which nobody writes to
        os.mkfifo(place)
    else:
        place.mkdir()
        (place / "inner").write_bytes(b"somebody's")
    site.trials.recover(site.now)
    assert site.device.floors.load() == floors
    assert what != "folder" or (site.state / f"{name}.damaged/inner").read_bytes() == b"somebody's"
    site.install(THREE)
    assert place.is_file()
    assert not place.is_symlink()
    assert site.versions() == ("3.0.0", "2.0.0")


@pytest.mark.parametrize("name", ["timestamp.json", "root.json", "root_history/2.root.json"])
@pytest.mark.parametrize("what", ["pipe", "endless", "huge"])
def test_what_is_no_metadata_is_removed(site: Site, name: str, what: str) -> None:
    """Nobody waits for a pipe, with the device's lock in hand, nor reads what has no end."""
    place = site.state / "tuf" / name
    place.parent.mkdir(exist_ok=True)
    if what == "pipe":
        os.mkfifo(place)
    elif what == "endless":
        place.symlink_to("/dev/zero")
    else:
        place.touch()
        os.truncate(place, 1 << 40)
    assert "was no metadata" in restore.notes(site.device)[f"tuf/{name}"]
    assert not os.path.lexists(place)
    assert not restore.notes(site.device)


def test_a_lock_that_is_no_file_is_named(site: Site) -> None:
    (site.state / "lock").mkdir()
    with (
        pytest.raises(Unavailable, match="lock is no file") as error,
        fsops.lock(site.state / "lock"),
    ):
        pass
    assert error.value.advice == "move it away"


@pytest.mark.parametrize("number", [errno.ENFILE, errno.ENOMEM])
def test_a_device_short_of_files_or_memory_finds_nothing_damaged(
    site: Site, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    real = Folder.open

    def open_(folder: Folder, path: str) -> int:
        if path.endswith("model.onnx"):
            raise OSError(number, os.strerror(number))
        return real(folder, path)

    monkeypatch.setattr(Folder, "open", open_)
    with pytest.raises(Unavailable, match="cannot be read now"):
        scan.scan(site.device, (), lambda *_: None)
    with pytest.raises(Unavailable, match="cannot be read now"):
        intact.changed(site.device, site.slots.installed().active, lambda *_: None)
    assert not site.device.alarms.pending()
