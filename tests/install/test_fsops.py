"""The only module that writes lasting state."""

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from modelward.errors import Gate, Unavailable, UsageError
from modelward.install import fsops, syscalls
from tests.crash import disk
from tests.simulator.folders import gone_after, nest

OPEN = Path("/proc/self/fd")


class Recorder:
    """Notes, in order, the system calls that durability rests on."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.calls: list[str] = []
        self._wrap(monkeypatch, "rename", lambda _, to: f"rename {to.name}")
        self._wrap(monkeypatch, "make_directory", lambda path, _: f"mkdir {path.name}")
        self._wrap(monkeypatch, "unlink", lambda path, *_: f"unlink {path.name}")
        self._wrap(monkeypatch, "sync", lambda fd: f"fsync {self._name(fd)}")

    def _name(self, descriptor: int) -> str:
        name = Path(f"/proc/self/fd/{descriptor}").readlink().name
        return "(temporary)" if name.startswith(".tmp-") else name

    def _wrap(self, monkeypatch, name, note) -> None:
        real = getattr(syscalls, name)

        def call(*arguments):
            self.calls.append(note(*arguments))
            return real(*arguments)

        monkeypatch.setattr(syscalls, name, call)


@pytest.fixture
def recorder(monkeypatch) -> Recorder:
    return Recorder(monkeypatch)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_write_file_is_durable_before_and_after_it_appears(tmp_path, recorder):
    fsops.write_file(tmp_path / "file", b"content")
    assert recorder.calls == ["fsync (temporary)", "rename file", f"fsync {tmp_path.name}"]
    assert (tmp_path / "file").read_bytes() == b"content"


def test_switch_is_durable(tmp_path, recorder):
    fsops.switch(tmp_path / "link", "target")
    assert recorder.calls == ["rename link", f"fsync {tmp_path.name}"]


def test_make_directory_is_durable(tmp_path, recorder):
    fsops.make_directory(tmp_path / "a" / "b")
    assert recorder.calls == ["mkdir a", f"fsync {tmp_path.name}", "mkdir b", "fsync a"]
    fsops.make_directory(tmp_path / "a" / "b")
    assert len(recorder.calls) == 4


def test_rename_is_durable_on_both_sides(tmp_path, recorder):
    (tmp_path / "from" / "x").mkdir(parents=True)
    (tmp_path / "to").mkdir()
    recorder.calls.clear()
    fsops.rename(tmp_path / "from" / "x", tmp_path / "to" / "y")
    assert recorder.calls == ["rename y", "fsync to", "fsync from"]


def test_remove_is_durable(tmp_path, recorder):
    (tmp_path / "file").touch()
    fsops.remove(tmp_path / "file")
    assert recorder.calls == ["unlink file", f"fsync {tmp_path.name}"]


def test_remove_syncs_each_directory_once(tmp_path, recorder):
    for name in ("a", "b"):
        (tmp_path / "one" / name).mkdir(parents=True)
        (tmp_path / "one" / name / "inner").touch()
    (tmp_path / "two").mkdir()
    (tmp_path / "two" / "file").touch()
    gone = [tmp_path / "one" / "a", tmp_path / "one" / "b", tmp_path / "two" / "file"]
    fsops.remove(*gone, tmp_path / "two" / "absent")
    asides = [call for call in recorder.calls[:2] if call.startswith("rename .tmp-")]
    assert len(asides) == 2
    # No part of a tree goes before it is certain that its name is gone.
    assert recorder.calls[2:] == [
        "unlink file", "fsync one", "fsync two", "unlink inner", "unlink inner"
    ]  # fmt: skip
    assert names(tmp_path / "one") == names(tmp_path / "two") == []


def test_copies_are_on_disk_before_they_appear(tmp_path, recorder):
    fsops.write_copies(tmp_path, ("a", "b"), b"content")
    assert recorder.calls == [
        "fsync (temporary)", "rename a", "fsync (temporary)", "rename b", f"fsync {tmp_path.name}"
    ]  # fmt: skip
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes() == b"content"


def test_write_file_replaces_and_sets_the_mode(tmp_path):
    fsops.write_file(tmp_path / "file", b"old", 0o444)
    fsops.write_file(tmp_path / "file", b"new" * 1_000_000, 0o600)
    assert (tmp_path / "file").read_bytes() == b"new" * 1_000_000
    assert (tmp_path / "file").stat().st_mode & 0o777 == 0o600
    assert names(tmp_path) == ["file"]


def test_new_file_that_fails_leaves_the_old_one(tmp_path):
    fsops.write_file(tmp_path / "file", b"old")
    with pytest.raises(TypeError), fsops.new_file(tmp_path / "file") as file:
        fsops.write_blocks(file, [memoryview(b"half of the ne"), "w"])
    assert (tmp_path / "file").read_bytes() == b"old"
    assert names(tmp_path) == ["file"]


def test_write_file_over_a_symbolic_link_leaves_its_target_alone(tmp_path):
    (tmp_path / "target").write_bytes(b"target")
    (tmp_path / "file").symlink_to("target")
    fsops.write_file(tmp_path / "file", b"new")
    assert (tmp_path / "target").read_bytes() == b"target"
    assert not (tmp_path / "file").is_symlink()


def test_link(tmp_path):
    (tmp_path / "a").write_bytes(b"content")
    fsops.link(tmp_path / "a", tmp_path / "b")
    assert (tmp_path / "a").samefile(tmp_path / "b")


@pytest.mark.parametrize("number", [errno.EPERM, errno.EMLINK, errno.EXDEV, errno.ENOTSUP])
def test_link_where_there_are_no_hard_links(tmp_path, monkeypatch, number):
    def link(*_, **__):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "link", link)
    (tmp_path / "a").write_bytes(b"content")
    fsops.link(tmp_path / "a", tmp_path / "b")
    assert (tmp_path / "b").read_bytes() == b"content"


def test_link_to_nothing(tmp_path):
    with pytest.raises(FileNotFoundError):
        fsops.link(tmp_path / "a", tmp_path / "b")


def test_what_keeps_its_name_gives_way(tmp_path, monkeypatch):
    """A directory of a lower layer of overlayfs can neither be exchanged nor renamed."""
    place, aside = tmp_path / "place", tmp_path / ".tmp-aside"
    for folder in (place, aside):
        (folder / "inner").mkdir(parents=True)
        (folder / "inner/file").write_text(folder.name)
    rename = syscalls.rename

    def move(source, *others):
        if source == place:
            raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))
        rename(source, *others)

    monkeypatch.setattr(syscalls, "exchange", lambda _aside, place: move(place))
    monkeypatch.setattr(syscalls, "rename", move)
    fsops.exchange(aside, place)
    assert [path.name for path in tmp_path.iterdir()] == ["place"]
    assert (place / "inner/file").read_text() == ".tmp-aside"


def test_remove_takes_anything(tmp_path):
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "kept").touch()
    place = tmp_path / "place"
    (place / "folder" / "inner").mkdir(parents=True)
    (place / "folder" / "inner" / "file").touch()
    (place / "folder" / "away").symlink_to(outside)
    (place / "folder" / "inner").chmod(0o500)
    (place / "link").symlink_to(outside)
    (place / "dangling").symlink_to("nothing")
    os.mkfifo(place / "pipe")
    (place / "file").touch(0o400)
    for name in ("folder", "link", "dangling", "pipe", "file", "absent"):
        fsops.remove(place / name)
    assert names(place) == []
    assert names(outside) == ["kept"]


@pytest.mark.parametrize("count", [1, 32, 33, 34, 1500, 5000])
def test_remove_takes_any_number_of_folders_within_each_other(tmp_path, count):
    place = tmp_path / "place"
    (place / "a").mkdir(parents=True)
    (place / "b").mkdir()
    with gone_after(place):
        nest(place / "a", count)
        nest(place / "b", min(count, 100))
        before = names(OPEN)
        fsops.remove(place)
        assert names(tmp_path) == []
        assert names(OPEN) == before


def test_a_removal_that_is_cut_is_taken_up_again(tmp_path, monkeypatch):
    monkeypatch.setattr(fsops, "_DEEPEST", 1)
    root = tmp_path / "root"
    (root / "place").mkdir(parents=True)
    nest(root / "place", 6)
    recorder = disk.Recorder(root)
    with recorder.attached() as recording:
        fsops.remove(root / "place")
    assert sum(op.kind == "move" for op in recording.ops) > 1
    for _, image in recording.cuts():
        after = tmp_path / "after"
        disk.write(image, after)
        fsops.sweep(after)
        assert names(after) in ([], ["place"])
        fsops.remove(after)


def test_folders_that_nobody_may_read_are_removed(tmp_path, monkeypatch):
    monkeypatch.setattr(fsops, "_DEEPEST", 1)
    inner = tmp_path / "place/a/b/c/d"
    inner.mkdir(parents=True)
    (inner / "file").touch()
    for folder in (inner, *list(inner.parents)[:4]):
        folder.chmod(0)
    fsops.remove(tmp_path / "place")
    assert names(tmp_path) == []


def test_no_link_is_followed_that_takes_the_place_of_a_folder(tmp_path, monkeypatch):
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside/kept").touch()
    (tmp_path / "place/inner").mkdir(parents=True)
    swapped = tmp_path / "place/inner"
    real = os.open

    def swap(path, *arguments, **options):
        if Path(path).name == "inner" and not swapped.is_symlink():
            (tree,) = tmp_path.glob(".tmp-*")
            (tree / "inner").rmdir()
            (tree / "inner").symlink_to(tmp_path / "outside")
        return real(path, *arguments, **options)

    monkeypatch.setattr(os, "open", swap)
    with pytest.raises(NotADirectoryError):
        fsops.remove(tmp_path / "place")
    monkeypatch.undo()
    assert names(tmp_path / "outside") == ["kept"]


def test_sweep_removes_what_is_temporary_only(tmp_path):
    (tmp_path / ".tmp-1").touch()
    (tmp_path / ".tmp-2").mkdir()
    (tmp_path / ".tmp-2" / "x").touch()
    (tmp_path / ".tmp-3").symlink_to("nothing")
    (tmp_path / "kept").touch()
    fsops.sweep(tmp_path)
    assert names(tmp_path) == ["kept"]


def test_file_system_that_can(tmp_path):
    fsops.check_file_system(tmp_path)
    assert names(tmp_path) == []


def test_file_system_that_cannot(tmp_path, monkeypatch):
    def symlink(*_, **__):
        raise PermissionError(errno.EPERM, "Operation not permitted")  # as FAT says it

    monkeypatch.setattr(os, "symlink", symlink)
    with pytest.raises(UsageError, match="cannot replace a symbolic link"):
        fsops.check_file_system(tmp_path)


@pytest.mark.parametrize("number", [errno.EACCES, errno.ENOSPC, errno.EROFS])
def test_a_problem_of_another_kind_is_not_blamed_on_the_file_system(tmp_path, monkeypatch, number):
    def symlink(*_, **__):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "symlink", symlink)
    with pytest.raises(OSError, match=os.strerror(number)):
        fsops.check_file_system(tmp_path)


HOLD = """
import sys
from pathlib import Path
from modelward.install import fsops
with fsops.lock(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_lock_is_held_by_one_process(tmp_path):
    lock = tmp_path / "lock"
    command = [sys.executable, "-c", HOLD, str(lock)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(Unavailable, match=f"process {holder.pid}") as problem, fsops.lock(lock):
            pass
        assert problem.value.gate is Gate.RECOVER
        holder.kill()
    with fsops.lock(lock):
        assert lock.read_text() == str(os.getpid())


def test_what_somebody_left_who_was_killed_or_gave_up_is_made_durable(tmp_path, monkeypatch):
    synced: list[int] = []
    monkeypatch.setattr(fsops.syscalls, "sync_file_system", synced.append)
    lock = tmp_path / "lock"
    for _ in range(2):
        with fsops.lock(lock):
            pass
    assert not synced
    with pytest.raises(ZeroDivisionError), fsops.lock(lock):
        raise ZeroDivisionError
    for _ in range(2):
        with fsops.lock(lock):
            assert len(synced) == 1


def test_lock_is_released_after_an_error(tmp_path):
    with pytest.raises(ZeroDivisionError), fsops.lock(tmp_path / "lock"):
        raise ZeroDivisionError
    with fsops.lock(tmp_path / "lock"):
        pass
