"""A log and its witnesses in memory: keys, checkpoints, proofs and tiles, honest or not::

log = Log()
log.append(leaf(1), leaf(2))
log.timestamp_proof(1)                # proof for leaf 1, cosigned, with its tail
fork = log.fork(leaf(1), leaf(9))     # other history under the same key
"""

import hashlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA44PrivateKey

from modelward.formats.checkpoint import Checkpoint, SignedCheckpoint
from modelward.formats.cosignature import Cosignature, signed_message
from modelward.formats.leaf import Leaf, RoleDigest
from modelward.formats.log_policy import Group, LogPolicy
from modelward.formats.note import SignatureLine, SignatureType, VerifierKey
from modelward.formats.tile import FULL, Tile
from modelward.formats.tlog_proof import MAX_TAIL, TimestampProof, TlogProof
from modelward.trust.merkle import leaf_hash
from tests.simulator import merkle

ORIGIN = "models.example/log"
NOW = datetime(2026, 11, 22, 10, tzinfo=UTC)
NO_DATE = 253402300800  # the second after the year 9999
Sign = Callable[[bytes], bytes]


def leaf(number: int) -> Leaf:
    """The leaf of a snapshot version."""
    digest = hashlib.sha256(b"%d" % number).hexdigest()
    return Leaf("models.example", RoleDigest(1, "0" * 64), RoleDigest(number + 1, digest))


@cache
def key(name: str, kind: SignatureType) -> tuple[VerifierKey, Sign]:
    """A key pair, the same each time it is asked for."""
    seed = hashlib.sha256(name.encode()).digest()
    private: Any = (
        MLDSA44PrivateKey.from_seed_bytes(seed)
        if kind is SignatureType.COSIGNATURE_ML_DSA_44
        else Ed25519PrivateKey.from_private_bytes(seed)
    )
    return VerifierKey(name, kind, private.public_key().public_bytes_raw()), private.sign


def cosign(
    checkpoint: Checkpoint,
    name: str,
    at: int,
    kind: SignatureType = SignatureType.COSIGNATURE_ED25519,
) -> SignatureLine:
    """A witness's cosignature."""
    vkey, sign = key(name, kind)
    made = sign(signed_message(vkey, checkpoint, at))
    return SignatureLine.by(vkey, Cosignature(at, made).to_bytes())


def also_cosigned(signed: SignedCheckpoint, name: str, at: int) -> SignedCheckpoint:
    """A checkpoint that one more witness cosigned."""
    return SignedCheckpoint.of(signed.note.signed([cosign(signed.checkpoint, name, at)]))


def sign_checkpoint(checkpoint: Checkpoint, kind: SignatureType) -> SignatureLine:
    """The log's signature."""
    if kind is SignatureType.COSIGNATURE_ML_DSA_44:
        return cosign(checkpoint, checkpoint.origin, int(NOW.timestamp()), kind)
    vkey, sign = key(checkpoint.origin, kind)
    return SignatureLine.by(vkey, sign(str(checkpoint).encode()))


@dataclass
class Log:
    """A log that will sign anything."""

    entries: list[bytes] = field(default_factory=list)
    origin: str = ORIGIN
    kind: SignatureType = SignatureType.ED25519
    witnesses: tuple[str, ...] = ("w1.example", "w2.example", "w3.example")
    witness_kind: SignatureType = SignatureType.COSIGNATURE_ED25519
    threshold: int = 2

    def append(self, *leaves: Leaf) -> None:
        self.entries += [each.to_bytes() for each in leaves]

    def fork(self, *leaves: Leaf) -> "Log":
        """Another history under the same keys."""
        return Log(
            [each.to_bytes() for each in leaves],
            self.origin,
            self.kind,
            self.witnesses,
            self.witness_kind,
            self.threshold,
        )

    @property
    def policy(self) -> LogPolicy:
        keys = {name: key(name, self.witness_kind)[0] for name in self.witnesses}
        quorum = Group(self.threshold, tuple(keys)) if keys else None
        return LogPolicy(key(self.origin, self.kind)[0], keys, quorum)

    def checkpoint(self, size: int | None = None) -> Checkpoint:
        size = len(self.entries) if size is None else size
        return Checkpoint(self.origin, size, merkle.mth(self.entries[:size]))

    def signed(
        self,
        size: int | None = None,
        by: Iterable[str] | None = None,
        at: int = int(NOW.timestamp()),
    ) -> SignedCheckpoint:
        """A checkpoint with the signatures of the log and of some witnesses, by default all."""
        tree = self.checkpoint(size)
        names = self.witnesses if by is None else by
        lines = [cosign(tree, name, at, self.witness_kind) for name in names]
        return SignedCheckpoint.new(tree, sign_checkpoint(tree, self.kind), *lines)

    def timestamp_proof(
        self, index: int, size: int | None = None, tail: int = MAX_TAIL, **signing: Any
    ) -> TimestampProof:
        """What rides in timestamp.json."""
        signed = self.signed(size, **signing)
        entries = self.entries[: signed.checkpoint.size]
        hashes = tuple(map(leaf_hash, entries[max(0, len(entries) - tail) :])) if tail else ()
        return TimestampProof(TlogProof(index, tuple(merkle.path(index, entries)), signed), hashes)

    def tiles(self, wanted: Iterable[Tile]) -> dict[Tile, bytes]:
        """What the log would serve for tiles of its tree now."""
        found = {}
        for tile in wanted:
            assert tile.level is not None
            data = merkle.tile(self.entries, tile.level, tile.index)
            found[tile] = data[: 32 * min(tile.width, FULL)]
        return found
