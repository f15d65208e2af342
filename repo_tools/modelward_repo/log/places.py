"""Where a log's files lie in a repository (c2sp.org/tlog-tiles, below the prefix ``log/``)."""

from modelward.formats.tile import Tile

LOG = "log"
CHECKPOINT = f"{LOG}/checkpoint"  # the newest tree that a quorum of witnesses has seen
SIGNED = f"{LOG}/signed"  # the newest tree that the log has signed; not served
WITNESSES = f"{LOG}/witnesses.json"  # where witnesses are reached; not served
RETIRED = f"{LOG}/retired"  # logs that root named before this one, by their key ids


def tile_path(tile: Tile) -> str:
    """Return where a tile lies."""
    return f"{LOG}/{tile.path}"


def archive_path(sha256: str) -> str:
    """Return where a logged document lies."""
    return f"{LOG}/archive/{sha256[:2]}/{sha256}"
