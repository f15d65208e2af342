"""The model of a disk finds what is wrong with the usual mistakes, and nothing where none is."""

import os
from pathlib import Path

import pytest

from modelward.install import fsops, syscalls
from tests.crash.disk import CALLS, Recorder, flat, write

# What they open is written to by other calls; `clone` and `enable_verity` need other file systems.
CHANGE_NOTHING = {"reopen", "open_direct", "clone", "enable_verity"}


def contents(root: Path, act) -> set[bytes | None]:
    """Return what `root/file` may hold after a cut at any point of an action."""
    recorder = Recorder(root)
    with recorder.attached() as recording:
        act(root / "file")
    found = set()
    for _, image in recording.cuts():
        nodes = dict(flat(image))
        found.add(nodes["./file"].data if "./file" in nodes else None)
    return found


def durable(root: Path, act) -> set[bytes | None]:
    """Return what it may hold after a cut once the action has ended."""
    recorder = Recorder(root)
    with recorder.attached() as recording:
        act(root / "file")
    last = [dict(flat(image)) for length, image in recording.cuts() if length == len(recording.ops)]
    return {nodes["./file"].data if "./file" in nodes else None for nodes in last}


@pytest.fixture
def root(tmp_path) -> Path:
    root = tmp_path / "root"
    root.mkdir()
    (root / "file").write_bytes(b"old")
    return root


def careless(path: Path) -> None:
    """Write aside and rename, without a sync: the usual mistake."""
    aside = path.with_name("aside")
    descriptor = syscalls.create(aside, 0o644)
    syscalls.write(descriptor, memoryview(b"new!"))
    os.close(descriptor)
    syscalls.rename(aside, path)


def test_a_careful_write_is_old_or_new(root):
    assert contents(root, lambda path: fsops.write_file(path, b"new!")) == {b"old", b"new!"}


def test_a_careful_write_is_durable(root):
    assert durable(root, lambda path: fsops.write_file(path, b"new!")) == {b"new!"}


def test_a_careless_write_may_be_empty_torn_or_zeros(root):
    assert contents(root, careless) == {b"old", b"new!", b"", b"ne", b"\0\0\0\0"}


def test_a_rename_without_a_sync_may_be_undone(root):
    def act(path: Path) -> None:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(fsops, "sync_directory", lambda _: None)
            fsops.write_file(path, b"new!")

    assert durable(root, act) == {b"old", b"new!"}


def test_removal_is_durable(root):
    assert durable(root, fsops.remove) == {None}


def test_copies_are_each_old_or_new_and_durable(root):
    def act(path: Path) -> None:
        fsops.write_copies(path.parent, ("twin", path.name), b"new!")

    assert contents(root, act) == {b"old", b"new!"}
    assert durable(root, act) == {b"new!"}


def test_a_tree_is_whole_or_gone(root):
    tree = root / "tree"
    (tree / "inner").mkdir(parents=True)
    for path in ("a", "b", "inner/c"):
        (tree / path).touch()
    recorder = Recorder(root)
    with recorder.attached() as recording:
        fsops.remove(tree)
    found = [
        (length, sorted(path for path, _ in flat(image) if path.startswith("./tree/")))
        for length, image in recording.cuts()
    ]
    whole = ["./tree/a", "./tree/b", "./tree/inner", "./tree/inner/c"]
    assert {tuple(paths) for _, paths in found} == {tuple(whole), ()}
    assert all(not paths for length, paths in found if length == len(recording.ops))


def test_an_image_is_what_was_there(root):
    (root / "folder").mkdir(0o700)
    (root / "folder" / "twin").hardlink_to(root / "file")
    (root / "link").symlink_to("folder/twin")
    recorder = Recorder(root)
    ((_, image),) = recorder.recording.cuts()
    copy = root.with_name("copy")
    write(image, copy)
    assert dict(flat(Recorder(copy).recording.before)) == dict(flat(image))
    assert (copy / "file").samefile(copy / "link")


def test_every_call_that_changes_a_disk_is_recorded():
    """A call that `syscalls` makes and the recorder does not know would be missed."""
    ours = {
        name
        for name, item in vars(syscalls).items()
        if callable(item) and getattr(item, "__module__", "") == syscalls.__name__
    }
    assert ours - set(CALLS) <= CHANGE_NOTHING
