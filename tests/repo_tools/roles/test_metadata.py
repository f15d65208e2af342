from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from securesystemslib.signer import CryptoSigner, Signer
from tuf.api.metadata import Metadata, Root

from modelward.errors import UsageError
from modelward_repo.roles import metadata as tuf
from modelward_repo.roles.keys import from_sslib
from modelward_repo.roles.policy import RoleTrust

NOW = datetime(2026, 11, 22, 10, 0, tzinfo=UTC)
TRUST = RoleTrust(("alice", "bob"), 2, timedelta(days=365))


@pytest.fixture
def signers() -> Sequence[CryptoSigner]:
    return [CryptoSigner.generate_ed25519() for _ in range(2)]


@pytest.fixture
def root(signers: Sequence[CryptoSigner]) -> Metadata[Root]:
    keys = [from_sslib(signer.public_key) for signer in signers]
    return tuf.new_root(
        [(name, TRUST, keys) for name in ("root", "targets", "snapshot", "timestamp")]
    )


def test_every_signer_signs(root: Metadata[Root], signers: Sequence[Signer]) -> None:
    data = tuf.sign(root, 3, NOW, signers)
    read = Metadata[Root].from_bytes(data)
    assert len(read.signatures) == 2
    assert tuf.signed_by(read.signed, "root", read) == sorted(read.signatures)
    assert (read.signed.version, read.signed.expires) == (3, NOW)
    assert read.signed.consistent_snapshot


def test_old_signatures_do_not_survive(root: Metadata[Root], signers: Sequence[Signer]) -> None:
    tuf.sign(root, 1, NOW, signers)
    read = Metadata[Root].from_bytes(tuf.sign(root, 2, NOW, signers[:1]))
    assert len(read.signatures) == 1


def test_expiry_is_explicit_and_in_utc(root: Metadata[Root], signers: Sequence[Signer]) -> None:
    with pytest.raises(ValueError, match="without a time zone"):
        tuf.sign(root, 1, NOW.replace(tzinfo=None), signers)
    from zoneinfo import ZoneInfo  # noqa: PLC0415

    tuf.sign(root, 1, NOW.astimezone(ZoneInfo("Asia/Tokyo")).replace(microsecond=5), signers)
    assert root.signed.expires == NOW


def test_validity_is_signed_by_whoever_delegates(
    root: Metadata[Root], signers: Sequence[Signer]
) -> None:
    read = Metadata[Root].from_bytes(tuf.sign(root, 1, NOW, signers)).signed
    assert tuf.validity(read, "snapshot") == timedelta(days=365)
    for broken in (None, "1d", 0, -5, True, 10**20):
        read.roles["snapshot"].unrecognized_fields[tuf.EXPIRES] = broken
        with pytest.raises(UsageError, match="does not say how long"):
            tuf.validity(read, "snapshot")
    with pytest.raises(UsageError, match="no role 'other'"):
        tuf.validity(read, "other")


def test_delegations_are_terminating(signers: Sequence[CryptoSigner]) -> None:
    targets = tuf.new_targets()
    keys = [from_sslib(signer.public_key) for signer in signers]
    tuf.delegate(targets.signed, "model-x", TRUST, keys, ["models/x/*/*"])
    assert targets.signed.delegations
    assert targets.signed.delegations.roles
    role = targets.signed.delegations.roles["model-x"]
    assert role.terminating
    assert role.threshold == 2
    assert role.is_delegated_path("models/x/1.0/release.json")
    assert not role.is_delegated_path("models/y/1.0/release.json")
    assert not role.is_delegated_path("models/x/1.0/deeper/release.json")
    assert tuf.validity(targets.signed, "model-x") == timedelta(days=365)
    with pytest.raises(UsageError, match="already has a role"):
        tuf.delegate(targets.signed, "model-x", TRUST, keys, ["models/x/*/*"])


def test_listed_files_have_length_and_sha256(tmp_path: Path) -> None:
    del tmp_path
    assert tuf.meta_file(2, b"abc").to_dict() == {
        "version": 2,
        "length": 3,
        "hashes": {"sha256": tuf.target_file("x", b"abc").hashes["sha256"]},
    }
    assert set(tuf.target_file("x", b"abc").hashes) == {"sha256"}
