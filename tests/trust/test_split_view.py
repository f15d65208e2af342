"""Evidence, judged offline; and checkpoints that neighbours and devices exchange."""

from dataclasses import replace

import pytest

from modelward.errors import FormatError, Refused
from modelward.formats.log_evidence import LogEvidence
from modelward.trust.merkle import Frontier, cover, leaf_hash
from modelward.trust.split_view import Order, SplitView, Verdict, compare, judge
from tests.simulator import merkle as rfc
from tests.simulator.log import Log, leaf

LOG = Log()
LOG.append(*map(leaf, range(13)))
FORK = LOG.fork(*map(leaf, range(6)), *(leaf(100 + n) for n in range(7)))


def shown_by(log: Log, old: int, new: int) -> tuple[tuple[bytes, ...], tuple[bytes, ...]]:
    """The hashes of a log's tree that evidence carries."""
    prefix = Frontier().extend(leaf_hash(entry) for entry in log.entries[:old])
    rest = [rfc.mth(log.entries[i << h : (i + 1) << h]) for h, i in cover(old, new)]
    return prefix.nodes, tuple(rest)


def evidence(old: int, new: int, hashes: Log | None = None) -> LogEvidence:
    made = LogEvidence(LOG.policy, LOG.signed(old), FORK.signed(new))
    if hashes is None:
        return made
    prefix, rest = shown_by(hashes, old, new)
    return replace(made, prefix=prefix, rest=rest)


@pytest.mark.parametrize(
    ("found", "verdict"),
    [
        (evidence(13, 13), Verdict.SPLIT_VIEW),
        (evidence(7, 7), Verdict.SPLIT_VIEW),
        (evidence(6, 6), Verdict.CONSISTENT),
        (evidence(8, 13, FORK), Verdict.REWRITTEN),
        (evidence(7, 12, FORK), Verdict.REWRITTEN),
        (evidence(6, 13, FORK), Verdict.CONSISTENT),
        (evidence(5, 6, FORK), Verdict.CONSISTENT),
        (evidence(8, 13), Verdict.OPEN),
        (evidence(8, 13, LOG), Verdict.OPEN),  # hashes that do not lead to the larger tree
        (replace(evidence(8, 13, FORK), rest=()), Verdict.OPEN),
        (
            replace(evidence(8, 13, FORK), seen=FORK.signed(13), shown=LOG.signed(8)),
            Verdict.REWRITTEN,
        ),
    ],
)
def test_verdicts(found, verdict):
    judgement = judge(LogEvidence.parse(found.to_bytes()))
    assert judgement.verdict is verdict
    assert judgement.reason


def test_nobody_is_accused_of_what_they_did_not_sign():
    found = evidence(13, 13)
    forged = replace(found.shown.note.signatures[0], signature=bytes(64))
    unsigned = replace(found, shown=type(found.shown).new(found.shown.checkpoint, forged))
    assert judge(unsigned).verdict is Verdict.NOTHING
    assert "second checkpoint" in judge(unsigned).reason
    # Evidence names its own log; a judge with the real log's key is not taken in.
    mallory = Log(FORK.entries, origin="mallory.example/log")
    theirs = LogEvidence(mallory.policy, mallory.signed(13), mallory.fork(leaf(1)).signed(1))
    assert judge(theirs).verdict is Verdict.OPEN
    assert judge(theirs, LOG.policy).verdict is Verdict.NOTHING


@pytest.mark.parametrize(
    ("own", "other", "order"), [(5, 5, Order.SAME), (5, 4, Order.SMALLER), (5, 6, Order.LARGER)]
)
def test_gossip(own, other, order):
    assert compare(LOG.signed(own), FORK.signed(other, by=()), LOG.policy) is order


def test_gossip_uncovers_a_split_view():
    with pytest.raises(SplitView) as refusal:
        compare(LOG.signed(9), FORK.signed(9), LOG.policy)
    assert judge(refusal.value.evidence).proven


def test_gossip_of_another_log_means_nothing():
    other = Log(origin="evil.example/log").signed(0)
    with pytest.raises(Refused) as refusal:
        compare(LOG.signed(9), other, LOG.policy)
    assert not isinstance(refusal.value, SplitView)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b"evidence/1", b"evidence/2"),
        (b'"seen":', b'"saw":'),
        (b'"seen":"', b'"seen":["'),
        (b'"rest":[', b'"rest":[1,'),
        (b'"prefix":[', b'"prefix":["AAAA",'),
        (b'"log":', b'"critical":["x"],"log":'),
    ],
)
def test_ill_formed_evidence_is_refused(old, new):
    data = evidence(8, 13, FORK).to_bytes()
    assert old in data
    with pytest.raises(FormatError):
        LogEvidence.parse(data.replace(old, new, 1))
