"""Our own readable vectors of a small log: they pass on every version, and need no other folder."""

import json
from datetime import UTC, datetime
from pathlib import Path

import pytest

from modelward.formats.checkpoint import SignedCheckpoint
from modelward.formats.leaf import Leaf
from modelward.formats.log_policy import LogPolicy
from modelward.formats.note import VerifierKey
from modelward.formats.tile import Tile
from modelward.formats.tlog_proof import TimestampProof
from modelward.trust.cosignature import verify_log_signature
from modelward.trust.log import verify
from modelward.trust.merkle import Frontier, leaf_hash

VECTORS = Path(__file__).parents[1] / "vectors" / "tlog"
LOG = json.loads((VECTORS / "log.json").read_bytes())
LEAVES = [text.encode() for text in LOG["leaves"]]
SIGNED_AT = datetime(2026, 11, 22, 10, tzinfo=UTC)


@pytest.mark.parametrize("size", range(16))
def test_checkpoint(size):
    data = LOG["checkpoints"][size].encode()
    signed = SignedCheckpoint.parse(data)
    assert signed.to_bytes() == data
    verify_log_signature(signed, VerifierKey.parse(LOG["vkey"]))
    assert signed.checkpoint.size == size
    assert signed.checkpoint.root == Frontier().extend(map(leaf_hash, LEAVES[:size])).root()


@pytest.mark.parametrize("path", LOG["tiles"])
def test_tile(path):
    tile = Tile.parse(path)
    assert tile.hashes(bytes.fromhex(LOG["tiles"][path])) == tuple(
        map(leaf_hash, LEAVES[: tile.width])
    )


@pytest.mark.parametrize("path", LOG["bundles"])
def test_entry_bundle(path):
    bundle = Tile.parse(path)
    entries = bundle.entries(bytes.fromhex(LOG["bundles"][path]))
    assert list(entries) == LEAVES[: bundle.width]
    assert all(Leaf.parse(entry).to_bytes() == entry for entry in entries)


@pytest.mark.parametrize("keys", ["ed25519", "ml-dsa-44"])
def test_proof_in_timestamp(keys):
    case = json.loads((VECTORS / f"{keys}.json").read_bytes())
    policy, proof = LogPolicy.parse(case["x-log"]), TimestampProof.parse(case["x-tlog"])
    assert policy.to_dict() == case["x-log"]
    assert proof.to_dict() == case["x-tlog"]
    found = verify(proof, Leaf.parse(LEAVES[12]), policy, state=None, not_after=SIGNED_AT)
    assert (found.index, found.time) == (12, SIGNED_AT)
    assert found.state.frontier == Frontier().extend(map(leaf_hash, LEAVES)).nodes
