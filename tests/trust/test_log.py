"""Gate 4: what a device believes of a log, and what it keeps when the log lies."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelward.errors import ExitCode, FormatError, Gate, Refused, Unavailable
from modelward.formats.checkpoint import SignedCheckpoint
from modelward.formats.heard import Heard
from modelward.formats.log_evidence import LogEvidence
from modelward.formats.log_state import CAP, SMALL, LogState
from modelward.formats.note import SignatureType
from modelward.formats.tile import Tile
from modelward.formats.tlog_proof import TimestampProof, TlogProof
from modelward.trust.log import NeedsTiles, Verified, verify
from modelward.trust.split_view import SplitView, Verdict, judge
from tests.simulator.log import NOW, Log, cosign, leaf

SIZE = 40
LATER = NOW + timedelta(hours=1)
PQ = SignatureType.COSIGNATURE_ML_DSA_44


def log(size: int = SIZE, **settings: Any) -> Log:
    made = Log(**settings)
    made.append(*map(leaf, range(size)))
    return made


HONEST = log()


def run(
    shown: Log,
    index: int | None = None,
    *,
    size: int | None = None,
    state: LogState | None = None,
    tiles: Any = None,
    tail: int = 16,
    **signing: Any,
) -> Verified:
    """Show a device a log, by default up to its last leaf."""
    size = len(shown.entries) if size is None else size
    index = size - 1 if index is None else index
    proof = shown.timestamp_proof(index, size, tail, **signing)
    return check(shown, proof, index, state=state, tiles=tiles)


def check(
    shown: Log, proof: TimestampProof | None, index: int, *, state: Any = None, tiles: Any = None
) -> Verified:
    return verify(proof, leaf(index), shown.policy, state=state, not_after=LATER, tiles=tiles)


def seen(size: int, of: Log = HONEST) -> LogState:
    return run(of, size=size).state


def fork_after(common: int, size: int) -> Log:
    """A log that shares its first leaves with the honest one."""
    return HONEST.fork(*map(leaf, range(common)), *(leaf(1000 + n) for n in range(common, size)))


def lie(fork: Log, index: int, **how: Any) -> SplitView:
    """Show a device a fork, and return the refusal."""
    proof = fork.timestamp_proof(index, tail=how.pop("tail", 16), **how.pop("signing", {}))
    with pytest.raises(SplitView) as refusal:
        verify(proof, leaf(1000 + index), fork.policy, not_after=LATER, **how)
    assert refusal.value.gate is Gate.LOG
    assert refusal.value.exit_code is ExitCode.REFUSED
    return refusal.value


# --- honest ---------------------------------------------------------------------------------------


def test_first_use():
    found = run(HONEST)
    assert found.index == SIZE - 1
    assert found.time == NOW
    assert found.times == dict.fromkeys(HONEST.witnesses, NOW)
    assert found.state.signed.checkpoint == HONEST.checkpoint()


@pytest.mark.parametrize(("index", "tail"), [(39, 0), (39, 16), (30, 10), (24, 16)])
def test_first_use_without_a_request(index, tail):
    assert run(HONEST, index, tail=tail).state == seen(SIZE)


def test_first_use_beyond_the_tail():
    with pytest.raises(NeedsTiles) as needed:
        run(HONEST, 3)
    assert (needed.value.old_size, needed.value.new_size) == (0, SIZE)
    assert needed.value.tiles == (Tile(0, 0, SIZE),)
    assert needed.value.otherwise is needed.value
    assert run(HONEST, 3, tiles=HONEST.tiles(needed.value.tiles)).state == seen(SIZE)


@given(st.data())
def test_device_that_skips_any_number_of_versions(data):
    old = data.draw(st.integers(1, SIZE))
    new = data.draw(st.integers(old, SIZE))
    index = data.draw(st.integers(0, new - 1))
    shown = log(new)
    state = seen(old)
    if new - old <= 16:
        found = run(shown, index, state=state)
    else:
        with pytest.raises(NeedsTiles) as needed:
            run(shown, index, state=state)
        assert (needed.value.old_size, needed.value.new_size) == (old, new)
        tiles = shown.tiles(needed.value.tiles)
        found = run(shown, index, state=state, tiles=tiles)
    assert found.state == seen(new)


def test_no_tiles_are_needed_for_16_leaves():
    for index in range(SIZE):
        assert run(HONEST, index, state=seen(SIZE - 16)).state == seen(SIZE)


def test_tiles_of_a_tree_higher_than_one_tile():
    shown = log(600)
    with pytest.raises(NeedsTiles) as needed:
        run(shown, 0, state=seen(5))
    assert Tile(1, 0, 2) in needed.value.tiles
    assert run(shown, 0, state=seen(5), tiles=shown.tiles(needed.value.tiles)).index == 0


def test_same_checkpoint_cosigned_again():
    state = run(HONEST).state
    again = run(HONEST, state=state, at=int(LATER.timestamp()))
    assert again.time == LATER
    assert again.state.frontier == state.frontier


def test_wrong_tail_of_an_honest_log_is_put_right_by_tiles():
    proof = HONEST.timestamp_proof(30)
    proof = replace(proof, tail=proof.tail[::-1])
    with pytest.raises(NeedsTiles) as needed:
        check(HONEST, proof, 30, state=seen(29))
    # Whoever cannot have the tiles takes no chances.
    assert isinstance(needed.value.otherwise, SplitView)
    tiles = HONEST.tiles(needed.value.tiles)
    assert check(HONEST, proof, 30, state=seen(29), tiles=tiles).state == seen(SIZE)


def test_damaged_frontier_accuses_nobody():
    state = seen(30)
    damaged = replace(state, frontier=state.frontier[::-1])
    assert run(HONEST, 29, state=damaged).state == seen(SIZE)


def test_root_that_names_a_new_log_starts_afresh():
    new = log(3, origin="models.example/log-2")
    assert run(new, state=seen(SIZE)).state.signed.checkpoint.size == 3


def test_policy_without_witnesses():
    found = run(log(witnesses=()))
    assert found.time is None
    assert found.times == {}


def test_post_quantum_log_and_witnesses():
    shown = log(kind=PQ, witness_kind=PQ)
    found = run(shown, size=30)
    assert found.time == NOW
    assert run(shown, state=found.state).index == SIZE - 1


# --- unavailable ----------------------------------------------------------------------------------


def unavailable(of: Log, proof: TimestampProof | None, index: int = SIZE - 1, **more: Any) -> str:
    with pytest.raises(Unavailable) as error:
        check(of, proof, index, **more)
    assert error.value.gate is Gate.LOG
    assert error.value.exit_code is ExitCode.UNAVAILABLE
    return error.value.reason


def test_missing_proof():
    assert "no proof" in unavailable(HONEST, None)


@pytest.mark.parametrize("by", [(), ("w1.example",), ("w1.example", "w1.example")])
def test_quorum_missing(by):
    assert "too few witnesses" in unavailable(HONEST, HONEST.timestamp_proof(39, by=by))


def test_unknown_witnesses_do_not_count():
    shown = HONEST.timestamp_proof(39, by=("w1.example", "x.example", "y.example"))
    assert "2 of {w1.example, w2.example, w3.example} must, w1.example did" in unavailable(
        HONEST, shown
    )


def test_future_cosignatures_do_not_count():
    shown = HONEST.timestamp_proof(39, at=int(LATER.timestamp()) + 1)
    assert "w1.example: its time is in the future" in unavailable(HONEST, shown)


@pytest.mark.parametrize("change", ["missing", "short", "flipped", "of another log"])
def test_wrong_tiles_are_no_evidence(change):
    with pytest.raises(NeedsTiles) as needed:
        run(HONEST, 0, state=seen(3))
    tiles = HONEST.tiles(needed.value.tiles)
    (tile,) = tiles
    if change == "missing":
        tiles = {}
    elif change == "short":
        tiles[tile] = tiles[tile][:-1]
    elif change == "flipped":
        tiles[tile] = bytes([tiles[tile][0] ^ 1]) + tiles[tile][1:]
    else:
        tiles = fork_after(2, SIZE).tiles(tiles)
    reason = unavailable(HONEST, HONEST.timestamp_proof(0), 0, state=seen(3), tiles=tiles)
    assert "do not belong to its checkpoint" in reason


# --- refused --------------------------------------------------------------------------------------


def refused(of: Log, proof: TimestampProof, index: int = SIZE - 1) -> str:
    with pytest.raises(Refused) as error:
        check(of, proof, index)
    assert error.value.gate is Gate.LOG
    assert not isinstance(error.value, SplitView)
    return error.value.reason


def test_leaf_that_was_not_logged():
    assert "snapshot version 100 is not in the log" in refused(
        HONEST, HONEST.timestamp_proof(39), 99
    )


def test_index_of_another_leaf():
    proof = HONEST.timestamp_proof(39)
    assert "not in the log" in refused(HONEST, proof, 38)


def test_index_beyond_the_log():
    proof = HONEST.timestamp_proof(39)
    assert "has no leaf" in refused(HONEST, replace(proof, proof=replace(proof.proof, index=SIZE)))


def test_proof_of_another_log():
    other = log(origin="evil.example/log")
    assert "root names" in refused(HONEST, other.timestamp_proof(39))


def with_signatures(*lines: Any) -> TimestampProof:
    proof = HONEST.timestamp_proof(39)
    signed = SignedCheckpoint.new(HONEST.checkpoint(), *lines)
    return replace(proof, proof=replace(proof.proof, checkpoint=signed))


def test_log_that_did_not_sign():
    lines = HONEST.signed().note.signatures
    assert "did not sign" in refused(HONEST, with_signatures(*lines[1:]))


def test_signature_of_another_checkpoint():
    wrong = HONEST.signed(38).note.signatures
    right = HONEST.signed().note.signatures
    assert "the signature of the log" in refused(HONEST, with_signatures(wrong[0], *right[1:]))
    # Two good cosignatures would do; a third that is wrong is still refused.
    reason = refused(HONEST, with_signatures(*right[:3], wrong[3]))
    assert "cosignature of witness 'w3.example' is not valid" in reason


def test_cosignature_of_no_length():
    line = replace(HONEST.signed().note.signatures[1], signature=b"short")
    with pytest.raises(FormatError, match="no cosignature"):
        check(HONEST, with_signatures(HONEST.signed().note.signatures[0], line), 39)


@given(st.data())
def test_any_single_bit_change_is_refused(data):
    strict = log(9, threshold=3)
    proof = strict.timestamp_proof(5)
    changed = bytearray(proof.proof.to_bytes())
    bit = data.draw(st.integers(0, 8 * len(changed) - 1))
    changed[bit // 8] ^= 1 << bit % 8
    with pytest.raises((Refused, Unavailable)):
        check(strict, replace(proof, proof=TlogProof.parse(bytes(changed))), 5)


# --- split views ----------------------------------------------------------------------------------


@pytest.mark.parametrize("by", [None, ()], ids=["cosigned", "not cosigned"])
def test_other_tree_of_the_same_size(by):
    error = lie(fork_after(39, SIZE), 39, state=seen(SIZE), signing={"by": by})
    assert "other than the one this device saw" in error.reason
    assert judge(error.evidence).verdict is Verdict.SPLIT_VIEW


def test_smaller_tree():
    error = lie(fork_after(10, 20), 19, state=seen(SIZE))
    assert "shrank from 40 to 20" in error.reason
    # Two signed sizes prove nothing yet: the log would have to show that one grew from the other.
    assert judge(error.evidence).verdict is Verdict.OPEN


@given(st.data())
def test_rewritten_history_is_proven(data):
    old = data.draw(st.integers(1, SIZE - 1))
    common = data.draw(st.integers(0, old - 1))
    fork = fork_after(common, data.draw(st.integers(old + 1, SIZE)))
    index = data.draw(st.integers(common, len(fork.entries) - 1))
    tail = data.draw(st.integers(0, 16))
    try:
        error = lie(fork, index, state=seen(old), tail=tail)
    except NeedsTiles as needed:
        tiles = fork.tiles(needed.tiles)
        error = lie(fork, index, state=seen(old), tail=tail, tiles=tiles)
    assert "rewrote its history" in error.reason
    again = LogEvidence.parse(error.evidence.to_bytes())
    assert again == error.evidence
    assert judge(again).verdict is Verdict.REWRITTEN
    assert judge(again).proven
    assert judge(again, HONEST.policy).proven


def test_next_leaf_of_a_fork_needs_no_tiles():
    # What a device usually sees: one leaf more than before. The fork is proven at once, although
    # nobody cosigned it.
    error = lie(fork_after(20, 31), 30, state=seen(30), signing={"by": ()})
    assert judge(error.evidence).verdict is Verdict.REWRITTEN


# --- state ----------------------------------------------------------------------------------------


def test_state_is_read_and_written_back():
    state = seen(SIZE)
    assert LogState.parse(state.to_bytes()) == state


def test_state_of_the_largest_tree_is_small():
    state = seen(SIZE)
    tree = replace(state.signed.checkpoint, size=2**63 - 1)
    signed = SignedCheckpoint.new(tree, *state.signed.note.signatures)
    large = LogState(state.log, signed, tuple(bytes([n]) * 32 for n in range(63)))
    assert len(large.to_bytes()) < SMALL
    assert LogState.parse(large.to_bytes()) == large


@pytest.mark.parametrize(("kind", "kept", "cap"), [(SignatureType.ED25519, 1, SMALL), (PQ, 1, CAP)])
def test_post_quantum_cosignatures_are_left_out(kind, kept, cap):
    state = run(log(kind=kind, witness_kind=PQ)).state
    tree = replace(state.signed.checkpoint, size=2**20 - 1)
    signed = SignedCheckpoint.new(tree, *state.signed.note.signatures)
    data = LogState(state.log, signed, tuple(bytes([n]) * 32 for n in range(20))).to_bytes()
    assert len(data) < cap
    assert len(LogState.parse(data).signed.note.signatures) == kept


def test_signatures_of_strangers_are_not_kept():
    tree = HONEST.checkpoint()
    noisy = with_signatures(
        *(cosign(tree, f"noise{n}.example", 1) for n in range(8)),
        *HONEST.signed().note.signatures,
    )
    assert check(HONEST, noisy, 39).state == seen(SIZE)


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        (b'"sha256":"', b'"sha256":"0', "64 lower-case"),
        (b"models.example/log\\n40", b"models.example/log\\n41", "checksum|does not match"),
        (b"log-state/1", b"log-state/2", "schema"),
    ],
)
def test_damaged_state_is_refused(old, new, says):
    data = seen(SIZE).to_bytes()
    assert old in data
    with pytest.raises(FormatError, match=says):
        LogState.parse(data.replace(old, new, 1))


def test_state_with_another_frontier_is_refused():
    state = seen(SIZE)
    with pytest.raises(FormatError, match="frontier"):
        LogState.parse(replace(state, frontier=state.frontier[:1]).to_bytes())


@pytest.mark.fuzz
@given(st.data())
def test_any_state_or_evidence(data):
    state = seen(SIZE)
    evidence = LogEvidence(HONEST.policy, state.signed, HONEST.signed(3))
    heard = Heard(state.log, HONEST.signed(3), NOW, 2, NOW)
    parse, good = data.draw(
        st.sampled_from(
            [
                (LogState.parse, state.to_bytes()),
                (LogEvidence.parse, evidence.to_bytes()),
                (Heard.parse, heard.to_bytes()),
            ]
        )
    )
    assert parse(good).to_bytes() == good
    changed = bytearray(good)
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(changed) - 1))
        changed[at : at + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=3))
    try:
        parse(bytes(changed))
    except FormatError:
        return


def test_epoch_is_no_time():
    assert run(HONEST, at=0).time is None
    assert run(HONEST, at=1).time == datetime(1970, 1, 1, 0, 0, 1, tzinfo=UTC)
