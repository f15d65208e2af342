"""Reading a log's tree out of its tiles (c2sp.org/tlog-tiles). No tile is trusted by itself.

What is computed from tiles has to lead to a signed root hash; then the tiles were right.
"""

from collections.abc import Iterable, Mapping

from modelward.formats.tile import FULL, HASH, HEIGHT, Tile
from modelward.trust.merkle import Node, ProofError, node_hash


def tiles_for(nodes: Iterable[Node], size: int) -> tuple[Tile, ...]:
    """Return the tiles that hold, or make, these nodes.

    Args:
        nodes: Full subtrees.
        size: Leaves of the tree whose tiles are read: they are as wide as it makes them.
    """
    found = {_place(level, index, size)[0] for level, index in nodes}
    return tuple(sorted(found, key=lambda tile: tile.path))


class TileHashes:
    """Hashes of full subtrees, read from tiles in memory.

    Args:
        tiles: The bytes of tiles, as fetched.
        size: Leaves of the tree they belong to.
    """

    def __init__(self, tiles: Mapping[Tile, bytes], size: int) -> None:
        self._tiles = tiles
        self._size = size

    def __call__(self, level: int, index: int) -> bytes:
        """Return the hash of a full subtree.

        Raises:
            ProofError: The tile is not there, or is not as long as it must be.
        """
        tile, offset = _place(level, index, self._size)
        data = self._tiles.get(tile)
        if data is None:
            raise ProofError(f"{tile.path} is missing")
        if len(data) != tile.width * HASH:
            raise ProofError(f"{tile.path} must be {tile.width * HASH} bytes, not {len(data)}")
        end = offset + (1 << level % HEIGHT)
        row = [data[at * HASH : (at + 1) * HASH] for at in range(offset, end)]
        while len(row) > 1:
            row = [node_hash(*row[at : at + 2]) for at in range(0, len(row), 2)]
        return row[0]


def _place(level: int, index: int, size: int) -> tuple[Tile, int]:
    """Return the tile with a node's hashes, and how far in they begin."""
    first = index << level % HEIGHT
    return Tile.of(level // HEIGHT, first // FULL, size), first % FULL
