"""A stand-alone proof that something was logged, verified offline (`modelward verify-proof`).

A tlog-proof file shows that a leaf is in a log that root names, cosigned as root demands. Its
`extra` line holds the leaf, and the leaf holds the digests of root and snapshot. From there on
each document vouches for the next by digest: snapshot, role, release.json, file.
"""

import contextlib
import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from tuf.api.exceptions import RepositoryError
from tuf.api.metadata import Metadata, Root

from modelward.errors import FormatError, Gate, Refused, Unavailable
from modelward.formats import strict
from modelward.formats.leaf import REPOSITORY_FIELD, Leaf
from modelward.formats.log_policy import LogPolicy
from modelward.formats.release import Release
from modelward.formats.tlog_proof import TlogProof
from modelward.ledger import policy_of
from modelward.trust.cosignature import NO_LIMIT, verify_cosignatures, verify_log_signature
from modelward.trust.merkle import ProofError, leaf_hash, verify_inclusion
from modelward.trust.repository import check_root


@dataclass(frozen=True)
class Proven:
    """What a proof proves.

    Attributes:
        policy: The log, by root.
        leaf: What was logged.
        index: Where.
        size: Leaves of the tree that was cosigned.
        times: When each witness cosigned; None if it made no statement about the time.
        documents: Digest of every document that was given, by its name: each is vouched for.
    """

    policy: LogPolicy
    leaf: Leaf
    index: int
    size: int
    times: Mapping[str, datetime | None]
    documents: Mapping[str, str]

    def to_dict(self) -> dict[str, Any]:
        """Return it as a JSON object."""
        return {
            "outcome": "proven",
            "log": self.policy.origin,
            "index": self.index,
            "size": self.size,
            "repository": self.leaf.repository,
            "root": {"version": self.leaf.root.version, "sha256": self.leaf.root.sha256},
            "snapshot": {
                "version": self.leaf.snapshot.version,
                "sha256": self.leaf.snapshot.sha256,
            },
            "cosigned": {
                name: strict.rfc3339(time) if time else None for name, time in self.times.items()
            },
            "documents": dict(self.documents),
        }

    def to_text(self) -> str:
        """Return it for people."""
        leaf = self.leaf
        lines = [
            f"proven: snapshot {leaf.snapshot.version} with root {leaf.root.version} is logged",
            f"  log        {self.policy.origin}, number {self.index} of {self.size}",
            f"  repository {leaf.repository}",
            f"  root       {leaf.root.sha256}",
            f"  snapshot   {leaf.snapshot.sha256}",
        ]
        lines += [
            f"  cosigned by {name}" + (f" at {strict.rfc3339(time)}" if time else "")
            for name, time in self.times.items()
        ]
        lines += [f"  and so is {name}" for name in self.documents]
        return "\n".join(lines)


def verify_proof(proof: bytes, root: bytes, documents: Mapping[str, bytes]) -> Proven:
    """Verify a stand-alone proof.

    Args:
        proof: The tlog-proof file.
        root: Root metadata that one trusts: it names the log, its witnesses and the repository.
        documents: Documents to follow from the leaf on, by name, in any order.

    Raises:
        Refused: The proof does not hold, or nothing vouches for a document.
        Unavailable: Too few witnesses cosigned.
    """
    check_root(root)
    signed = Metadata[Root].from_bytes(root).signed
    policy = policy_of(signed)
    if policy is None:
        raise Refused(Gate.LOG, "this root names no log", "give the root that was in force")
    try:
        parsed = TlogProof.parse(proof)
        leaf = Leaf.parse(parsed.extra or b"")  # without the line: refused as no leaf
    except FormatError as error:
        error.gate = Gate.LOG
        raise
    repository = signed.unrecognized_fields.get(REPOSITORY_FIELD)
    if leaf.repository != repository:
        raise Refused(Gate.LOG, f"the leaf is of the repository {leaf.repository}, not of root's")
    times = _verify(parsed, leaf, policy)
    found = _follow(leaf, documents)
    tree = parsed.checkpoint.checkpoint
    return Proven(policy, leaf, parsed.index, tree.size, times, found)


def _verify(proof: TlogProof, leaf: Leaf, policy: LogPolicy) -> dict[str, datetime | None]:
    tree = proof.checkpoint.checkpoint
    verify_log_signature(proof.checkpoint, policy.vkey)
    hashed = leaf_hash(leaf.to_bytes())
    try:
        verify_inclusion(proof.index, tree.size, hashed, proof.hashes, tree.root)
    except ProofError as error:
        raise Refused(Gate.LOG, f"the leaf is not in the log {tree.origin}: {error}") from error
    # An old proof is as good as a new one: no time is too late.
    cosigners = verify_cosignatures(proof.checkpoint, policy, NO_LIMIT)
    if not policy.is_quorum(cosigners.times.keys()):
        raise Unavailable(
            f"too few witnesses cosigned: {policy.quorum} must, "
            f"{', '.join(cosigners.times) or 'nobody'} did",
            "ask for a proof that a quorum has cosigned",
            Gate.LOG,
        )
    return {
        name: datetime.fromtimestamp(at, UTC) if at else None
        for name, at in sorted(cosigners.times.items())
    }


def _follow(leaf: Leaf, documents: Mapping[str, bytes]) -> dict[str, str]:
    """Return the digest of every document, if the leaf leads to all of them."""
    digests = {name: hashlib.sha256(data).hexdigest() for name, data in documents.items()}
    vouched = {leaf.root.sha256, leaf.snapshot.sha256}
    left = dict(documents)
    while reached := [name for name in left if digests[name] in vouched]:
        for name in reached:
            vouched.update(_listed(left.pop(name)))
    if left:
        raise Refused(
            Gate.LOG,
            f"nothing that was logged vouches for {', '.join(left)}",
            "give every document on the way: snapshot, role, release.json, file",
        )
    return digests


def _listed(data: bytes) -> Iterator[str]:
    """Yield the digests that a release, a snapshot or a targets role lists."""
    with contextlib.suppress(FormatError):
        yield from (file.blob.sha256 for file in Release.parse(data).files)
        return
    with contextlib.suppress(RepositoryError):
        signed = Metadata[Any].from_bytes(data).signed
        for entry in (getattr(signed, "meta", None) or getattr(signed, "targets", {})).values():
            yield (entry.hashes or {}).get("sha256", "")
