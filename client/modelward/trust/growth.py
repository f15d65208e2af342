"""Did one tree of the log grow from another? Read out of tiles, which anybody may have handed over.

A device asks it about what it saw before; devices, neighbours and servers ask it about what others
say they saw.
"""

from collections.abc import Mapping

from modelward.errors import Gate, Unavailable
from modelward.formats.checkpoint import SignedCheckpoint
from modelward.formats.log_evidence import LogEvidence
from modelward.formats.log_policy import LogPolicy
from modelward.formats.tile import Tile
from modelward.trust.merkle import Frontier, ProofError, cover
from modelward.trust.split_view import check_prefix
from modelward.trust.tiles import TileHashes, tiles_for


def tiles_between(old_size: int, new_size: int) -> tuple[Tile, ...]:
    """Return the tiles that `check_growth` needs, as wide as the larger tree makes them."""
    return tiles_for((*cover(0, old_size), *cover(old_size, new_size)), new_size)


def check_growth(
    seen: SignedCheckpoint | None,
    shown: SignedCheckpoint,
    policy: LogPolicy,
    tiles: Mapping[Tile, bytes],
) -> Frontier:
    """Return the frontier of a tree, proven by tiles to begin with a smaller one.

    Args:
        seen: The smaller tree, signed by the log; None for the empty one.
        shown: The larger one, signed by the log.
        policy: The log.
        tiles: Those that `tiles_between` names.

    Raises:
        SplitView: It does not begin with it (attack rows 17, 19).
        Unavailable: The tiles are not those of the larger tree: nobody signs tiles.
    """
    tree = shown.checkpoint
    old_size = seen.checkpoint.size if seen else 0
    read = TileHashes(tiles, tree.size)
    try:
        prefix = Frontier(old_size, tuple(read(*node) for node in cover(0, old_size)))
        rest = tuple(read(*node) for node in cover(old_size, tree.size))
        grown = prefix.extend_to(tree.size, rest)
    except ProofError as error:
        raise _bad_tiles(str(error)) from error
    if grown.root() != tree.root:
        raise _bad_tiles("they lead to another root hash")
    if seen is not None:
        check_prefix(LogEvidence(policy, seen, shown), prefix, rest)
    return grown


def _bad_tiles(problem: str) -> Unavailable:
    """Tiles are not signed: wrong ones are their server's fault, and no evidence."""
    return Unavailable(
        f"the log's tiles do not belong to its checkpoint: {problem}",
        "use another mirror",
        Gate.LOG,
    )
