"""Gate 4: the transparency log. Was this device shown what everybody is shown?

The proof rides in timestamp.json, so a device that looks in often asks for nothing more. What the
log is, who its witnesses are and how many must agree, root.json says (`x-log`).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from modelward.errors import Gate, ModelwardError, Unavailable
from modelward.formats.leaf import Leaf
from modelward.formats.log_evidence import LogEvidence
from modelward.formats.log_policy import LogPolicy
from modelward.formats.log_state import LogState, log_digest
from modelward.formats.tile import Tile
from modelward.formats.tlog_proof import TimestampProof, TlogProof
from modelward.trust.cosignature import (
    Cosigners,
    refused,
    verify_cosignatures,
    verify_log_signature,
)
from modelward.trust.growth import check_growth, tiles_between
from modelward.trust.merkle import Frontier, ProofError, cover, leaf_hash, verify_inclusion
from modelward.trust.split_view import SplitView, check_prefix, check_same_size


class NeedsTiles(Unavailable):
    """The tail does not reach back to what this device saw: tiles have to be fetched.

    Attributes:
        old_size: Leaves of the tree this device saw; 0 for none.
        new_size: Leaves of the tree it was shown.
        tiles: Which tiles: pass them to `verify` again.
        otherwise: What to raise if they cannot be had.
    """

    def __init__(
        self,
        old_size: int,
        new_size: int,
        tiles: tuple[Tile, ...],
        otherwise: ModelwardError | None = None,
    ) -> None:
        super().__init__(
            f"the log grew from {old_size} to {new_size} leaves, and its tiles are needed to "
            "prove that it only grew",
            "try again later, or from another mirror",
            Gate.LOG,
        )
        self.old_size = old_size
        self.new_size = new_size
        self.tiles = tiles
        self.otherwise = otherwise or self


@dataclass(frozen=True)
class Verified:
    """What gate 4 established.

    Attributes:
        state: What to remember of the log.
        index: Where in the log the leaf is.
        times: When each witness cosigned, by the policy's names; without those that make no
            statement about the time.
        time: A time that a quorum of witnesses says has passed: a floor for the clock. None
            where the policy asks for no witnesses, or they make no statement.
        ignored: Witnesses that signed but do not count, and why.
    """

    state: LogState
    index: int
    times: Mapping[str, datetime]
    time: datetime | None
    ignored: Mapping[str, str]


def verify(  # noqa: PLR0913 - each is a different thing that the caller alone can know
    proof: TimestampProof | None,
    leaf: Leaf,
    policy: LogPolicy,
    *,
    state: LogState | None,
    not_after: datetime,
    tiles: Mapping[Tile, bytes] | None = None,
) -> Verified:
    """Verify that a leaf is in the log, and that the log is the one everybody sees.

    Args:
        proof: What rode in timestamp.json; None if there was nothing.
        leaf: The leaf, made from the metadata just verified.
        policy: Root's log policy.
        state: What this device remembers of the log; None on first use.
        not_after: Cosignatures from later than this do not count. Not the device's own clock
            alone: that one may be behind, and these times are what sets it right.
        tiles: Tiles that an earlier call asked for.

    Raises:
        Refused: The leaf is not in this log, or a signature is not valid.
        SplitView: The log contradicts what this device saw; the evidence is attached.
        NeedsTiles: This device is further behind than the tail reaches.
        Unavailable: There is no proof, or too few witnesses cosigned.
    """
    # 1. There is a proof.
    if proof is None:
        raise Unavailable(
            "the repository gives no proof that this snapshot was logged",
            "try again later; if it stays so, ask the security team",
            Gate.LOG,
        )
    shown = proof.proof.checkpoint
    # 2. It is of the log that root names, and signed by it.
    verify_log_signature(shown, policy.vkey)
    seen = _remembered(state, policy)
    # 3. Not another tree of the size, nor a smaller one, than this device saw. Before anything
    #    that can fail for want of honesty: a thief of the log's key leaves evidence here.
    if seen is not None:
        check_same_size(seen.signed, shown, policy)
        _check_growth(seen, LogEvidence(policy, seen.signed, shown))
    # 4. The leaf is included.
    before = _check_inclusion(proof.proof, leaf)
    # 5. The tree only grew, as far as the tail reaches.
    frontier = _from_tail(proof, before, leaf, seen, policy)
    # 6. Enough witnesses saw the same tree.
    cosigners = verify_cosignatures(shown, policy, not_after)
    _check_quorum(cosigners, policy)
    # 7. The tree only grew, from tiles, where the tail does not reach.
    if frontier is None:
        frontier = _from_tiles(proof, seen, policy, tiles)
    return Verified(
        LogState.of(shown, frontier.nodes, policy.vkey, policy.witnesses),
        proof.proof.index,
        {name: datetime.fromtimestamp(at, UTC) for name, at in cosigners.times.items() if at},
        cosigners.quorum_time(policy),
        cosigners.ignored,
    )


def _remembered(state: LogState | None, policy: LogPolicy) -> LogState | None:
    """Return the state if it is of this log: root's threshold may have named a new one."""
    if state is None or state.log != log_digest(policy.vkey):
        return None
    return state


def _check_growth(seen: LogState, evidence: LogEvidence) -> None:
    """Refuse a smaller tree: a log taken back to where it can be rewritten (attack row 19)."""
    old, new = seen.signed.checkpoint.size, evidence.shown.checkpoint.size
    if new < old:
        raise SplitView(
            f"the log {evidence.shown.checkpoint.origin} shrank from {old} to {new} leaves",
            evidence,
        )


def _check_inclusion(proof: TlogProof, leaf: Leaf) -> Frontier:
    """Return the frontier of the leaves before this one, in the tree that was shown."""
    tree = proof.checkpoint.checkpoint
    hashed = leaf_hash(leaf.to_bytes())
    try:
        verify_inclusion(proof.index, tree.size, hashed, proof.hashes, tree.root)
        return Frontier.before(proof.index, tree.size, proof.hashes)
    except ProofError as error:
        raise refused(
            f"snapshot version {leaf.snapshot.version} is not in the log {tree.origin}: {error}"
        ) from error


def _from_tail(
    proof: TimestampProof, before: Frontier, leaf: Leaf, seen: LogState | None, policy: LogPolicy
) -> Frontier | None:
    """Return the shown tree's frontier, proven by the tail to be grown from the seen one.

    Returns None if the tail is too short, or wrong, to prove or disprove anything.
    """
    tree = proof.proof.checkpoint.checkpoint
    if seen is not None:
        grown = _grow(seen, proof)
        if grown is not None and grown.root() == tree.root:
            return grown
    # What came before the leaf is in the inclusion proof; with the tail that is the whole tree.
    leaves = _leaves_since(before.size, proof)
    if leaves is None and before.size == tree.size - 1:
        leaves = (leaf_hash(leaf.to_bytes()),)
    whole = None if leaves is None else before.extend(leaves)
    if leaves is None or whole is None or whole.root() != tree.root:
        return None
    if seen is not None:
        old_size = seen.signed.checkpoint.size
        if old_size < before.size:
            return None
        # The same hashes show what the seen tree is in this one: another, as it seems.
        prefix = before.extend(leaves[: old_size - before.size])
        rest = _range_of_leaves(prefix.size, leaves[old_size - before.size :])
        check_prefix(LogEvidence(policy, seen.signed, proof.proof.checkpoint), prefix, rest)
    return whole


def _grow(seen: LogState, proof: TimestampProof) -> Frontier | None:
    """Return the seen tree with the leaves added that the tail gives, if it has them all."""
    old = Frontier(seen.signed.checkpoint.size, seen.frontier)
    added = _leaves_since(old.size, proof)
    if added is None or old.root() != seen.signed.checkpoint.root:
        return None
    return old.extend(added)


def _leaves_since(size: int, proof: TimestampProof) -> tuple[bytes, ...] | None:
    """Return the leaves that a tree of this size lacks, or None if the tail is too short."""
    missing = proof.proof.checkpoint.checkpoint.size - size
    return proof.tail[len(proof.tail) - missing :] if missing <= len(proof.tail) else None


def _range_of_leaves(begin: int, leaves: tuple[bytes, ...]) -> tuple[bytes, ...]:
    """Return the hashes of `cover(begin, begin + len(leaves))`."""
    return tuple(
        Frontier().extend(leaves[(index << level) - begin :][: 1 << level]).root()
        for level, index in cover(begin, begin + len(leaves))
    )


def _check_quorum(cosigners: Cosigners, policy: LogPolicy) -> None:
    if policy.is_quorum(cosigners.times.keys()):
        return
    signed = ", ".join(sorted(cosigners.times)) or "nobody"
    ignored = "".join(f"; {name}: {why}" for name, why in sorted(cosigners.ignored.items()))
    raise Unavailable(
        f"too few witnesses cosigned the log: {policy.quorum} must, {signed} did{ignored}",
        "try again later; if it stays so, check this device's clock and ask the security team",
        Gate.LOG,
    )


def _from_tiles(
    proof: TimestampProof,
    seen: LogState | None,
    policy: LogPolicy,
    tiles: Mapping[Tile, bytes] | None,
) -> Frontier:
    """Return the shown tree's frontier, proven by tiles to be grown from the seen one."""
    shown = proof.proof.checkpoint
    tree = shown.checkpoint
    old_size = seen.signed.checkpoint.size if seen else 0
    if tiles is None:
        otherwise = None
        if seen is not None and tree.size - old_size <= len(proof.tail):
            # The tail reaches, and yet does not fit. Without tiles nobody can say whose fault
            # it is, and this device takes no chances.
            otherwise = SplitView(
                f"the log {tree.origin} does not show that its {tree.size} leaves begin with the "
                f"{old_size} that this device saw",
                LogEvidence(policy, seen.signed, shown),
            )
        raise NeedsTiles(old_size, tree.size, tiles_between(old_size, tree.size), otherwise)
    return check_growth(seen.signed if seen else None, shown, policy, tiles)
