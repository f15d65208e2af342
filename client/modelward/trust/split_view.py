"""Split views: does a log tell different devices different stories, and who can prove it?

Pure, and the same for everybody: a device, a neighbour, an auditor and a court decide alike.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import Enum

from modelward.errors import Gate, Refused
from modelward.formats.checkpoint import SignedCheckpoint
from modelward.formats.log_evidence import LogEvidence
from modelward.formats.log_policy import LogPolicy
from modelward.trust.cosignature import UnsupportedSignature, verify_log_signature
from modelward.trust.merkle import Frontier, ProofError


class SplitView(Refused):
    """The log showed this device a tree that does not go with the one it showed before.

    Attributes:
        evidence: Both signed checkpoints, to be kept and reported.
    """

    def __init__(self, reason: str, evidence: LogEvidence) -> None:
        super().__init__(
            Gate.LOG,
            reason,
            "the log or its key is not honest, or was restored from a backup: report it to the "
            "security team with `modelward evidence export`; once it is proven, only a new root "
            "that names a new log lifts this",
        )
        self.evidence = evidence


class Verdict(Enum):
    """What evidence shows."""

    SPLIT_VIEW = "split view"  # one size, two root hashes: proven
    REWRITTEN = "history rewritten"  # the larger tree does not begin with the smaller: proven
    CONSISTENT = "consistent"  # the larger tree begins with the smaller
    OPEN = "open"  # both are signed; whether they go together was not shown
    NOTHING = "nothing"  # not two checkpoints signed by this log


@dataclass(frozen=True)
class Judgement:
    """A verdict and its reason.

    Attributes:
        verdict: What the evidence shows.
        reason: One sentence for people.
    """

    verdict: Verdict
    reason: str

    @property
    def proven(self) -> bool:
        """Whether the log is shown to have broken its promise to only append."""
        return self.verdict in (Verdict.SPLIT_VIEW, Verdict.REWRITTEN)


class Order(Enum):
    """How a checkpoint from elsewhere stands to one's own."""

    SAME = "same"
    SMALLER = "smaller"
    LARGER = "larger"  # if it is consistent, this device was kept from it (a freeze)


def judge(evidence: LogEvidence, policy: LogPolicy | None = None) -> Judgement:
    """Judge evidence offline.

    Args:
        evidence: The evidence.
        policy: The log as the judge knows it; None to take the one named in the evidence, whose
            key is then for the reader to compare with the log's published one.
    """
    key = (policy or evidence.policy).vkey
    for name, signed in (("first", evidence.seen), ("second", evidence.shown)):
        try:
            verify_log_signature(signed, key)
        except (Refused, UnsupportedSignature) as error:
            return Judgement(Verdict.NOTHING, f"the {name} checkpoint: {error.reason}")
    small, large = sorted(
        (evidence.seen.checkpoint, evidence.shown.checkpoint), key=lambda tree: tree.size
    )
    if small.size == large.size:
        if small.root == large.root:
            return Judgement(Verdict.CONSISTENT, "both checkpoints are of one and the same tree")
        return Judgement(
            Verdict.SPLIT_VIEW,
            f"the log {key.name} signed two different trees of {small.size} leaves",
        )
    try:
        prefix = Frontier(small.size, evidence.prefix)
        grown = prefix.extend_to(large.size, evidence.rest)
    except ProofError:
        grown = None
    if grown is None or grown.root() != large.root:
        return Judgement(
            Verdict.OPEN,
            f"the log {key.name} signed both; it has to show that its tree of {large.size} leaves "
            f"begins with that of {small.size}",
        )
    if Frontier(small.size, evidence.prefix).root() == small.root:
        return Judgement(
            Verdict.CONSISTENT,
            f"the tree of {large.size} leaves begins with that of {small.size}",
        )
    return Judgement(
        Verdict.REWRITTEN,
        f"the log {key.name} signed a tree of {small.size} leaves and one of {large.size} that "
        "does not begin with it",
    )


def compare(own: SignedCheckpoint, other: SignedCheckpoint, policy: LogPolicy) -> Order:
    """Compare a checkpoint that came from a neighbour or a device with one's own.

    Args:
        own: One's own, verified.
        other: The other. Its cosignatures are not looked at.
        policy: The log that both must be of.

    Raises:
        Refused: The other is not signed by the log: it means nothing.
        SplitView: Both are of one size and have different roots.
    """
    verify_log_signature(other, policy.vkey)
    check_same_size(own, other, policy)
    if other.checkpoint.size == own.checkpoint.size:
        return Order.SAME
    return Order.LARGER if other.checkpoint.size > own.checkpoint.size else Order.SMALLER


def check_same_size(seen: SignedCheckpoint, shown: SignedCheckpoint, policy: LogPolicy) -> None:
    """Refuse two trees of one size that differ (attack row 17).

    Raises:
        SplitView: They do.
    """
    first, second = seen.checkpoint, shown.checkpoint
    if first.size == second.size and first.root != second.root:
        raise SplitView(
            f"the log {first.origin} shows a tree of {first.size} leaves other than the one "
            "this device saw",
            LogEvidence(policy, seen, shown),
        )


def check_prefix(evidence: LogEvidence, prefix: Frontier, rest: Sequence[bytes]) -> None:
    """Refuse a larger tree that does not begin with the one seen (attack rows 17, 19).

    Args:
        evidence: Both checkpoints.
        prefix: Frontier of the seen size within the larger tree, proven to be part of it.
        rest: Hashes of the full subtrees from there to the larger tree's end.

    Raises:
        SplitView: It does not; the hashes are added to the evidence.
    """
    seen, shown = evidence.seen.checkpoint, evidence.shown.checkpoint
    if prefix.root() != seen.root:
        raise SplitView(
            f"the log {seen.origin} rewrote its history: its tree of {shown.size} leaves does not "
            f"begin with the {seen.size} that this device saw",
            replace(evidence, prefix=prefix.nodes, rest=tuple(rest)),
        )
