"""An implementation that shares nothing with ours reads our logs: Go's golang.org/x/mod/sumdb.

Needs Debian's `golang-go` and `golang-golang-x-mod-dev`; without them, these tests are skipped.
"""

import base64
import json
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from modelward.formats.note import SignatureType, VerifierKey
from modelward_repo.log.places import CHECKPOINT
from modelward_repo.log.writer import LogWriter
from modelward_repo.storage.local import LocalStorage
from tests.repo_tools.log.site import logging
from tests.repo_tools.site import make_folder
from tests.simulator.log import key

PROGRAM = Path(__file__).with_name("tlog") / "check.go"
GOPATH = Path(os.environ.get("GOPATH", "/usr/share/gocode"))
VKEY, SIGN = key("log.example", SignatureType.ED25519)

Check = Callable[[Path, VerifierKey], "subprocess.CompletedProcess[str]"]

if shutil.which("go") is None:
    pytest.skip("go is not installed: apt-get install golang-go", allow_module_level=True)
if not (GOPATH / "src/golang.org/x/mod/sumdb/tlog").is_dir():
    pytest.skip(
        "golang.org/x/mod is not installed: apt-get install golang-golang-x-mod-dev",
        allow_module_level=True,
    )


@pytest.fixture(scope="module")
def check(tmp_path_factory: pytest.TempPathFactory) -> Check:
    """The Go program, built offline."""
    place = tmp_path_factory.mktemp("go")
    environment = {
        **os.environ,
        "GO111MODULE": "off",
        "GOPATH": str(GOPATH),
        "GOCACHE": str(place / "cache"),
        "GOFLAGS": "",
    }
    built = subprocess.run(
        ["go", "build", "-o", str(place / "check"), str(PROGRAM)],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert built.returncode == 0, built.stderr

    def run(log: Path, vkey: VerifierKey) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [str(place / "check"), str(log), str(vkey)],
            capture_output=True,
            text=True,
            check=False,
        )

    return run


def write(place: Path, size: int) -> None:
    """Write a log of some leaves, in several goes, and our own inclusion proofs beside it."""
    storage = LocalStorage(place)
    for begin in range(0, size, 100):
        end = min(size, begin + 100)
        entries = [b"leaf %d" % number for number in range(begin, end)]
        signed = LogWriter(storage, VKEY).append(entries, SIGN)
        storage.replace(CHECKPOINT, signed.to_bytes())
    writer = LogWriter(storage, VKEY)
    lines = []
    for index in range(size):
        hashes = [base64.b64encode(raw).decode() for raw in writer.inclusion(index)]
        lines.append(" ".join([str(index), *hashes]))
    storage.replace("log/proofs.txt", "\n".join(lines).encode())


def done(completed: "subprocess.CompletedProcess[str]") -> Any:
    assert completed.returncode == 0, completed.stderr
    return json.loads(completed.stdout)


@pytest.mark.parametrize("size", [1, 2, 7, 255, 256, 257, 600])
def test_go_verifies_every_leaf_and_every_smaller_tree(
    check: Check, tmp_path: Path, size: int
) -> None:
    write(tmp_path, size)
    found = done(check(tmp_path / "log", VKEY))
    assert found == {"size": size, "included": size, "consistent": size, "ours": size}


def test_go_verifies_a_published_repository(check: Check, tmp_path: Path) -> None:
    with logging(tmp_path / "logged") as logged:
        assert logged.init().code == 0
        folder = make_folder(tmp_path / "folder", b"weights")
        logged.site.release("alpha", "1.0.0", folder)
        found = done(check(logged.directory / "log", logged.vkey))
    assert found["size"] == found["included"] == 3


@pytest.mark.parametrize(
    "path", ["tile/0/000.p/44", "tile/0/000", "tile/entries/000", "checkpoint"]
)
def test_go_refuses_what_was_changed(check: Check, tmp_path: Path, path: str) -> None:
    write(tmp_path, 300)
    place = tmp_path / "log" / path.replace("000.p/44", "001.p/44")
    data = bytearray(place.read_bytes())
    data[40] ^= 1
    place.write_bytes(data)
    assert check(tmp_path / "log", VKEY).returncode == 1


def test_go_refuses_another_key(check: Check, tmp_path: Path) -> None:
    write(tmp_path, 3)
    other, _ = key("log.example/other", SignatureType.ED25519)
    assert check(tmp_path / "log", other).returncode == 1
