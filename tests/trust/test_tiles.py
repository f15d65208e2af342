"""Trees read from tiles: the shared vectors, and a tree higher than two tiles."""

import os
from functools import cache
from pathlib import Path

import pytest

from modelward.formats.checkpoint import SignedCheckpoint
from modelward.formats.tile import Tile
from modelward.trust import merkle
from modelward.trust.merkle import Frontier, ProofError, cover, leaf_hash, node_hash
from modelward.trust.tiles import TileHashes, tiles_for

SHARED = Path(
    os.environ.get("MODELWARD_VECTORS", Path(__file__).parents[3] / "shared" / "vectors")
) / ("tlog-tiles")
SIZE = 70_000


@cache
def levels() -> list[list[bytes]]:
    """Hashes of all full subtrees of 70,000 leaves, level by level."""
    rows = [[leaf_hash(b"%d" % number) for number in range(SIZE)]]
    while len(rows[-1]) > 1:
        row = rows[-1]
        rows.append([node_hash(*row[at : at + 2]) for at in range(0, len(row) - 1, 2)])
    return rows


def served(tiles: tuple[Tile, ...]) -> dict[Tile, bytes]:
    found = {}
    for tile in tiles:
        assert tile.level is not None
        row = levels()[8 * tile.level]
        found[tile] = b"".join(row[tile.index * 256 :][: tile.width])
    return found


@pytest.mark.parametrize("size", range(1, 16))
def test_shared_tiles_lead_to_their_checkpoint(size):
    if not SHARED.exists():
        pytest.skip("the shared vectors are not here")
    (tile,) = tiles_for(cover(0, size), size)
    read = TileHashes({tile: (SHARED / tile.path).read_bytes()}, size)
    trees = [
        SignedCheckpoint.parse((SHARED / f"checkpoint.{n}").read_bytes()).checkpoint
        for n in range(size + 1)
    ]
    assert [tree.size for tree in trees] == list(range(size + 1))
    root = trees[-1].root
    assert merkle.tree_root(size, read) == root
    for index in range(size):
        proof = merkle.inclusion_proof(index, size, read)
        merkle.verify_inclusion(index, size, read(0, index), proof, root)
        proof = merkle.consistency_proof(index, size, read)
        merkle.verify_consistency(index, size, proof, trees[index].root, root)


@pytest.mark.parametrize(
    ("old", "tiles"),
    [
        (0, {"tile/2/000.p/1", "tile/1/001.p/17", "tile/0/273.p/112"}),
        (69_999, {"tile/2/000.p/1", "tile/1/001.p/17", "tile/0/273.p/112"}),
        (65_535, {"tile/1/000", "tile/0/255", "tile/1/001.p/17", "tile/0/273.p/112"}),
        (300, {"tile/1/000", "tile/0/001", "tile/1/001.p/17", "tile/0/273.p/112"}),
    ],
)
def test_few_tiles_prove_that_a_large_tree_grew(old, tiles):
    below, above = cover(0, old), cover(old, SIZE)
    needed = tiles_for((*below, *above), SIZE)
    assert {tile.path for tile in needed} == tiles
    read = TileHashes(served(needed), SIZE)
    prefix = Frontier(old, tuple(read(*node) for node in below))
    whole = prefix.extend_to(SIZE, [read(*node) for node in above])
    assert whole == Frontier().extend(levels()[0])
    assert prefix == Frontier().extend(levels()[0][:old])


@pytest.mark.parametrize("index", [0, 255, 256, 65_535, 65_536, 69_999])
def test_proofs_from_tiles_of_a_large_tree(index):
    read = lambda level, at: levels()[level][at]  # noqa: E731
    tiled = TileHashes(served(tiles_for(cover(0, SIZE), SIZE)), SIZE)
    root = merkle.tree_root(SIZE, tiled)
    proof = merkle.inclusion_proof(index, SIZE, read)
    merkle.verify_inclusion(index, SIZE, levels()[0][index], proof, root)
    proof = merkle.consistency_proof(index, SIZE, read)
    old = merkle.tree_root(index, read)
    merkle.verify_consistency(index, SIZE, proof, old, root)


def test_missing_and_short_tiles():
    tile = Tile(0, 0, 3)
    with pytest.raises(ProofError, match="missing"):
        TileHashes({}, 3)(0, 1)
    with pytest.raises(ProofError, match="96 bytes"):
        TileHashes({tile: bytes(95)}, 3)(0, 1)
