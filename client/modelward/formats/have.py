"""What a neighbour has of one blob that it may still be fetching: GET /have/<sha256>.

Nobody vouches for it: it says where asking may help, and who else is at it.
"""

import re
from dataclasses import dataclass

from modelward.errors import FormatError
from modelward.formats import strict

DOCUMENT = "what a neighbour has"
SCHEMA = "modelward/have/1"
CAP = 256 << 10
MAX_EXTENTS = 8192
MAX_COMING = 64
_ID = re.compile(r"[0-9a-f]{16}")


@dataclass(frozen=True)
class Have:
    """What a neighbour has.

    Attributes:
        neighbour: An id, the same for everybody who asks, so that all share the work out alike.
        wants: Whether it has the blob, or is fetching it together with neighbours.
        extents: The parts that it has, as (start, stop), in order and apart.
        coming: Those that it is bringing from the repository, so that nobody else needs to.
    """

    neighbour: str
    wants: bool = False
    extents: tuple[tuple[int, int], ...] = ()
    coming: tuple[tuple[int, int], ...] = ()

    @classmethod
    def parse(cls, data: bytes, length: int) -> "Have":
        """Parse an answer.

        Args:
            data: The answer.
            length: Bytes of the blob.

        Raises:
            FormatError: Ill-formed.
        """
        fields = strict.Fields(DOCUMENT, strict.load(DOCUMENT, data, CAP))
        fields.schema(SCHEMA)
        neighbour = fields.text("neighbour", 16)
        if not _ID.fullmatch(neighbour):
            raise fields.wrong("neighbour", "must be 16 lower-case hex digits")
        extents = _parts(fields, "extents", MAX_EXTENTS, length)
        coming = _parts(fields, "coming", MAX_COMING, length)
        return cls(neighbour, fields.boolean("wants"), extents, coming)

    def to_bytes(self) -> bytes:
        """Return the answer. Of more parts than fit, the first are told."""
        return strict.dump(
            {
                "schema": SCHEMA,
                "neighbour": self.neighbour,
                "wants": self.wants,
                "extents": [list(extent) for extent in self.extents[:MAX_EXTENTS]],
                "coming": [list(extent) for extent in self.coming[:MAX_COMING]],
            }
        )

    def covers(self, start: int, stop: int) -> bool:
        """Tell whether a part is there whole."""
        return any(first <= start and stop <= last for first, last in self.extents)

    def is_whole(self, length: int) -> bool:
        """Tell whether everything is there."""
        return self.covers(0, length)


def _parts(fields: strict.Fields, name: str, most: int, length: int) -> tuple[tuple[int, int], ...]:
    parts: list[tuple[int, int]] = []
    position = 0
    for place, item in enumerate(fields.items(name, most)):
        match item:
            case [int(start), int(stop)] if position <= start < stop <= length:
                parts.append((start, stop))
                position = stop
            case _:
                raise FormatError(DOCUMENT, f"{name}[{place}]", "is not a part of the blob")
    return tuple(parts)
