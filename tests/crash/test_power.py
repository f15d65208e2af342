"""A sample of `make crash`, and every file system a device may have: real ones, as root only."""

import contextlib
import os
import subprocess
from pathlib import Path

import pytest

from modelward.errors import UsageError
from modelward.install import fsops
from tests.crash import volume
from tests.crash.power import CUTS, Bench
from tests.crash.scenarios import HOUR, SCENARIOS, check
from tests.install.site import Site, chain

SAMPLE = 4  # points of each scenario


def need(name: str) -> None:
    reason = volume.missing(name)
    if reason:
        pytest.skip(f"{name}: {reason}")


@pytest.fixture
def memory(place, monkeypatch):
    """A directory in memory, for images; what is on them is synced as on a device."""
    monkeypatch.undo()
    return place


@pytest.mark.parametrize(
    "name", ["install", "trial fails", "rollback", "collect", "import", "repair"]
)
def test_power_cut(memory, name):
    need("ext4")
    bench = Bench("ext4", SCENARIOS[name], memory)
    points = bench.points()
    assert len(points) > 10
    for number, point in enumerate(points[len(points) // 8 :: max(1, len(points) // SAMPLE)]):
        flag = list(CUTS.values())[number % 2]
        bench.cut(point, flag, number * 3)
        bench.fail(point, ("ENOSPC", "EIO")[number % 2])
    bench.cut_at_end(volume.JOURNAL_LOST)


@pytest.mark.parametrize("name", volume.FILE_SYSTEMS)
def test_file_system(memory, name):
    need(name)
    image = memory / "image"
    volume.make(name, image)
    with volume.mounted(image, memory / "mount") as mount:
        live(mount / "state")


def test_tmpfs(memory):
    need("ext4")
    mount = memory / "mount"
    mount.mkdir()
    volume.run("mount", "-t", "tmpfs", "-o", "size=8m", "none", mount)
    try:
        live(mount / "state")
    finally:
        volume.run("umount", mount)


def test_overlayfs(memory):
    """The lower layer is the device's image: what it holds is copied up when it changes."""
    need("ext4")
    for part in ("lower", "upper", "work", "mount"):
        (memory / part).mkdir()
    Site(memory / "lower" / "state").install(chain("0.9.0", 1))
    layers = ",".join(f"{part}dir={memory / part}" for part in ("lower", "upper", "work"))
    try:
        volume.run("mount", "-t", "overlay", "-o", layers, "none", memory / "mount")
    except Exception:  # noqa: BLE001 - some kernels cannot
        pytest.skip("overlayfs cannot be mounted here")
    try:
        live(memory / "mount" / "state")
    finally:
        volume.run("umount", memory / "mount")


def live(state: Path) -> None:
    """Install, go back, fail, collect: everything a device does."""
    fsops.make_directory(state)
    fsops.check_file_system(state)
    site = Site(state)
    site.install(chain("1.0.0", 2))
    site.install(chain("2.0.0", 3))
    assert site.versions() == ("2.0.0", "1.0.0")
    site.try_out(chain("3.0.0", 4), soak=HOUR)
    site.trials.roll_back("no good", site.now)
    assert site.versions() == ("2.0.0", "1.0.0")
    site.trials.go_back(site.slots.installed().previous, "by hand")
    assert site.versions() == ("1.0.0", "2.0.0")
    site.trials.recover(site.now)
    assert not site.problems()
    assert not site.leftovers()


def test_read_only_file_system(memory):
    """It becomes read-only, as ext4 does on an error: what runs goes on running."""
    need("ext4")
    image, mount = memory / "image", memory / "mount"
    volume.make("ext4", image)
    scenario = SCENARIOS["install"]
    with volume.mounted(image, mount):
        site = Site(mount / "state")
        scenario.prepare(site)
        volume.run("mount", "-o", "remount,ro", mount)
        with pytest.raises(OSError, match="Read-only file system"):
            scenario.act(site)
        assert site.file("model.onnx").read_bytes() == b"weights of 2.0.0"
        volume.run("mount", "-o", "remount,rw", mount)
        check(site, scenario, ended=False, floor=2)


def test_small_disk(memory):
    """It is full at some point of an installation: nothing is lost, and room is all it takes."""
    need("ext4")
    mount = memory / "mount"
    mount.mkdir()
    volume.run("mount", "-t", "tmpfs", "-o", "size=2m", "none", mount)
    try:
        site = Site(mount / "state")
        site.install(chain("1.0.0", 1))
        ballast = mount / "ballast"
        with pytest.raises(OSError, match="No space left"):
            ballast.write_bytes(os.urandom(4 << 20))
        with pytest.raises(OSError, match="No space left"):
            site.install(chain("2.0.0", 2))
        assert site.versions() == ("1.0.0", None)
        assert not site.problems()
        ballast.unlink()
        site.install(chain("2.0.0", 2))
        assert site.versions() == ("2.0.0", "1.0.0")
        assert not site.leftovers()
    finally:
        volume.run("umount", mount)


def test_fat_is_refused(memory):
    """A file system without symbolic links: the kernel's driver or, where it has none, FUSE's."""
    need("ext4")
    image, mount = memory / "image", memory / "mount"
    mount.mkdir()
    with image.open("wb") as file:
        file.truncate(8 << 20)
    try:
        volume.run("mkfs.vfat", image)
        with contextlib.suppress(subprocess.CalledProcessError):
            volume.run("mount", "-o", "loop", image, mount)
        if not mount.is_mount():
            volume.run("fusefat", "-o", "rw+", image, mount)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("no FAT file system can be made or mounted here")
    try:
        with pytest.raises(UsageError, match="cannot replace a symbolic link"):
            fsops.check_file_system(mount)
        assert not [*mount.iterdir()]
    finally:
        volume.unmount(mount)
