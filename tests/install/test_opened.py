"""Opening the file itself, never what its path was made to lead to (attack row 29)."""

import os
from pathlib import Path

import pytest

from modelward.install.opened import Folder, files_below, open_file
from modelward.install.space import freed
from tests.simulator.folders import gone_after, nest
from tests.watching import open_files


@pytest.fixture
def root(tmp_path) -> Path:
    (tmp_path / "a/b").mkdir(parents=True)
    (tmp_path / "a/b/file").write_bytes(b"content")
    return tmp_path


def test_file_below(root):
    with Folder(root) as folder:
        assert folder.read("a/b/file", 7) == b"content"
        folder.enter("a/b")
        assert folder.read("file", 100) == b"content"
    with open_file(root, "a/b/file") as file:
        assert file.read() == b"content"


def test_longer_than_allowed(root):
    with Folder(root) as folder, pytest.raises(OSError, match="longer than 6 bytes"):
        folder.read("a/b/file", 6)


def test_the_folder_itself_may_be_reached_by_a_link(root):
    (root / "link").symlink_to("a")
    with Folder(root / "link") as folder:
        assert folder.read("b/file", 7) == b"content"


def test_an_open_folder_stays_what_it_was(root):
    with Folder(root / "a") as folder:
        (root / "a").rename(root / "old")
        (root / "a/b").mkdir(parents=True)
        (root / "a/b/file").write_bytes(b"poison")
        assert folder.read("b/file", 7) == b"content"


@pytest.mark.parametrize("part", ["a", "a/b", "a/b/file"])
def test_no_link_below_is_followed(root, part):
    (root / part).rename(root / "aside")
    (root / part).symlink_to(root / "aside")
    with Folder(root) as folder:
        for look in (folder.open, folder.enter):
            with pytest.raises(OSError, match=r"symbolic links|Not a directory|No such file"):
                look("a/b/file")


@pytest.mark.parametrize(
    "make",
    [os.mkfifo, os.mkdir, lambda path: os.mknod(path, 0o20666, os.makedev(1, 5))],
    ids=["pipe", "folder", "dev-zero"],
)
def test_nothing_but_a_regular_file_is_read(root, make):
    (root / "a/b/file").unlink()
    try:
        make(root / "a/b/file")
    except PermissionError:
        pytest.skip("only root may make devices")
    before = open_files()
    with Folder(root) as folder, pytest.raises(OSError, match="not a regular file"):
        folder.read("a/b/file", 1 << 20)
    assert open_files() == before


@pytest.mark.parametrize(("name", "parts"), [("folder", 64), ("f" * 200, None)])
def test_folders_within_each_other_are_not_looked_into_for_ever(root, name, parts):
    (root / "place").mkdir()
    (root / "place/away").symlink_to(root / "a")
    with gone_after(root / "place"):
        nest(root / "place", 5000, name)
        unread: list[OSError] = []
        found = [path.relative_to(root / "place").parts for path in
                 files_below(root / "place", unread.append)]  # fmt: skip
        assert [("away",), *([(name,) * parts] if parts else [])] == sorted(found, key=len)
        assert [error.strerror for error in unread] == ([] if parts else ["File name too long"])
        assert freed([root / "place"]) == (root / "place/away").lstat().st_blocks * 512


def test_a_link_to_a_folder_frees_nothing_of_it(root):
    (root / "a/b/file").write_bytes(bytes(100_000))
    (root / "link").symlink_to("a")
    assert freed([root / "link"]) < 100_000
    assert freed([root / "a"]) >= 100_000
