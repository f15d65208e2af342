"""A seal: how the files of a slot looked when they were last hashed and found intact.

Opening a model again need not hash it again, for as long as that still tells (docs/adr/0017).
"""

from collections.abc import Mapping
from typing import NamedTuple

from modelward.formats import strict

DOCUMENT = "seal"
SCHEMA = "modelward/seal/1"
CAP = 16 << 20
_PARTS = 5


class Look(NamedTuple):
    """How a file looks from outside. Whatever is written to it changes its look.

    Attributes:
        device: Number of its file system.
        inode: Its number there.
        size: Bytes.
        modified: When its content was last changed, in nanoseconds since 1970.
        changed: When anything of it was, as the kernel noted: no call sets this.
    """

    device: int
    inode: int
    size: int
    modified: int
    changed: int


class Seal(NamedTuple):
    """What was found, and in which boot.

    Attributes:
        release: Digest of the slot's release.json.
        boot: Which boot of the machine; looks are worth nothing in another.
        looks: How each file looked, by path.
        verity: The digest by which the kernel checks each file, by path, where it does.
    """

    release: str
    boot: str
    looks: Mapping[str, Look]
    verity: Mapping[str, str]

    @classmethod
    def parse(cls, data: bytes) -> "Seal":
        """Parse the file.

        Raises:
            FormatError: It is ill-formed.
        """
        fields = strict.Fields(DOCUMENT, strict.load(DOCUMENT, data, CAP))
        fields.schema(SCHEMA)
        looks, verity = fields.fields("looks"), fields.fields("verity")
        return cls(
            release=fields.sha256("release"),
            boot=fields.text("boot", most=64),
            looks={path: _look(looks, path) for path in looks.raw},
            verity={path: verity.text(path, most=160) for path in verity.raw},
        )

    def to_bytes(self) -> bytes:
        """Return the file."""
        return strict.dump(
            {
                "schema": SCHEMA,
                "release": self.release,
                "boot": self.boot,
                # As texts: nanoseconds and inodes are larger than what all JSON readers agree upon.
                "looks": {path: " ".join(map(str, look)) for path, look in self.looks.items()},
                "verity": dict(self.verity),
            }
        )


def _look(fields: strict.Fields, path: str) -> Look:
    parts = fields.text(path, most=128).split(" ")
    if len(parts) != _PARTS or not all(part.removeprefix("-").isdecimal() for part in parts):
        raise fields.wrong(path, f"must be {_PARTS} integers")
    return Look(*map(int, parts))
