"""Folders that the disk has lost, and disks that die: nothing else is held up; root only."""

import shutil
from pathlib import Path

import pytest

from modelward import local, restore
from modelward.errors import ExitCode, Gate, Unavailable
from tests.crash import volume
from tests.install.site import MODEL, Site, chain, documents
from tests.simulator.world import World

HAD_AGAIN = ("seals", "targets", "tuf", "tuf/root_history", "store", "store/.partial")
SET_ASIDE = ("alarms", "reports")
ONE, TWO, THREE, FOUR = (chain(f"{number}.0.0", number) for number in range(1, 5))


@pytest.fixture
def image(tmp_path: Path) -> Path:
    """An empty ext4."""
    return new("ext4", tmp_path)


def new(name: str, folder: Path) -> Path:
    """Make an image of a file system, where that is possible."""
    reason = volume.missing(name)
    if reason:
        pytest.skip(f"{name}: {reason}")
    volume.make(name, folder / "image")
    return folder / "image"


def installed(mount: Path) -> Site:
    """Return a new device that runs 2.0.0 and keeps 1.0.0, with all folders that one may have."""
    site = Site(mount / "state")
    site.install(ONE)
    site.install(TWO)
    for name in (*HAD_AGAIN, *SET_ASIDE, "evidence"):
        (site.state / name).mkdir(exist_ok=True)
    return site


@pytest.mark.parametrize("inner", ["", "files", "files/a/b"])
@pytest.mark.parametrize("whose", ["kept", "running"])
def test_a_release_of_which_a_folder_is_lost_holds_up_nothing(
    tmp_path: Path, image: Path, whose: str, inner: str
) -> None:
    with volume.mounted(image, tmp_path / "mount") as mount:
        site = installed(mount)
        here = site.slots.installed()
        slot = (here.previous if whose == "kept" else here.active)[MODEL]
        lost = site.slots.directory(MODEL, slot).relative_to(mount) / inner
    volume.lose_folder(image, f"/{lost}")
    with volume.mounted(image, tmp_path / "mount") as mount:
        site = Site(mount / "state")
        if whose == "running":
            site.slots.rebuild(TWO.release, TWO.release.to_bytes(), documents(TWO))
            assert not site.problems()
        site.install(THREE)  # whose collecting, and gate 1, meet what cannot be removed
        site.install(FOUR)
        local.collect(site.device, dry_run=False)
        local.roll_back(site.device, (), lambda *_: None)
        assert site.versions() == ("3.0.0", "4.0.0")
        assert not site.problems()


@pytest.mark.parametrize("name", [*HAD_AGAIN, *SET_ASIDE])
def test_a_folder_that_is_lost_is_made_anew(tmp_path: Path, image: Path, name: str) -> None:
    with volume.mounted(image, tmp_path / "mount") as mount:
        installed(mount)
    volume.lose_folder(image, f"/state/{name}")
    with volume.mounted(image, tmp_path / "mount") as mount:
        site = Site(mount / "state")
        assert "cannot be read: Bad message" in restore.notes(site.device)[name]
        assert not any(restore.notes(site.device).values())
        assert (site.state / f"{name}.damaged").exists() == (name in SET_ASIDE)
        site.install(THREE)
        assert site.versions() == ("3.0.0", "2.0.0")
        assert not site.problems()


def test_evidence_that_is_lost_is_not_forgotten(tmp_path: Path, image: Path) -> None:
    with volume.mounted(image, tmp_path / "mount") as mount:
        installed(mount)
    volume.lose_folder(image, "/state/evidence")
    with volume.mounted(image, tmp_path / "mount") as mount:
        site = Site(mount / "state")
        assert not any(restore.notes(site.device).values())
        with pytest.raises(Unavailable, match="evidence cannot be read") as refused:
            site.device.log.evidence()
        assert refused.value.gate is Gate.LOG


@pytest.mark.parametrize("name", ["slots", f"slots/{MODEL}", "generations"])
def test_what_runs_is_repaired_where_its_folder_is_lost(
    world: World, tmp_path: Path, image: Path, name: str
) -> None:
    with volume.mounted(image, tmp_path / "mount") as mount:
        shutil.copytree(world.device, mount / "device", symlinks=True)
        shutil.rmtree(world.device)
        world.device.symlink_to(mount / "device")
        world.publish("1.1.0")
        with world.serve() as server:
            assert world.client_here("update", server).code == ExitCode.DONE
    volume.lose_folder(image, f"/device/{name}")
    with volume.mounted(image, tmp_path / "mount") as mount, world.serve() as server:
        if "/" not in name:
            for command in (("update", server), ("rollback",)):
                done = world.client_here(*command)
                assert (done.code, done.json["gate"]) == (ExitCode.UNAVAILABLE, "recover")
                assert "run `modelward verify --repair`" in done.json["advice"]
        done = world.client("verify", None, "--repair", MODELWARD_REPOSITORY=server.url)
        assert (done.code, done.json["fetched"]) == (ExitCode.DONE, 0), done
        assert world.client_here("update", server).json["running"] == {MODEL: "1.1.0"}
        assert world.client_here("rollback").code == ExitCode.DONE
        assert world.read_model()[0] == "1.0.0"


@pytest.mark.parametrize("name", ["store", "tuf"])
@pytest.mark.parametrize("fate", ["dies", "is away", "is mounted and dies"])
def test_going_back_needs_no_other_disk(world: World, tmp_path: Path, name: str, fate: str) -> None:
    works, place = tmp_path / "works", world.device / name
    works.touch()
    file = world.device / "modelward.toml"
    file.open("a").write(f'[health]\nsoak = "1h"\ncommand = ["test", "-e", "{works}"]\n')
    disk = place if fate == "is mounted and dies" else tmp_path / "mount"
    place.rename(tmp_path / name)
    with volume.mounted(new("xfs", tmp_path), disk) as mount:
        there = mount if mount == place else mount / name
        shutil.copytree(tmp_path / name, there, symlinks=True, dirs_exist_ok=True)
        if there != place:
            place.symlink_to(there)
        world.publish("1.1.0")
        with world.serve() as server:
            assert world.client_here("update", server).json["running"] == {MODEL: "1.1.0"}
            if fate == "is away":
                place.unlink()
                place.symlink_to(tmp_path / "nowhere")
            else:
                volume.cut_power(mount, volume.JOURNAL_FLUSHED)
            works.unlink()
            done = world.client_here("update", server)
            assert (done.code, done.json["gate"]) == (ExitCode.ROLLED_BACK, "health"), done
            assert world.read_model()[0] == "1.0.0"
            done = world.client_here("update", server)
            code = ExitCode.REFUSED if fate == "is away" else ExitCode.UNAVAILABLE
            assert (done.code, done.json["gate"]) == (code, "recover"), done
            assert f"{place} " in done.json["reason"]
