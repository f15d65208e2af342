"""Writes that leave no trace: on real file systems, by a real map."""

import mmap
import os
import subprocess
import time
from collections.abc import Callable
from contextlib import ExitStack
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


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may mount")
@pytest.mark.parametrize("overlaid", [False, True], ids=["tmpfs", "overlay on tmpfs"])
def test_no_promise_where_nothing_is_noted(tmp_path, overlaid):
    promised: list[bool] = []
    with ExitStack() as mounts:
        place = tmp_path / "mounted"
        place.mkdir()
        volume.run("mount", "-t", "tmpfs", "none", place)
        mounts.callback(volume.unmount, place)
        if overlaid:
            lower, upper, work, shown = (place / name for name in ("lower", "upper", "work", "all"))
            for folder in (lower, upper, work, shown):
                folder.mkdir()
            options = f"lowerdir={lower},upperdir={upper},workdir={work}"
            try:
                volume.run("mount", "-t", "overlay", "none", "-o", options, shown)
            except subprocess.CalledProcessError:
                pytest.skip("this kernel has no overlayfs")
            mounts.callback(volume.unmount, shown)
            place = shown
        assert written_unseen(place, lambda file: promised.append(make_writes_show(file)))
    assert promised == [False]


def test_no_promise_when_the_disk_fails(tmp_path, monkeypatch):
    def fail(_descriptor):
        raise OSError(5, "Input/output error")

    with (tmp_path / "file").open("wb") as file:
        monkeypatch.setattr(file_system.os, "fsync", fail)
        assert not make_writes_show(file.fileno())
