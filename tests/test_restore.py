"""What ran is found again when nothing says any more what is installed; nothing good is deleted."""

import os
import shutil
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest

from modelward import restore, scan
from modelward.errors import Refused
from modelward.install import syscalls
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
