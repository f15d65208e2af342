"""Merkle proofs, against vectors of others and our own, and against the naive tree of the RFC."""

import json
import os
from base64 import b64decode
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelward.trust import merkle
from modelward.trust.merkle import Frontier, ProofError
from tests.simulator import merkle as rfc

OWN = Path(__file__).parents[1] / "vectors" / "merkle"
SHARED = Path(os.environ.get("MODELWARD_VECTORS", Path(__file__).parents[3] / "shared" / "vectors"))
# Cases of the shared vectors that are not followed, each with the sentence that says so.
NOT_FOLLOWED = {
    "consistency/additional/size1-is-zero-and-size2-is-not-zero.json": (
        "c2sp.org/merkle-tree, verifying consistency, step 3: 'If m equals 0, the proof is valid "
        "if and only if it is empty.' A witness must take a new log's first checkpoint so "
        "(c2sp.org/tlog-witness: 'The proof MUST be empty if the old size is zero.')"
    ),
}
MAX = 70
entries = [b"entry %d" % number for number in range(MAX)]
sizes = st.integers(1, MAX)


@cache
def root(size: int) -> bytes:
    return rfc.mth(entries[:size])


def read(level: int, index: int) -> bytes:
    return rfc.mth(entries[index << level : (index + 1) << level])


def flip(raw: bytes, bit: int) -> bytes:
    changed = bytearray(raw)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


def own(name: str) -> list[Any]:
    cases = json.loads((OWN / f"{name}.json").read_bytes())["cases"]
    return [pytest.param(case, id=case["name"]) for case in cases]


def shared(kind: str) -> list[Any]:
    folder = SHARED / "merkle"
    return [
        pytest.param(path.relative_to(folder).as_posix(), id=str(path.relative_to(folder)))
        for path in sorted((folder / kind).rglob("*.json"))
    ]


def is_valid(check: Any, *arguments: Any) -> bool:
    try:
        check(*arguments)
    except ProofError:
        return False
    return True


def load(path: str) -> dict[str, Any]:
    case = json.loads((SHARED / "merkle" / path).read_bytes())
    case["proof"] = [b64decode(text) for text in case.get("proof") or ()]
    return case


def check_shared(path: str, valid: bool, want: bool) -> None:
    if path in NOT_FOLLOWED:
        assert valid != want, "it is followed after all: take it off the list"
    else:
        assert valid == want


# --- vectors --------------------------------------------------------------------------------------


def test_own_roots():
    tree = json.loads((OWN / "roots.json").read_bytes())
    leaves = [merkle.leaf_hash(text.encode()) for text in tree["entries"]]
    for size, want in enumerate(tree["roots"]):
        assert Frontier().extend(leaves[:size]).root().hex() == want


@pytest.mark.parametrize("case", own("inclusion"))
def test_own_inclusion(case):
    hashes = [bytes.fromhex(case[name]) for name in ("leaf", "root")]
    proof = [bytes.fromhex(text) for text in case["proof"]]
    found = is_valid(
        merkle.verify_inclusion, case["index"], case["size"], hashes[0], proof, hashes[1]
    )
    assert found == case["valid"]


@pytest.mark.parametrize("case", own("consistency"))
def test_own_consistency(case):
    roots = [bytes.fromhex(case[name]) for name in ("old_root", "new_root")]
    proof = [bytes.fromhex(text) for text in case["proof"]]
    found = is_valid(merkle.verify_consistency, case["old_size"], case["new_size"], proof, *roots)
    assert found == case["valid"]


@pytest.mark.parametrize("path", shared("inclusion"))
def test_shared_inclusion(path):
    case = load(path)
    leaf, tree = b64decode(case["leafHash"]), b64decode(case["root"])
    found = is_valid(
        merkle.verify_inclusion, case["leafIdx"], case["treeSize"], leaf, case["proof"], tree
    )
    check_shared(path, found, not case["wantErr"])


@pytest.mark.parametrize("path", shared("consistency"))
def test_shared_consistency(path):
    case = load(path)
    old, new = b64decode(case["root1"]), b64decode(case["root2"])
    found = is_valid(
        merkle.verify_consistency, case["size1"], case["size2"], case["proof"], old, new
    )
    check_shared(path, found, not case["wantErr"])


def test_all_shared_vectors_are_there():
    if (SHARED / "merkle").exists():
        paths = {param.values[0] for kind in ("inclusion", "consistency") for param in shared(kind)}
        assert len(paths) == 196
        assert set(NOT_FOLLOWED) <= paths


# --- against the RFC's recursion ------------------------------------------------------------------


def test_every_small_tree():
    for size in range(1, 34):
        for index in range(size):
            proof = merkle.inclusion_proof(index, size, read)
            assert list(proof) == rfc.path(index, entries[:size])
            merkle.verify_inclusion(index, size, read(0, index), proof, root(size))
            assert Frontier.before(index, size, proof).root() == root(index)
        for old in range(1, size + 1):
            proof = merkle.consistency_proof(old, size, read)
            assert list(proof) == rfc.proof(old, entries[:size])
            merkle.verify_consistency(old, size, proof, root(old), root(size))
        assert merkle.consistency_proof(0, size, read) == ()
        assert merkle.tree_root(size, read) == root(size)


def test_empty_tree():
    assert Frontier().root() == merkle.EMPTY_ROOT == rfc.mth([])
    assert merkle.tree_root(0, read) == merkle.EMPTY_ROOT
    merkle.verify_consistency(0, 0, (), merkle.EMPTY_ROOT, merkle.EMPTY_ROOT)


@given(steps=st.lists(st.integers(0, 20), max_size=8))
def test_any_append_sequence(steps):
    frontier = Frontier()
    for step in steps:
        wanted = min(MAX, frontier.size + step)
        leaves = [read(0, index) for index in range(frontier.size, wanted)]
        nodes = [read(*node) for node in merkle.cover(frontier.size, wanted)]
        assert frontier.extend_to(wanted, nodes) == frontier.extend(leaves)
        frontier = frontier.extend(leaves)
        assert frontier.root() == root(wanted)


@given(begin=st.integers(0, 2**40), length=st.integers(0, 2**40))
def test_cover_is_gapless_aligned_and_short(begin, length):
    at = begin
    for level, index in merkle.cover(begin, begin + length):
        assert index << level == at
        at += 1 << level
    assert at == begin + length
    assert len(merkle.cover(begin, begin + length)) <= 2 * (begin + length).bit_length()


# --- any single-bit change is refused -------------------------------------------------------------


@given(data=st.data())
def test_inclusion_with_a_bit_flipped(data):
    size = data.draw(sizes)
    index = data.draw(st.integers(0, size - 1))
    parts = [read(0, index), root(size), *rfc.path(index, entries[:size])]
    at = data.draw(st.integers(0, len(parts) - 1))
    parts[at] = flip(parts[at], data.draw(st.integers(0, 255)))
    with pytest.raises(ProofError):
        merkle.verify_inclusion(index, size, parts[0], parts[2:], parts[1])


@given(data=st.data())
def test_consistency_with_a_bit_flipped(data):
    old, new = sorted((data.draw(sizes), data.draw(sizes)))
    parts = [root(old), root(new), *rfc.proof(old, entries[:new])]
    at = data.draw(st.integers(0, len(parts) - 1))
    parts[at] = flip(parts[at], data.draw(st.integers(0, 255)))
    with pytest.raises(ProofError):
        merkle.verify_consistency(old, new, parts[2:], parts[0], parts[1])


@given(data=st.data())
def test_proof_of_another_length(data):
    old, new = sorted((data.draw(sizes), data.draw(sizes)))
    proof = rfc.proof(old, entries[:new])
    if proof and data.draw(st.booleans()):
        del proof[data.draw(st.integers(0, len(proof) - 1))]
    else:
        proof.insert(data.draw(st.integers(0, len(proof))), root(data.draw(sizes)))
    with pytest.raises(ProofError):
        merkle.verify_consistency(old, new, proof, root(old), root(new))


@pytest.mark.fuzz
@given(
    st.integers(-1, 2**63),
    st.integers(-1, 2**63),
    st.lists(st.binary(max_size=33) | st.just(b"\0" * 32), max_size=70),
    st.binary(min_size=32, max_size=32),
)
def test_any_proof_ends(first, second, proof, raw):
    assert not is_valid(merkle.verify_inclusion, first, second, raw, proof, b"\1" * 32)
    if first > 0 and first != second:
        assert not is_valid(merkle.verify_consistency, first, second, proof, raw, b"\1" * 32)


# --- what cannot be -------------------------------------------------------------------------------


def test_frontier_has_one_hash_for_each_bit_of_its_size():
    with pytest.raises(ProofError):
        Frontier(3, (root(1),))
    with pytest.raises(ProofError):
        Frontier(-1, ())


def test_subtree_stands_only_where_it_is_aligned():
    with pytest.raises(ProofError):
        Frontier().append(root(1)).append(root(2), level=1)


@pytest.mark.parametrize(("size", "hashes"), [(8, 1), (8, 3), (5, 1), (4, 0)])
def test_extension_needs_as_many_hashes_as_there_are_subtrees(size, hashes):
    five = Frontier().extend([root(1)] * 5)
    with pytest.raises(ProofError):
        five.extend_to(size, [root(1)] * hashes)


@pytest.mark.parametrize(("index", "size"), [(-1, 3), (3, 3), (0, 0)])
def test_no_proof_for_a_leaf_that_is_not_there(index, size):
    with pytest.raises(ProofError):
        merkle.inclusion_proof(index, size, read)


def test_no_proof_that_a_tree_shrank_consistently():
    with pytest.raises(ProofError):
        merkle.consistency_proof(5, 4, read)
