"""Signatures on checkpoints: the specification's own example, times, and the quorum's time."""

import builtins
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from modelward.errors import FormatError, Refused
from modelward.formats.checkpoint import SignedCheckpoint
from modelward.formats.cosignature import Cosignature, signed_message
from modelward.formats.log_policy import Group, LogPolicy
from modelward.formats.note import SignatureType
from modelward.trust.cosignature import (
    Cosigners,
    UnsupportedSignature,
    verify_cosignatures,
    verify_log_signature,
)
from tests.simulator.log import NOW, Log, cosign, key, sign_checkpoint

PQ = SignatureType.COSIGNATURE_ML_DSA_44
LOG = Log()
TREE = LOG.checkpoint()


def test_ed25519_message():
    vkey, _ = key("w", SignatureType.COSIGNATURE_ED25519)
    assert signed_message(vkey, TREE, 1679315147) == (
        b"cosignature/v1\ntime 1679315147\nmodels.example/log\n0\n"
        b"47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=\n"
    )


def test_ml_dsa_message():
    vkey, _ = key("w", PQ)
    assert signed_message(vkey, LOG.checkpoint(), 258) == (
        b"subtree/v1\n\0"
        b"\x01w"
        b"\0\0\0\0\0\0\x01\x02"
        b"\x12models.example/log"
        b"\0\0\0\0\0\0\0\0"
        b"\0\0\0\0\0\0\0\0" + TREE.root
    )  # fmt: skip


@pytest.mark.parametrize("kind", [SignatureType.COSIGNATURE_ED25519, PQ])
def test_cosignature_is_read_and_written_back(kind):
    raw = cosign(TREE, "w", 7, kind).signature
    assert Cosignature.parse(raw, kind).time == 7
    assert Cosignature.parse(raw, kind).to_bytes() == raw
    for wrong in (raw[:-1], raw + b"x", b"\x80" + raw[1:]):
        with pytest.raises(FormatError, match="cosignature"):
            Cosignature.parse(wrong, kind)


@pytest.mark.parametrize("kind", [SignatureType.COSIGNATURE_ED25519, PQ])
def test_time_is_signed(kind):
    vkey, _ = key("w", kind)
    line = cosign(TREE, "w", 7, kind)
    later = Cosignature(8, line.signature[8:]).to_bytes()
    policy = LogPolicy(LOG.policy.vkey, {"w": vkey}, Group(1, ("w",)))
    signed = SignedCheckpoint.new(TREE, line)
    assert verify_cosignatures(signed, policy, NOW).times == {"w": 7}
    forged = SignedCheckpoint.new(TREE, type(line).by(vkey, later))
    with pytest.raises(Refused, match="is not valid"):
        verify_cosignatures(forged, policy, NOW)


def test_newest_of_two_cosignatures_counts():
    lines = [cosign(TREE, "w1.example", at) for at in (7, 9, 8)]
    found = verify_cosignatures(SignedCheckpoint.new(TREE, *lines), LOG.policy, NOW)
    assert found.times == {"w1.example": 9}


def test_one_in_the_future_does_not_spoil_one_in_the_past():
    late = int((NOW + timedelta(seconds=1)).timestamp())
    lines = [cosign(TREE, "w1.example", at) for at in (late, 7)]
    found = verify_cosignatures(SignedCheckpoint.new(TREE, *lines), LOG.policy, NOW)
    assert found.times == {"w1.example": 7}
    assert found.ignored == {}


@pytest.mark.parametrize(
    ("times", "quorum"),
    [
        ({"w1.example": 9}, None),
        ({"w1.example": 9, "w2.example": 5}, 5),
        # One stolen witness key does not move the clock.
        ({"w1.example": 2**33, "w2.example": 5, "w3.example": 4}, 5),
        ({"w1.example": 9, "w2.example": 0}, None),
        ({"w1.example": 9, "w2.example": 0, "w3.example": 8}, 8),
    ],
)
def test_quorum_time(times, quorum):
    want = None if quorum is None else datetime.fromtimestamp(quorum, UTC)
    assert Cosigners(times, {}).quorum_time(LOG.policy) == want


def test_log_key_of_both_types():
    for kind in (SignatureType.ED25519, PQ):
        vkey = key(LOG.origin, kind)[0]
        both = SignedCheckpoint.new(
            TREE, sign_checkpoint(TREE, SignatureType.ED25519), sign_checkpoint(TREE, PQ)
        )
        verify_log_signature(both, vkey)


def test_device_without_ml_dsa_says_so(monkeypatch):
    real = builtins.__import__

    def without(name: str, *arguments: Any) -> Any:
        if name.endswith(".mldsa"):
            raise ImportError(name)
        return real(name, *arguments)

    mixed = Log(witness_kind=PQ)
    signed = mixed.signed()
    own = key(LOG.origin, PQ)[0]
    pq_signed = SignedCheckpoint.new(TREE, sign_checkpoint(TREE, PQ))
    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(UnsupportedSignature, match="ML-DSA-44"):
        verify_log_signature(pq_signed, own)
    found = verify_cosignatures(signed, mixed.policy, NOW)
    assert found.times == {}
    assert set(found.ignored) == set(mixed.witnesses)
