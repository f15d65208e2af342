"""Merkle trees: hashes, frontiers, proofs of inclusion and consistency (RFC 6962, RFC 9162 2.1).

A node is one full subtree: `(level, index)` spans the leaves from `index << level` up to
`(index + 1) << level`. A range of leaves is covered by a few of them (`cover`), and the hash of a
tree is theirs, folded from the right.
"""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import reduce

HASH = 32  # bytes
EMPTY_ROOT = hashlib.sha256().digest()  # RFC 6962 2.1: the hash of an empty list

Node = tuple[int, int]
HashReader = Callable[[int, int], bytes]  # level and index to the hash of that full subtree


class ProofError(ValueError):
    """A proof does not prove what it should."""


def leaf_hash(entry: bytes) -> bytes:
    """Return the hash of a leaf."""
    return hashlib.sha256(b"\x00" + entry).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """Return the hash of an inner node."""
    return hashlib.sha256(b"\x01" + left + right).digest()


def verify_inclusion(
    index: int, size: int, leaf: bytes, proof: Sequence[bytes], root: bytes
) -> None:
    """Verify that a leaf is in a tree (RFC 9162 2.1.3.2).

    Args:
        index: The leaf's index.
        size: Leaves of the tree.
        leaf: The leaf's hash.
        proof: Hashes from the leaf's sibling up.
        root: The tree's root hash.

    Raises:
        ProofError: It is not, or the proof does not show it.
    """
    _check_hashes((leaf, root))
    computed = leaf
    for is_left, sibling in _path(index, size, proof):
        computed = node_hash(sibling, computed) if is_left else node_hash(computed, sibling)
    if computed != root:
        raise ProofError("the inclusion proof leads to another root hash")


def verify_consistency(
    old_size: int, new_size: int, proof: Sequence[bytes], old_root: bytes, new_root: bytes
) -> None:
    """Verify that one tree is another with leaves added (RFC 9162 2.1.4.2).

    A tree without leaves is consistent with every tree, and its proof is empty (merkle-tree,
    tlog-witness).

    Args:
        old_size: Leaves of the smaller tree.
        new_size: Leaves of the larger tree.
        proof: The consistency proof (RFC 6962 2.1.2).
        old_root: The smaller tree's root hash.
        new_root: The larger tree's root hash.

    Raises:
        ProofError: It is not, or the proof does not show it.
    """
    _check_sizes(old_size, new_size)
    if old_size in (0, new_size):
        _check_without_proof(old_size, new_size, proof, old_root, new_root)
        return
    _check_hashes(proof)
    # Up from the smaller tree's last full subtree; if that is the whole tree, its hash is known.
    level = (old_size & -old_size).bit_length() - 1
    old_index, last = (old_size - 1) >> level, (new_size - 1) >> level
    rest = list(proof) if old_index else [old_root, *proof]
    if not rest:
        raise ProofError("the consistency proof is too short")
    old = new = rest[0]
    for is_left, sibling in _path(old_index, last + 1, rest[1:]):
        if is_left:
            old, new = node_hash(sibling, old), node_hash(sibling, new)
        else:
            new = node_hash(new, sibling)
    if old != old_root:
        raise ProofError("the consistency proof leads to another root hash of the smaller tree")
    if new != new_root:
        raise ProofError("the consistency proof leads to another root hash of the larger tree")


def _check_sizes(old_size: int, new_size: int) -> None:
    if not 0 <= old_size <= new_size:
        raise ProofError(f"a tree of {new_size} leaves does not extend one of {old_size}")


def _check_without_proof(
    old_size: int, new_size: int, proof: Sequence[bytes], old_root: bytes, new_root: bytes
) -> None:
    if proof:
        raise ProofError("the consistency proof is too long")
    if not old_size and old_root != EMPTY_ROOT:
        raise ProofError("a tree without leaves has another root hash")
    if old_size == new_size and old_root != new_root:
        raise ProofError("trees of equal size have different root hashes")


def _path(index: int, size: int, proof: Sequence[bytes]) -> Iterator[tuple[bool, bytes]]:
    """Yield a proof's hashes from the bottom up, and whether each belongs on the left."""
    if not 0 <= index < size:
        raise ProofError(f"a tree of {size} leaves has no leaf {index}")
    _check_hashes(proof)
    last = size - 1
    for sibling in proof:
        if not last:
            raise ProofError("the proof is too long")
        is_left = bool(index & 1) or index == last
        if is_left and not index & 1:
            # The right edge: no sibling on the levels where this subtree stands alone.
            lone = (index & -index).bit_length() - 1
            index, last = index >> lone, last >> lone
        yield is_left, sibling
        index, last = index >> 1, last >> 1
    if last:
        raise ProofError("the proof is too short")


def _check_hashes(proof: Iterable[bytes]) -> None:
    """Refuse hashes of other lengths: two could be cut in another place and hash the same."""
    if any(len(raw) != HASH for raw in proof):
        raise ProofError(f"a hash is not {HASH} bytes long")


@dataclass(frozen=True)
class Frontier:
    """The right edge of a tree: all that is needed to append to it.

    Attributes:
        size: Leaves of the tree.
        nodes: Hashes of its largest full subtrees, left to right: one for each bit of the size.
    """

    size: int = 0
    nodes: tuple[bytes, ...] = ()

    def __post_init__(self) -> None:
        if self.size < 0 or len(self.nodes) != self.size.bit_count():
            raise ProofError(f"{len(self.nodes)} hashes are no frontier of {self.size} leaves")

    @classmethod
    def before(cls, index: int, size: int, proof: Sequence[bytes]) -> "Frontier":
        """Return the frontier of the leaves before one, out of that leaf's inclusion proof.

        Args:
            index: The leaf.
            size: Leaves of the tree that the proof is for.
            proof: The inclusion proof, verified.

        Raises:
            ProofError: It is not a proof for this index and size.
        """
        left = [raw for is_left, raw in _path(index, size, proof) if is_left]
        return cls(index, tuple(reversed(left)))

    def append(self, node: bytes, level: int = 0) -> "Frontier":
        """Return the frontier after a leaf, or a full subtree of 2^level leaves.

        Raises:
            ProofError: Such a subtree cannot stand there.
        """
        if self.size & ((1 << level) - 1):
            raise ProofError(f"no subtree of {1 << level} leaves begins at leaf {self.size}")
        nodes = list(self.nodes)
        above = self.size >> level
        while above & 1:
            node = node_hash(nodes.pop(), node)
            above >>= 1
        return Frontier(self.size + (1 << level), (*nodes, node))

    def extend(self, leaves: Iterable[bytes]) -> "Frontier":
        """Return the frontier after leaves, given by their hashes."""
        return reduce(Frontier.append, leaves, self)

    def extend_to(self, size: int, hashes: Sequence[bytes]) -> "Frontier":
        """Return the frontier of a larger tree.

        Args:
            size: Leaves of the larger tree.
            hashes: Hashes of the nodes of `cover(self.size, size)`.

        Raises:
            ProofError: Not as many as there are nodes.
        """
        nodes = cover(self.size, size)
        if len(nodes) != len(hashes) or self.size > size:
            raise ProofError(f"{len(hashes)} hashes do not reach from {self.size} to {size} leaves")
        return reduce(
            lambda grown, pair: grown.append(pair[1], pair[0][0]),
            zip(nodes, hashes, strict=True),
            self,
        )

    def root(self) -> bytes:
        """Return the tree's root hash."""
        return fold(self.nodes)


def fold(nodes: Sequence[bytes]) -> bytes:
    """Return the hash over neighbouring full subtrees, left to right, ever smaller."""
    if not nodes:
        return EMPTY_ROOT
    return reduce(lambda right, left: node_hash(left, right), reversed(nodes))


def cover(begin: int, end: int) -> tuple[Node, ...]:
    """Return the fewest full subtrees that cover the leaves from `begin` up to `end`."""
    nodes = []
    while begin < end:
        level = (end - begin).bit_length() - 1
        if begin:
            level = min(level, (begin & -begin).bit_length() - 1)
        nodes.append((level, begin >> level))
        begin += 1 << level
    return tuple(nodes)


def tree_root(size: int, read: HashReader) -> bytes:
    """Return the root hash of a log's first `size` leaves."""
    return _range_hash(0, size, read)


def inclusion_proof(index: int, size: int, read: HashReader) -> tuple[bytes, ...]:
    """Return the inclusion proof for a leaf: PATH of RFC 6962 2.1.1.

    Raises:
        ProofError: There is no such leaf.
    """
    if not 0 <= index < size:
        raise ProofError(f"a tree of {size} leaves has no leaf {index}")
    return tuple(_range_hash(begin, end, read) for begin, end in _siblings(index, index + 1, size))


def consistency_proof(old_size: int, new_size: int, read: HashReader) -> tuple[bytes, ...]:
    """Return the consistency proof between two sizes: PROOF of RFC 6962 2.1.2.

    Raises:
        ProofError: The second tree is the smaller.
    """
    _check_sizes(old_size, new_size)
    if old_size in (0, new_size):
        return ()
    last = cover(0, old_size)[-1]
    begin = last[1] << last[0]
    above = [_range_hash(*pair, read) for pair in _siblings(begin, old_size, new_size)]
    # The verifier of a whole subtree knows its hash.
    return tuple(above) if begin == 0 else (read(*last), *above)


def _siblings(begin: int, end: int, size: int) -> Iterator[tuple[int, int]]:
    """Yield the ranges beside a full subtree and beside everything above it, from the bottom."""
    path = []
    low, high = 0, size
    while (low, high) != (begin, end):
        middle = low + (1 << (high - low - 1).bit_length() - 1)
        if begin < middle:
            path.append((middle, high))
            high = middle
        else:
            path.append((low, middle))
            low = middle
    return reversed(path)


def _range_hash(begin: int, end: int, read: HashReader) -> bytes:
    return fold([read(*node) for node in cover(begin, end)])
