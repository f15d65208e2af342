"""Writes that leave no trace: on real file systems, by a real map."""

import mmap
import os
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from modelward.install import file_system
from modelward.install.file_system import make_writes_show
from tests.crash import volume

TICK = 0.05  # seconds: longer than between two times that the kernel's clock tells


def written_unseen(folder: Path, between: Callable[[int], object]) -> bool:
    """Tell whether a second write through a map leaves a file's times as they were.

    Args:
        folder: Where to try it.
        between: What is done with the open file before that write.
    """
    path = folder / "file"
    path.write_bytes(b"approved")
    with path.open("r+b") as file, mmap.mmap(file.fileno(), 0) as page, path.open("rb") as reader:
        page[:] = b"approved"
        between(reader.fileno())
        before = path.stat()
        time.sleep(TICK)
        page[:] = b"poisoned"
        after = path.stat()
    assert path.read_bytes() == b"poisoned"
    return (before.st_mtime_ns, before.st_ctime_ns) == (after.st_mtime_ns, after.st_ctime_ns)


@pytest.mark.parametrize("name", sorted(volume.FILE_SYSTEMS))
def test_where_it_is_promised_that_writes_show_they_do(tmp_path, name):
    if reason := volume.missing(name):
        pytest.skip(reason)
    volume.make(name, tmp_path / "image")
    promised = []
    with volume.mounted(tmp_path / "image", tmp_path / "mounted") as place:
        assert written_unseen(place, lambda _: None)  # else there would be nothing to prevent
        assert not written_unseen(place, lambda file: promised.append(make_writes_show(file)))
    assert promised == [True]


def test_where_this_runs(tmp_path):
    promised: list[bool] = []
    unseen = written_unseen(tmp_path, lambda file: promised.append(make_writes_show(file)))
    assert not (unseen and promised == [True])


@contextmanager
def memory(place: Path) -> Iterator[Path]:
    """Mount a tmpfs, over what may be there."""
    place.mkdir(exist_ok=True)
    volume.run("mount", "-t", "tmpfs", "none", place)
    try:
        yield place
    finally:
        volume.unmount(place)


@contextmanager
def overlaid(place: Path, lower: Path, *options: str) -> Iterator[Path]:
    """Mount an overlay on a folder of some file system, or say that this kernel has none."""
    upper, work, shown = (place / name for name in ("upper", "work", "shown"))
    for folder in (upper, work, shown):
        folder.mkdir(exist_ok=True)
    layers = (f"lowerdir={lower}", f"upperdir={upper}", f"workdir={work}", *options)
    try:
        volume.run("mount", "-t", "overlay", "none", "-o", ",".join(layers), shown)
    except subprocess.CalledProcessError:
        pytest.skip("this kernel has no overlayfs, or not with these options")
    try:
        yield shown
    finally:
        volume.unmount(shown)


needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root may mount")


@needs_root
@pytest.mark.parametrize("over", [False, True], ids=["tmpfs", "overlay on tmpfs"])
def test_no_promise_where_nothing_is_noted(tmp_path, over):
    promised: list[bool] = []
    with ExitStack() as mounts:
        place = mounts.enter_context(memory(tmp_path / "mounted"))
        if over:
            lower = mounts.enter_context(memory(tmp_path / "lower"))
            place = mounts.enter_context(overlaid(place, lower))
        assert written_unseen(place, lambda file: promised.append(make_writes_show(file)))
    assert promised == [False]


@pytest.mark.parametrize("options", [(), ("volatile",)], ids=["", "volatile"])
@pytest.mark.parametrize("name", sorted(volume.FILE_SYSTEMS))
def test_an_overlay_notes_what_its_upper_layer_does(tmp_path, name, options):
    """An overlay that syncs nothing is no exception: its layer is asked itself."""
    if reason := volume.missing(name):
        pytest.skip(reason)
    volume.make(name, tmp_path / "image")
    promised = []
    with (
        volume.mounted(tmp_path / "image", tmp_path / "a disk") as disk,
        memory(tmp_path / "lower") as lower,
        overlaid(disk, lower, *options) as place,
    ):
        assert written_unseen(place, lambda _: None)
        assert not written_unseen(place, lambda file: promised.append(make_writes_show(file)))
        inner, elsewhere = place / "in a folder", tmp_path / "bound"
        inner.mkdir()
        elsewhere.mkdir()
        volume.run("mount", "--bind", inner, elsewhere)
        try:
            assert not written_unseen(
                elsewhere, lambda file: promised.append(make_writes_show(file))
            )
        finally:
            volume.unmount(elsewhere)
    assert promised == [True, True]


@needs_root
def test_no_promise_for_what_is_not_found_in_the_upper_layer(tmp_path):
    if reason := volume.missing("ext4"):
        pytest.skip(reason)
    volume.make("ext4", tmp_path / "image")

    def promised(path: Path) -> bool:
        with path.open("rb") as file:
            return make_writes_show(file.fileno())

    with (
        volume.mounted(tmp_path / "image", tmp_path / "mounted") as disk,
        memory(tmp_path / "lower") as lower,
    ):
        for name in ("below", "owned", "changed"):
            (lower / name).write_bytes(bytes(100_000))
        with overlaid(disk, lower, "metacopy=on") as place:
            (place / "made").write_bytes(b"here")
            (place / "owned").chmod(0o600)
            with (place / "changed").open("ab") as file:
                file.write(b"more")
            found = {path.name: promised(path) for path in place.iterdir()}
            # What came from below keeps the number that it had there.
            assert found == {"made": True, "below": False, "owned": False, "changed": False}
            with memory(disk / "upper"):  # what is at that path by now is something else
                (disk / "upper/made").write_bytes(b"here")
                assert not promised(place / "made")


def test_no_promise_when_the_disk_fails(tmp_path, monkeypatch):
    def fail(_descriptor):
        raise OSError(5, "Input/output error")

    with (tmp_path / "file").open("wb") as file:
        monkeypatch.setattr(file_system.os, "fsync", fail)
        assert not make_writes_show(file.fileno())
