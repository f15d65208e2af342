"""Slots, generations and the one switch: old or new, never neither."""

import errno
import os
import shutil
import time
from dataclasses import replace
from pathlib import Path

import pytest

from modelward import intact
from modelward.errors import Gate, Refused
from modelward.formats.policy import HealthGate
from modelward.install import syscalls
from modelward.install.opened import Folder, open_file
from modelward.install.slots import Installed, Slot
from tests.install.site import MODEL, Site, chain, documents
from tests.watching import open_files

ONE, TWO, THREE, FOUR = (chain(f"{number}.0.0", number) for number in (1, 2, 3, 4))
OTHER = chain("7.0.0", 7, model="other")


@pytest.fixture
def site(tmp_path) -> Site:
    return Site(tmp_path / "state")


@pytest.fixture
def installed(site) -> Site:
    site.install(ONE)
    return site


def test_nothing_is_installed(site):
    assert site.slots.installed() == Installed()
    site.trials.recover(site.now)
    site.trials.collect()


def test_install(site):
    assert site.install(ONE).number == 1
    assert site.versions() == ("1.0.0", None)
    for path, content in ONE.content.items():
        assert site.file(path).read_bytes() == content
        assert site.file(path).stat().st_mode & 0o777 == 0o444
    assert site.problems() == site.leftovers() == []


def test_the_previous_release_is_kept_and_the_one_before_is_not(site):
    for item in (ONE, TWO, THREE):
        site.install(item)
    assert site.versions() == ("3.0.0", "2.0.0")
    assert site.problems() == site.leftovers() == []
    blobs = {f.blob.sha256 for item in (TWO, THREE) for f in item.release.files}
    assert set(site.store.digests()) == blobs


def test_models_switch_together(installed):
    installed.install(TWO, OTHER)
    state = installed.slots.installed()
    assert {model: slot.version for model, slot in state.active.items()} == {
        MODEL: "2.0.0",
        "other": "7.0.0",
    }
    installed.install(THREE)
    assert installed.slots.installed().active["other"].version == "7.0.0"
    assert installed.file("model.onnx", "other").read_bytes() == OTHER.content["model.onnx"]


def test_installing_again_changes_nothing_but_the_generation(installed):
    installed.install(ONE)
    assert installed.versions() == ("1.0.0", None)
    assert installed.slots.installed().number == 2


def test_a_blob_that_releases_share_is_stored_once(installed):
    installed.install(TWO)
    shared = [slot / "files" / "shared.json" for slot in installed.state.glob(f"slots/{MODEL}/*")]
    assert len({path.stat().st_ino for path in shared}) == 1
    assert len(shared) == 2


@pytest.fixture
def back(installed) -> Site:
    """A device that went back to 1.0.0, and keeps 2.0.0."""
    installed.install(TWO)
    installed.trials.go_back(installed.slots.installed().previous, "by hand")
    return installed


def cannot_exchange(number: int):
    def exchange(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    return exchange


@pytest.mark.parametrize(
    "exchange",
    [syscalls.exchange, cannot_exchange(errno.EINVAL), cannot_exchange(errno.EXDEV)],
    ids=["exchanged", "no exchange", "in a lower layer"],
)
def test_a_release_that_comes_back_takes_the_documents_of_today(back, monkeypatch, exchange):
    """Or gate 12 would go by the policy that was in force when it came first."""
    monkeypatch.setattr(syscalls, "exchange", exchange)
    strict = replace(TWO.policy, health=HealthGate(required=True, latency_ms=1.0))
    newer = {"policy.json": strict.to_bytes(), "layout.json": TWO.layout.to_bytes() + b"\n"}
    (slot,) = back.slots.installed().previous.values()
    staged = back.slots.stage(TWO.release, TWO.release.to_bytes(), documents(TWO) | newer)
    assert staged == slot
    assert intact.policy_of(back.device, MODEL, slot).health == strict.health
    folder = back.slots.directory(MODEL, slot)
    expected = {"release.json": TWO.release.to_bytes()} | documents(TWO) | newer
    assert {name: (folder / name).read_bytes() for name in expected} == expected
    assert back.problems() == back.leftovers() == []
    assert back.versions() == ("1.0.0", "2.0.0")


def test_a_slot_whose_documents_are_those_of_today_stays_as_it_is(back):
    before = back.tree()
    back.stage(TWO)
    back.stage(ONE)  # which runs
    assert back.tree() == before


def test_sweep_removes_generations_that_never_became_current(installed):
    (installed.state / "generations" / "2").mkdir()
    (installed.state / "generations" / "note").mkdir()
    (installed.state / "slots" / MODEL / ".tmp-abc").mkdir()
    (installed.state / ".tmp-link").symlink_to("generations/2")
    installed.slots.sweep()
    assert sorted(p.name for p in installed.state.glob("generations/*")) == ["1", "note"]
    assert not list(installed.state.rglob(".tmp-*"))


def test_sweep_removes_what_a_reader_that_was_killed_left(installed):
    seals = installed.state / "seals"
    seals.mkdir(exist_ok=True)
    (seals / ".tmp-79a6d1685699e2cc").write_text("half a seal")
    installed.slots.sweep()
    assert not list(seals.glob(".tmp-*"))


def test_sweep_removes_what_a_reader_left_of_an_alarm_but_none_that_is_being_raised(installed):
    folder = installed.state / "alarms"
    folder.mkdir()
    for name, age in ((".tmp-old", 7200), (".tmp-new", 0)):
        (folder / name).write_text("half an alarm")
        os.utime(folder / name, (time.time() - age,) * 2)
    installed.slots.sweep()
    assert [path.name for path in folder.iterdir()] == [".tmp-new"]


def test_sweep_removes_metadata_that_is_half_written(installed):
    tuf = installed.state / "tuf"
    (tuf / "root_history").mkdir()
    for name in (".tmp-3x", "tmpfleet.json", "root_history/.tmp-4x", "root_history/1.root.json"):
        (tuf / name).touch()
    installed.slots.sweep()
    left = {path.name for path in tuf.rglob("*") if path.is_file()}
    assert left == {"tmpfleet.json", "1.root.json"}


# --- Tampered with --------------------------------------------------------------------------------


def overwrite(path: Path, content: bytes = b"poison") -> None:
    path.chmod(0o600)
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("tamper", "found"),
    [
        (overwrite, ("model.onnx", "is not the file that was approved")),
        (Path.unlink, ("model.onnx", "cannot be read: No such file or directory")),
        (
            lambda path: (path.unlink(), path.symlink_to("/etc/passwd")),
            ("model.onnx", "cannot be read: Too many levels of symbolic links"),
        ),
        (
            lambda path: (path.unlink(), os.mkfifo(path)),
            ("model.onnx", "cannot be read: is not a regular file"),
        ),
        (
            lambda path: (path.unlink(), path.mkdir()),
            ("model.onnx", "cannot be read: is not a regular file"),
        ),
        (
            lambda path: path.with_name("extra.py").write_bytes(b""),
            ("extra.py", "does not belong to the release"),
        ),
        (
            lambda path: path.with_name("a").joinpath("link").symlink_to("/"),
            ("a/link", "does not belong to the release"),
        ),
    ],
)
def test_problems(installed, tamper, found):
    tamper(installed.file("model.onnx").resolve())
    assert installed.problems() == [found]


def test_a_folder_that_the_disk_lost_is_a_problem(installed, monkeypatch):
    list_folder = os.scandir

    def scandir(path="."):
        if str(path).endswith("/a/b"):
            raise OSError(errno.EIO, os.strerror(errno.EIO), str(path))
        return list_folder(path)

    monkeypatch.setattr(os, "scandir", scandir)
    assert installed.problems() == [("a/b", "cannot be read: Input/output error")]


def test_descriptors_do_not_leak(installed):
    path = installed.file("model.onnx").resolve()
    path.unlink()
    path.mkdir()
    before = open_files()
    installed.problems()
    assert open_files() == before


def test_folder_that_became_a_symbolic_link(installed, tmp_path):
    folder = installed.file("a").resolve()
    folder.rename(tmp_path / "a")
    folder.symlink_to(tmp_path / "a")
    assert ("a/b/deep.txt", "cannot be read: Not a directory") in installed.problems()
    with pytest.raises(OSError, match=r"Not a directory|symbolic links"):
        open_file(folder.parent, "a/b/deep.txt")


@pytest.mark.parametrize("content", [b"", b"{}", b"\0" * 50])
def test_release_document_that_was_changed(installed, content):
    slot = installed.slots.installed().active[MODEL]
    overwrite(installed.slots.directory(MODEL, slot) / "release.json", content)
    with pytest.raises(Refused, match="is not the document that was installed") as refusal:
        installed.slots.release(MODEL, slot)
    assert refusal.value.gate is Gate.INSTALL


@pytest.mark.parametrize(
    "tamper",
    [
        lambda state: overwrite(state / "current" / "installed.json", b"{}"),
        lambda state: (state / "current" / "installed.json").unlink(),
        lambda state: shutil.rmtree(state / "generations"),
        lambda state: ((state / "current").unlink(), (state / "current").symlink_to("nowhere")),
        lambda state: ((state / "current").unlink(), (state / "current").symlink_to("current")),
    ],
)
def test_generation_that_was_changed(installed, tamper):
    tamper(installed.state)
    for read in (installed.slots.installed, installed.slots.sweep):
        with pytest.raises(Refused, match="the state directory is damaged"):
            read()


def test_damaged_previous_slot_does_not_stop_updates(installed):
    installed.install(TWO)
    previous = installed.slots.installed().previous[MODEL]
    (installed.slots.directory(MODEL, previous) / "release.json").unlink()
    installed.trials.collect()
    installed.install(THREE)
    assert installed.versions() == ("3.0.0", "2.0.0")
    assert installed.problems() == installed.leftovers() == []


def test_blob_that_rotted_is_dropped_with_its_slot(site):
    slot = site.stage(ONE)
    good, bad = (
        file.blob for file in ONE.release.files if file.path in {"model.onnx", "shared.json"}
    )
    overwrite(site.store.path(bad.sha256), b"x" * bad.length)
    assert [path for path, _ in site.slots.problems(MODEL, slot)] == ["shared.json"]
    site.slots.discard(MODEL, slot)
    assert (site.store.has(good), site.store.has(bad)) == (True, False)
    site.install(ONE)
    assert site.problems() == []


def test_discard_when_the_blob_itself_is_gone(site):
    slot = site.stage(ONE)
    site.store.remove(ONE.release.files[0].blob.sha256)
    site.slots.discard(MODEL, slot)
    assert not site.slots.directory(MODEL, slot).exists()


def test_slot_is_named_by_what_it_holds():
    assert Slot("1", 1, "ab" * 32).name == "ab" * 8


def test_file_that_was_just_verified_is_not_hashed_again_unless_somebody_wrote_to_it(site):
    item = chain("1.0.0", 1)
    slot = site.stage(item)
    with Folder(site.state / "store") as folder:
        proven = {file.blob.sha256: folder.look(file.blob.sha256) for file in item.release.files}
    path = site.store.path(item.release.files[0].blob.sha256)
    status = path.stat()
    path.chmod(0o600)
    path.write_bytes(bytes(status.st_size))
    assert [name for name, _ in site.slots.problems(MODEL, slot, proven)]
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))  # as if nobody had
    assert not list(site.slots.problems(MODEL, slot, proven))
    assert list(site.slots.problems(MODEL, slot))


def test_a_switch_back_takes_no_new_link(installed, monkeypatch):
    """A full disk may have room for none; see tests/crash/test_space.py."""
    number = installed.slots.installed().number
    installed.install(chain("9.0.0", 9))
    installed.slots.prepare(replace(installed.slots.installed(), number=number + 5))

    def full(_target: str, _path: Path) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(syscalls, "symlink", full)
    installed.slots.switch(number + 5)
    assert installed.slots.installed().number == number + 5
    with pytest.raises(OSError, match="No space left"):  # it is used up
        installed.slots.switch(number + 5)
