"""Tiles: a log's hashes and entries as static files (c2sp.org/tlog-tiles)."""

import re
from collections.abc import Iterable
from dataclasses import dataclass

from modelward.errors import FormatError

DOCUMENT = "tile"
ENTRIES_DOCUMENT = "entry bundle"
HEIGHT = 8  # levels of the tree that one tile spans
FULL = 1 << HEIGHT  # hashes or entries
HASH = 32  # bytes
MAX_LEVEL = 63
MAX_INDEX = 2**63 - 1
MAX_ENTRY = 0xFFFF  # bytes
_PATH = re.compile(
    r"tile/(?:(entries)|(0|[1-9][0-9]?))/((?:x[0-9]{3}/){0,6}[0-9]{3})(?:\.p/([1-9][0-9]{0,2}))?",
    re.ASCII,
)


@dataclass(frozen=True)
class Tile:
    """Where one tile is.

    Attributes:
        level: From 0, the leaf hashes, to 63; None for the bundle of entries beside level 0.
        index: Which tile of the level, from 0.
        width: Hashes or entries in it: 256, or fewer at the right edge.
    """

    level: int | None
    index: int
    width: int = FULL

    @classmethod
    def parse(cls, path: str) -> "Tile":
        """Parse a path below the log's prefix, such as ``tile/0/x001/234.p/7``.

        Raises:
            FormatError: Not the one spelling of a tile's path.
        """
        match = _PATH.fullmatch(path) if len(path) <= 64 else None  # noqa: PLR2004
        if match is None:
            raise FormatError(DOCUMENT, "path", f"{path[:64]!r} is not a tile's path")
        level = None if match[1] else int(match[2])
        tile = cls(level, int(re.sub(r"[x/]", "", match[3])), int(match[4] or FULL))
        in_bounds = (level or 0) <= MAX_LEVEL and tile.index <= MAX_INDEX and tile.width <= FULL
        # One spelling: no x000 in front, and a full tile has no width.
        if not in_bounds or tile.path != path:
            raise FormatError(DOCUMENT, "path", f"{path!r} is not a tile's path")
        return tile

    @classmethod
    def of(cls, level: int, index: int, size: int) -> "Tile":
        """Return a tile of a tree: as wide as that tree makes it.

        Args:
            level: The tile's level.
            index: Its index.
            size: Leaves of the tree; there must be enough for the tile to exist.
        """
        return cls(level, index, min(FULL, (size >> HEIGHT * level) - index * FULL))

    @property
    def path(self) -> str:
        """The path below the log's prefix."""
        digits = f"{self.index:03d}"
        digits = digits.zfill(-(-len(digits) // 3) * 3)
        groups = [digits[at : at + 3] for at in range(0, len(digits), 3)]
        name = "/".join([*(f"x{group}" for group in groups[:-1]), groups[-1]])
        partial = "" if self.width == FULL else f".p/{self.width}"
        return f"tile/{'entries' if self.level is None else self.level}/{name}{partial}"

    @property
    def full(self) -> "Tile":
        """The full tile that this one becomes: the log may have dropped the partial one."""
        return Tile(self.level, self.index)

    def hashes(self, data: bytes) -> tuple[bytes, ...]:
        """Return the hashes in a tile's bytes.

        Raises:
            FormatError: Not as many bytes as the tile is wide.
        """
        if len(data) != self.width * HASH:
            raise FormatError(
                DOCUMENT, self.path, f"must be {self.width * HASH} bytes, not {len(data)}"
            )
        return tuple(data[at : at + HASH] for at in range(0, len(data), HASH))

    def entries(self, data: bytes) -> tuple[bytes, ...]:
        """Return the entries in a bundle's bytes.

        Raises:
            FormatError: Not as many as the bundle is wide, or cut off.
        """
        found: list[bytes] = []
        at = 0
        while at < len(data) and len(found) < self.width:
            end = at + 2 + int.from_bytes(data[at : at + 2], "big")
            if end > len(data) or at + 2 > len(data):
                raise FormatError(ENTRIES_DOCUMENT, self.path, "is cut off")
            found.append(data[at + 2 : end])
            at = end
        if at != len(data) or len(found) != self.width:
            raise FormatError(ENTRIES_DOCUMENT, self.path, f"must have {self.width} entries")
        return tuple(found)


def write_entries(entries: Iterable[bytes]) -> bytes:
    """Return the bytes of a bundle.

    Raises:
        FormatError: An entry is over 65,535 bytes.
    """
    bundle = bytearray()
    for entry in entries:
        if len(entry) > MAX_ENTRY:
            raise FormatError(ENTRIES_DOCUMENT, "", f"an entry has more than {MAX_ENTRY} bytes")
        bundle += len(entry).to_bytes(2, "big") + entry
    return bytes(bundle)
