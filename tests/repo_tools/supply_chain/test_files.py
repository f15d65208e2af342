"""Small files: whole or not at all, and never over something else."""

import os

import pytest

from modelward.errors import UsageError
from modelward_repo.supply_chain.files import create_file, replace_file


def names(directory):
    return sorted(path.name for path in directory.iterdir())


def test_create_makes_directories_and_keeps_equal_content(tmp_path):
    path = tmp_path / "a/b/file"
    create_file(path, b"1")
    create_file(path, b"1")
    assert path.read_bytes() == b"1"
    assert names(path.parent) == ["file"]


def test_create_never_overwrites(tmp_path):
    (tmp_path / "file").write_bytes(b"1")
    (tmp_path / "link").symlink_to("file")
    (tmp_path / "dangling").symlink_to("nowhere")
    for name in ("file", "link", "dangling"):
        with pytest.raises(UsageError, match="exists already"):
            create_file(tmp_path / name, b"1" if name == "link" else b"2")
    assert (tmp_path / "file").read_bytes() == b"1"
    assert not (tmp_path / "nowhere").exists()
    assert len(names(tmp_path)) == 3


def test_replace_swaps_content_at_once(tmp_path):
    path = tmp_path / "file"
    replace_file(path, b"1")
    with path.open("rb") as reader:
        replace_file(path, b"2")
        assert reader.read() == b"1"
    assert path.read_bytes() == b"2"
    assert names(tmp_path) == ["file"]


def test_failure_leaves_the_old_file_and_no_litter(tmp_path, monkeypatch):
    path = tmp_path / "file"
    replace_file(path, b"1")

    def full(_descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    for write in (replace_file, create_file):
        with pytest.raises(UsageError, match="No space left"):
            write(path, b"2")
    assert path.read_bytes() == b"1"
    assert names(tmp_path) == ["file"]


def test_unwritable_places_are_named(tmp_path):
    (tmp_path / "file").touch()
    for write in (replace_file, create_file):
        with pytest.raises(UsageError, match="file"):
            write(tmp_path / "file/below", b"")
