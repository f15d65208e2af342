"""The file that travels: full sticks, damaged files, wrong files. Nothing is ever lost."""

import contextlib
import os
import resource
import signal
import subprocess
from pathlib import Path

import pytest

from modelward.errors import FormatError, UsageError
from modelward_repo.roles import carry
from modelward_repo.roles.changes import Renew, SetThreshold
from modelward_repo.roles.request import CAP, Request
from modelward_repo.roles.state import Rejected
from tests.repo_tools.ceremonies import propose, sign
from tests.repo_tools.site import Site


@pytest.fixture
def request_(site: Site) -> Request:
    return propose(site, Renew("root"))


def test_written_and_read(request_: Request, tmp_path: Path) -> None:
    path = tmp_path / "r.json"
    carry.save(path, request_)
    assert carry.load(path).to_bytes() == request_.to_bytes()
    assert [one.name for one in tmp_path.glob("*r.json*")] == ["r.json"]


def test_signatures_that_are_there_are_kept(site: Site, request_: Request, tmp_path: Path) -> None:
    """Two people sign on the same stick, each from the copy they read before."""
    path = tmp_path / "r.json"
    carry.save(path, sign(request_, site, "alice/root"))
    carry.save(path, sign(request_, site, "bob/root"))
    root = carry.load(path).proposed.root
    assert root
    assert len(root.signatures) == 2


def test_another_file_is_never_overwritten(site: Site, request_: Request, tmp_path: Path) -> None:
    path = tmp_path / "r.json"
    for content in (b"thesis", propose(site, SetThreshold("root", 3)).to_bytes()):
        path.write_bytes(content)
        with pytest.raises(UsageError, match="is not a copy of this request"):
            carry.save(path, request_)
        assert path.read_bytes() == content


def test_a_full_stick(site: Site, request_: Request, tmp_path: Path) -> None:
    """The kernel itself refuses to write more: as on a stick without room."""
    path = tmp_path / "r.json"
    carry.save(path, request_)
    before = path.read_bytes()
    signed = sign(request_, site, "alice/root")
    old = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, old[1]))
        with pytest.raises(UsageError, match="cannot be written") as caught:
            carry.save(path, signed)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, old)
        signal.signal(signal.SIGXFSZ, ignored)
    assert "make room or name a file elsewhere with --output; nothing was lost" in str(caught.value)
    assert path.read_bytes() == before
    assert [one.name for one in tmp_path.glob("*r.json*")] == ["r.json"]


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small file system takes root")
def test_a_full_file_system(site: Site, request_: Request, tmp_path: Path) -> None:
    stick = tmp_path / "stick"
    stick.mkdir()
    if subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64k", "stick", stick], check=False
    ).returncode:
        pytest.skip("nothing can be mounted here")
    try:
        path = stick / "r.json"
        carry.save(path, request_)
        before = path.read_bytes()
        signed = sign(request_, site, "alice/root")
        filler = stick / "films"
        with contextlib.suppress(OSError):
            filler.write_bytes(bytes(1 << 20))
        with pytest.raises(UsageError, match="No space left on device"):
            carry.save(path, signed)
        assert path.read_bytes() == before
        assert sorted(one.name for one in stick.iterdir()) == ["films", "r.json"]
        filler.unlink()
        carry.save(path, signed)
        assert carry.load(path).to_bytes() == signed.to_bytes()
    finally:
        subprocess.run(["umount", stick], check=True)


def test_a_folder_that_cannot_be_written(request_: Request, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be written: No such file or directory"):
        carry.save(tmp_path / "no/r.json", request_)
    with pytest.raises(UsageError, match="exists already"):
        carry.save(tmp_path, request_)


def test_wrong_files(request_: Request, tmp_path: Path) -> None:
    path = tmp_path / "r.json"
    with pytest.raises(UsageError, match="cannot be read: No such file"):
        carry.load(path)
    with pytest.raises(UsageError, match="cannot be read: Is a directory"):
        carry.load(tmp_path)
    path.write_bytes(b" " * (CAP + 1))
    with pytest.raises(UsageError, match="is longer than 4194304 bytes"):
        carry.load(path)
    path.write_bytes(b"\x89PNG")
    with pytest.raises(FormatError, match=r"r.json: signing request: is not UTF-8") as format_error:
        carry.load(path)
    assert "ask whoever gave it to you for another copy" in format_error.value.advice
    path.write_bytes(request_.to_bytes()[:-100])
    with pytest.raises(FormatError, match=r"r.json: signing request: is not JSON"):
        carry.load(path)
    path.write_bytes(request_.to_bytes().replace(b'\\"threshold\\":2', b'\\"threshold\\":1'))
    with pytest.raises(Rejected, match=r"r.json: .* is not signed as it must be"):
        carry.load(path)
