"""An audit finds whatever was tampered with, in a directory and over HTTP alike."""

import json
import shutil
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from modelward.errors import ExitCode, Refused
from modelward.formats.checkpoint import SignedCheckpoint
from modelward.formats.note import SignatureLine
from modelward_repo.log.audit import Audit, audit
from modelward_repo.publish.target import Source
from modelward_repo.storage.local import LocalStorage
from tests.repo_tools.log.site import Logged
from tests.repo_tools.site import run, serving
from tests.simulator.log import NOW

LEAVES = 5  # init, two releases, each offered on a channel


def audited(directory: Path) -> Audit:
    return audit(Source.stored(LocalStorage(directory), None), datetime.now(UTC))


def flip(path: Path, at: int = 40) -> None:
    data = bytearray(path.read_bytes())
    data[at % len(data)] ^= 1
    path.write_bytes(data)


def newest(directory: Path, pattern: str) -> Path:
    return max(directory.glob(pattern), key=lambda path: path.stat().st_mtime_ns)


def test_a_sound_log_has_no_faults(history: Logged) -> None:
    found = audited(history.directory)
    assert found.faults == []
    assert found.size == LEAVES
    assert found.published == LEAVES - 1
    assert found.documents == LEAVES + 1  # five snapshots, one root
    assert found.cosigned == ("w1", "w2", "w3")


def test_a_file_system_is_as_good_as_a_server(history: Logged) -> None:
    root = history.directory / "metadata/1.root.json"
    with serving(history.directory) as url:
        done = run("log", "verify", url, "--root", root, "--json")
        assert done.code == 0, done
        trusting = run("log", "verify", url)
    assert done.json == audited(history.directory).to_dict()
    assert "No --root" in trusting.err
    assert "as it was logged" in trusting.out


def an_entry(directory: Path) -> None:
    path = directory / f"log/tile/entries/000.p/{LEAVES}"
    path.write_bytes(path.read_bytes().replace(b"snapshot 2", b"snapshot 9"))


def a_tile(directory: Path) -> None:
    flip(directory / f"log/tile/0/000.p/{LEAVES}")


def a_missing_tile(directory: Path) -> None:
    (directory / f"log/tile/0/000.p/{LEAVES}").unlink()


def an_archived_document(directory: Path) -> None:
    flip(min((directory / "log/archive").rglob("*/*")))


def a_missing_document(directory: Path) -> None:
    min((directory / "log/archive").rglob("*/*")).unlink()


def a_role(directory: Path) -> None:
    flip(directory / "metadata/2.model-alpha.json", -5)


def a_missing_role(directory: Path) -> None:
    (directory / "metadata/1.channels.json").unlink()


def a_cosignature(directory: Path) -> None:
    path = directory / "log/checkpoint"
    signed = SignedCheckpoint.parse(path.read_bytes())
    lines = [line for line in signed.note.signatures if line.name != "w1.example"]
    path.write_bytes(SignedCheckpoint.new(signed.checkpoint, *lines).to_bytes())


def _flipped(signature: bytes) -> bytes:
    return signature[:20] + bytes([signature[20] ^ 1]) + signature[21:]


def a_forged_cosignature(directory: Path) -> None:
    path = directory / "log/checkpoint"
    signed = SignedCheckpoint.parse(path.read_bytes())
    lines = [
        SignatureLine(line.name, line.key_id, _flipped(line.signature))
        if line.name == "w1.example"
        else line
        for line in signed.note.signatures
    ]
    path.write_bytes(SignedCheckpoint.new(signed.checkpoint, *lines).to_bytes())


def the_signature(directory: Path) -> None:
    path = directory / "log/checkpoint"
    signed = SignedCheckpoint.parse(path.read_bytes())
    path.write_bytes(
        SignedCheckpoint.new(signed.checkpoint, *signed.note.signatures[1:]).to_bytes()
    )


def the_checkpoint(directory: Path) -> None:
    (directory / "log/checkpoint").unlink()


@pytest.mark.parametrize(
    ("tamper", "fault"),
    [
        (an_entry, "do not make the tree"),
        (a_tile, "is not what its leaves make"),
        (a_missing_tile, "there is no log/tile"),
        (an_archived_document, "is not the document that was logged"),
        (a_missing_document, "there is no log/archive"),
        (a_role, "2.model-alpha.json: is not the file that was logged"),
        (a_missing_role, "there is no metadata/1.channels.json"),
        (a_cosignature, "too few witnesses cosigned"),
        (a_forged_cosignature, "the cosignature of witness 'w1' is not valid"),
        (the_signature, "did not sign the checkpoint"),
        (the_checkpoint, "there is no log/checkpoint"),
    ],
)
def test_every_tamper_is_found(damaged: Path, tamper: Callable[[Path], None], fault: str) -> None:
    tamper(damaged)
    found = audited(damaged)
    assert any(fault in one for one in found.faults), found.faults
    done = run("log", "verify", damaged)
    assert done.code == ExitCode.REFUSED
    assert "FAULT" in done.err
    assert "NOT sound" in done.out


def test_a_surplus_cosignature_that_is_gone_is_noted(damaged: Path) -> None:
    path = damaged / "log/checkpoint"
    signed = SignedCheckpoint.parse(path.read_bytes())
    path.write_bytes(
        SignedCheckpoint.new(signed.checkpoint, *signed.note.signatures[:-1]).to_bytes()
    )
    found = audited(damaged)
    assert found.faults == []
    assert found.notes == ["log/checkpoint: witness w3: no cosignature"]


def test_a_root_that_devices_get_and_nobody_logged_is_found(history: Logged, damaged: Path) -> None:
    # An archive of other bytes under the digest of the root: the served one is held against it.
    shutil.rmtree(damaged / "log/archive")
    found = audited(damaged)
    assert len([one for one in found.faults if "log/archive" in one]) == LEAVES
    assert history.size() == LEAVES


def test_cosignatures_from_the_future_do_not_count(history: Logged) -> None:
    source = Source.stored(LocalStorage(history.directory), None)
    found = audit(source, datetime.now(UTC) - timedelta(hours=1))
    assert any("too few witnesses" in one for one in found.faults)
    assert datetime.now(UTC) > NOW


def test_a_repository_without_a_log_has_nothing_to_audit(template: "object") -> None:
    with pytest.raises(Refused, match="demands no log"):
        audited(template.directory)  # type: ignore[attr-defined]


def test_a_release_is_proven_to_whoever_has_a_root(history: Logged, tmp_path: Path) -> None:
    from modelward.verify_proof import verify_proof  # noqa: PLC0415

    proof, documents = tmp_path / "proof", tmp_path / "documents"
    done = history.site.run(
        "log", "prove", "alpha/1.1.0", "-o", proof, "--documents", documents, "--json"
    )
    assert done.code == 0, done
    assert done.json["size"] == LEAVES
    files = {path.name: path.read_bytes() for path in documents.iterdir()}
    assert set(files) == {"root.json", "snapshot.json", "model-alpha.json", "release.json"}
    root = (history.directory / "metadata/1.root.json").read_bytes()
    proven = verify_proof(proof.read_bytes(), root, files)
    assert proven.index == LEAVES - 1
    assert json.loads(files["release.json"])["version"] == "1.1.0"
    with pytest.raises(Refused):
        verify_proof(proof.read_bytes(), root, {**files, "release.json": b"{}"})
    for name, code in (("alpha/9.9.9", ExitCode.USAGE), ("alpha", ExitCode.USAGE)):
        assert history.site.run("log", "prove", name, "-o", proof).code == code
