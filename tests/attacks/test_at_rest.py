"""Row 29: what runs is tampered with where it lies, or swapped between the check and the load."""

import mmap
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pytest

import modelward
from modelward.errors import ExitCode, Refused
from modelward.install import verified
from tests.simulator.folders import gone_after, nest

ROW = 29
pytestmark = pytest.mark.attack(ROW)
MODEL = "model.onnx"
TICK = 0.05  # seconds: longer than between two times that the kernel's clock tells


def overwrite(path: Path) -> None:
    """Write poison of the same length into a file: into every name that it has."""
    path.chmod(0o600)
    path.write_bytes(b"P" * path.stat().st_size)


def overwrite_and_hide(path: Path) -> None:
    """Do so and set its times back."""
    before = path.stat()
    overwrite(path)
    path.chmod(0o444)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def aside(path: Path) -> Path:
    """Move something out of the slot, to where an attacker keeps it."""
    place = path.parents[4] / f"attacker-{path.name}"
    path.rename(place)
    return place


def link_back(path: Path) -> None:
    """Put a link to the very same thing in its place: it can be swapped later."""
    path.symlink_to(aside(path))


def other_slot(files: Path) -> Path:
    """Return the files of the version before."""
    (found,) = (path for path in files.parent.parent.iterdir() if path != files.parent)
    return found / "files"


CASES: dict[str, tuple[Callable[[Path], object], str]] = {
    "a file is overwritten": (lambda files: overwrite(files / MODEL), "not the file that"),
    "its times are set back": (
        lambda files: overwrite_and_hide(files / MODEL), "not the file that",
    ),
    "the blob in the store that it is a hard link to is overwritten": (
        lambda files: overwrite(_in_store(files / MODEL)), "not the file that",
    ),
    "a file is replaced by that of the version before": (
        lambda files: ((files / MODEL).unlink(), shutil.copy(other_slot(files) / MODEL, files)),
        "not the file that",
    ),
    "a file grows": (lambda files: _append(files / MODEL), "bytes long"),
    "a file is removed": (lambda files: (files / MODEL).unlink(), "No such file"),
    "a file becomes a link": (lambda files: link_back(files / MODEL), "symbolic links"),
    "a file becomes a pipe": (
        lambda files: ((files / MODEL).unlink(), os.mkfifo(files / MODEL)), "regular file",
    ),
    "a file becomes a folder": (
        lambda files: ((files / MODEL).unlink(), (files / MODEL).mkdir()), "regular file",
    ),
    "the folder of the files becomes a link": (link_back, "Not a directory"),
    "the slot becomes a link": (lambda files: link_back(files.parent), "Not a directory"),
    "the slot becomes that of the version before": (
        lambda files: (aside(files.parent), shutil.copytree(other_slot_of(files), files.parent)),
        "not the document",
    ),
    "the list of files is rewritten": (
        lambda files: overwrite(files.parent / "release.json"), "not the document",
    ),
    "the list of files becomes a pipe": (
        lambda files: (
            (files.parent / "release.json").unlink(), os.mkfifo(files.parent / "release.json"),
        ),
        "regular file",
    ),
}  # fmt: skip


def _in_store(path: Path) -> Path:
    store = path.parents[4] / "store"
    (found,) = (each for each in store.glob("*") if each.samefile(path))
    return found


def _append(path: Path) -> None:
    path.chmod(0o600)
    with path.open("ab") as file:
        file.write(b"poison")


def other_slot_of(files: Path) -> Path:
    """Return the slot of the version before, when that which runs was moved away."""
    (found,) = files.parent.parent.iterdir()
    return found


@pytest.mark.parametrize("case", CASES)
def test_tampered_at_rest(scene, case):
    """Tampered at rest"""
    tamper, reason = CASES[case]
    scene.falls_back_when(tamper, reason)


def test_tampered_after_it_was_found_intact(scene):
    """Tampered at rest, after it was opened and found intact"""

    def tamper(files: Path) -> None:
        modelward.open_model("meter-reader", scene.world.device, strict=True).close()
        overwrite_and_hide(files / MODEL)

    scene.falls_back_when(tamper, "not the file that")


def test_mapped_before_it_was_found_intact(scene, monkeypatch):
    """Tampered at rest, through a map whose page was dirty when it was found intact"""
    monkeypatch.setattr(verified, "SETTLED", 0)

    def tamper(files: Path) -> None:
        path = files / MODEL
        path.chmod(0o600)
        with path.open("r+b") as file, mmap.mmap(file.fileno(), 0) as page:
            path.chmod(0o444)
            page[0] = page[0]
            time.sleep(TICK)
            modelward.open_model("meter-reader", scene.world.device).close()
            time.sleep(TICK)
            page[0] ^= 0xFF

    scene.falls_back_when(tamper, "not the file that")


def test_swapped_between_check_and_load(scene):
    """Swapped between check and load: another file, slot and pointer while it is open"""
    scene.world.publish("1.1.0")
    scene.everyone_updates()
    honest = scene.world.offered
    with modelward.open_model("meter-reader", scene.world.device) as model:
        files = (scene.world.device / "current/meter-reader").resolve()
        replaced = aside(files / MODEL)
        (files / MODEL).write_bytes(b"poison")
        assert model.read(MODEL) == honest[MODEL]  # the file that was checked is the one read
        link_back(files.parent)
        assert model.read(MODEL) == honest[MODEL]
        overwrite_and_hide(replaced)
        with pytest.raises(Refused, match="written to while it was open"):
            model.read(MODEL)
    with modelward.open_model("meter-reader", scene.world.device) as model:
        assert (model.version, model.fallback) == ("1.0.0", True)
    assert scene.world.client_here("status").code == 3
    scene._conclude("fell back", "11 install")


@pytest.mark.parametrize("count", [1500, 5000])
def test_folders_within_each_other(scene, count):
    """Tampered at rest: folders within each other, to exhaust whoever looks into them"""
    world = scene.world
    world.publish("1.1.0")
    scene.everyone_updates()
    files = (world.device / "current/meter-reader").resolve()
    with gone_after(world.device):
        for tampered in (files, other_slot(files)):
            nest(tampered, count)
            for options, code in (((), ExitCode.REFUSED), (("--repair",), ExitCode.DONE)):
                done = world.client_here("verify", None, *options)
                assert done.code == code, done
                (damage,) = done.json["problems" if code else "mended"]
                assert damage["problem"] == "does not belong to the release"
            assert world.client_here("verify").json["outcome"] == "intact"

        nest(other_slot(files), count)
        assert world.client_here("rollback").code == ExitCode.REFUSED
        left = world.device / "slots/meter-reader/left"
        left.mkdir()
        nest(left, count)
        assert world.client_here("gc", None, "--dry-run").code == ExitCode.DONE
        assert world.client_here("gc").code == ExitCode.DONE
        assert not left.exists()
        retired = other_slot(files)
        scene.conclude("no harm", "11 install")
        assert not retired.exists()
