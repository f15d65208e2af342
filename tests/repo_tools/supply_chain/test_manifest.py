"""A directory recorded as one file."""

import hashlib
import shutil
import subprocess

import pytest

from modelward.errors import Refused, UsageError
from modelward_repo.supply_chain.manifest import check_manifest, manifest


@pytest.fixture
def workspace(tmp_path):
    for name, content in {"b": b"2", "a": b"1", "sub/c": b"3", ".git/x": b""}.items():
        (tmp_path / "data" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "data" / name).write_bytes(content)
    return tmp_path


def check(workspace):
    data = (workspace / "data.manifest").read_bytes()
    check_manifest(workspace, "data", "data.manifest", hashlib.sha256(data).hexdigest())


def test_lines_are_sorted_and_relative_to_the_directory(workspace):
    lines = manifest(workspace, "data").decode().splitlines()
    assert [line[66:] for line in lines] == [".git/x", "a", "b", "sub/c"]
    assert lines[1] == f"{hashlib.sha256(b'1').hexdigest()}  a"
    assert manifest(workspace / "data", ".") == manifest(workspace, "data/")


@pytest.mark.skipif(not shutil.which("sha256sum"), reason="no sha256sum")
def test_sha256sum_can_check_it(workspace):
    (workspace / "m").write_bytes(manifest(workspace, "data"))
    command = ["sha256sum", "--check", "--strict", "../m"]
    subprocess.run(command, cwd=workspace / "data", check=True, capture_output=True)


def test_manifest_is_recomputed(workspace):
    (workspace / "data.manifest").write_bytes(manifest(workspace, "data"))
    check(workspace)


@pytest.mark.parametrize(
    ("change", "name"),
    [
        (lambda data: (data / "a").write_bytes(b"poison"), "'a'"),
        (lambda data: (data / "new").write_bytes(b""), "'new'"),
        (lambda data: (data / "b").unlink(), "'b'"),
        (lambda data: (data / "b").rename(data / "b2"), "2 files differ"),
    ],
)
def test_changed_directory_is_refused_and_the_file_named(workspace, change, name):
    (workspace / "data.manifest").write_bytes(manifest(workspace, "data"))
    change(workspace / "data")
    with pytest.raises(Refused, match=name):
        check(workspace)


@pytest.mark.parametrize("junk", [b"", b"\xff\xfe", b"x\n" * 10, b"\n", b"0" * 70])
def test_file_that_is_no_manifest_is_refused(workspace, junk):
    (workspace / "data.manifest").write_bytes(junk)
    with pytest.raises(Refused, match="is not what"):
        check(workspace)


def test_manifest_spelt_otherwise_is_refused(workspace):
    lines = manifest(workspace, "data").splitlines(keepends=True)
    (workspace / "data.manifest").write_bytes(b"".join(reversed(lines)))
    with pytest.raises(Refused):
        check(workspace)


def test_directory_must_be_one(workspace):
    for path in ("nowhere", "data/a"):
        with pytest.raises(UsageError, match="is not a directory"):
            manifest(workspace, path)


def test_links_are_refused(workspace):
    (workspace / "data/link").symlink_to("a")
    with pytest.raises(Refused, match="symbolic link"):
        manifest(workspace, "data")
    (workspace / "way").symlink_to("data")
    with pytest.raises(Refused, match="symbolic link"):
        manifest(workspace, "way")
