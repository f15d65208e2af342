import json
import shutil
import stat
import subprocess
from pathlib import Path

import pytest

from modelward.errors import UsageError
from modelward.formats.policy import Key
from modelward_repo.roles import keys as key_module
from modelward_repo.roles.keys import KeyFile, find_keys, find_signers, from_sslib, sslib_key
from modelward_repo.roles.ring import KeyRing


@pytest.fixture(autouse=True)
def few_rounds(monkeypatch: pytest.MonkeyPatch) -> None:
    """The real number of rounds takes half a second a key."""
    monkeypatch.setattr(key_module, "KDF_ROUNDS", 1)


def secret(path: Path) -> bytes:
    del path
    return b"correct horse"


def nobody(path: Path) -> bytes:
    raise AssertionError(f"asked for the passphrase of {path}")


def test_rounds_are_a_real_work_factor() -> None:
    import importlib  # noqa: PLC0415

    assert importlib.reload(key_module).KDF_ROUNDS >= 64


@pytest.mark.parametrize("scheme", ["ed25519", "ecdsa-sha2-nistp256"])
@pytest.mark.parametrize("passphrase", [None, b"correct horse"])
def test_a_key_is_created_and_signs(tmp_path: Path, scheme: str, passphrase: bytes | None) -> None:
    file = KeyFile.of(tmp_path, "alice", "root")
    public = file.create(passphrase, scheme)
    assert file.public() == public
    assert public.keyid == public.fingerprint()
    signer = file.signer(secret if passphrase else nobody)
    signature = signer.sign(b"content")
    sslib_key(public).verify_signature(signature, b"content")
    assert from_sslib(signer.public_key) == public


def test_a_private_key_is_its_owners_only_and_encrypted(tmp_path: Path) -> None:
    file = KeyFile.of(tmp_path / "keys", "alice", "root")
    file.create(b"correct horse")
    assert stat.S_IMODE(file.path.stat().st_mode) == 0o600
    assert stat.S_IMODE(file.path.parent.stat().st_mode) == 0o700
    assert b"bcrypt" in _decoded(file.path)
    assert b"bcrypt" not in _decoded_plain(tmp_path)


def _decoded(path: Path) -> bytes:
    import base64  # noqa: PLC0415

    return base64.b64decode("".join(path.read_text().splitlines()[1:-1]))


def _decoded_plain(tmp_path: Path) -> bytes:
    file = KeyFile.of(tmp_path / "plain", "alice", "root")
    file.create(None)
    assert stat.S_IMODE(file.path.stat().st_mode) == 0o600
    return _decoded(file.path)


def test_a_wrong_passphrase_is_told_without_quoting_it(tmp_path: Path) -> None:
    file = KeyFile.of(tmp_path, "alice", "root")
    file.create(b"correct horse")
    with pytest.raises(UsageError, match="wrong passphrase") as caught:
        file.signer(lambda _path: b"battery staple")
    assert caught.value.__cause__ is None
    assert "battery" not in str(caught.value)


def test_a_key_is_never_overwritten(tmp_path: Path) -> None:
    file = KeyFile.of(tmp_path, "alice", "root")
    before = file.create(None)
    with pytest.raises(UsageError, match="exists already"):
        file.create(None)
    assert file.public() == before


@pytest.mark.skipif(not shutil.which("ssh-keygen"), reason="no ssh-keygen here")
def test_its_holder_changes_the_passphrase_with_ssh_keygen(tmp_path: Path) -> None:
    file = KeyFile.of(tmp_path, "alice", "root")
    public = file.create(b"old horse")
    subprocess.run(
        ["ssh-keygen", "-q", "-p", "-P", "old horse", "-N", "new horse", "-f", str(file.path)],
        check=True,
        capture_output=True,
    )
    assert from_sslib(file.signer(lambda _path: b"new horse").public_key) == public


@pytest.mark.parametrize("content", [b"", b"{}", b"[]", b'{"keyid": "00"}', b"\xff"])
def test_a_broken_public_key_is_named(tmp_path: Path, content: bytes) -> None:
    file = KeyFile.of(tmp_path, "alice", "root")
    file.create(None)
    file.public_path.write_bytes(content)
    with pytest.raises(UsageError, match=r"root\.pub is not a public key"):
        file.public()


def test_a_public_key_under_another_id_is_refused(tmp_path: Path) -> None:
    file = KeyFile.of(tmp_path, "alice", "root")
    file.create(None)
    document = json.loads(file.public_path.read_bytes())
    document["keyid"] = "0" * 64
    file.public_path.write_text(json.dumps(document))
    with pytest.raises(UsageError, match="key id is not the hash"):
        file.public()


def test_signers_are_found_by_role_and_id_and_only_as_many_as_it_takes(tmp_path: Path) -> None:
    publics = {
        name: KeyFile.of(tmp_path, name, "root").create(b"correct horse")
        for name in ("alice", "bob", "carol")
    }
    KeyFile.of(tmp_path, "alice", "targets").create(None)
    ids = [key.keyid for key in publics.values()]
    asked: list[Path] = []

    def asking(path: Path) -> bytes:
        asked.append(path)
        return b"correct horse"

    signers = find_signers(tmp_path, "root", ids, 2, asking)
    assert [signer.public_key.keyid for signer in signers] == ids[:2]
    assert [path.parent.name for path in asked] == ["alice", "bob"]
    with pytest.raises(UsageError, match="2 of 1 keys must sign as 'root', but 1 of them"):
        find_signers(tmp_path, "root", ids[:1], 2, asking)
    with pytest.raises(UsageError, match="but 0 of them"):
        find_signers(tmp_path, "targets", ids, 1, asking)


def ring(keys: Path) -> KeyRing:
    return KeyRing(keys, nobody, lambda: None)


def test_a_ring_makes_what_is_missing_and_keeps_what_is_there(tmp_path: Path) -> None:
    there = KeyFile.of(tmp_path, "alice", "root")
    before = there.create(None)
    found = ring(tmp_path)
    publics = found.publics(["alice", "bob"], "root")
    assert publics[0] == before
    assert [key.path.parent.name for key in found.made] == ["bob"]
    assert len(found.signers(["alice", "bob"], "root", 2)) == 2


def test_a_ring_uses_a_public_key_whose_private_half_is_elsewhere(tmp_path: Path) -> None:
    there = KeyFile.of(tmp_path, "alice", "root")
    before: Key = there.create(None)
    there.path.unlink()
    found = ring(tmp_path)
    assert found.publics(["alice", "bob"], "root")[0] == before
    assert not there.exists()
    assert len(found.signers(["alice", "bob"], "root", 1)) == 1
    with pytest.raises(UsageError, match="the private keys of only 1 are in"):
        found.signers(["alice", "bob"], "root", 2)


def test_a_ring_finishes_a_key_whose_making_was_interrupted(tmp_path: Path) -> None:
    file = KeyFile.of(tmp_path, "alice", "root")
    before = file.create(None)
    file.public_path.unlink()
    assert ring(tmp_path).public("alice", "root") == before
    assert file.public() == before


def test_a_full_disk_leaves_no_half_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(UsageError, match="cannot be written: No space left"):
        KeyFile.of(tmp_path, "alice", "root").create(None)
    assert not list((tmp_path / "alice").iterdir())


def test_two_holders_with_one_key_are_refused(tmp_path: Path) -> None:
    KeyFile.of(tmp_path, "alice", "root").create(None)
    shutil.copytree(tmp_path / "alice", tmp_path / "bob")
    with pytest.raises(UsageError, match="have the same key"):
        ring(tmp_path).publics(["alice", "bob"], "root")


def test_keys_of_all_holders_are_found(tmp_path: Path) -> None:
    for holder, name in (("bob", "root"), ("alice", "root"), ("alice", "layout")):
        KeyFile.of(tmp_path, holder, name).create(None)
    names = [f"{file.path.parent.name}/{file.path.stem}" for file in find_keys(tmp_path)]
    assert names == ["alice/layout", "alice/root", "bob/root"]
