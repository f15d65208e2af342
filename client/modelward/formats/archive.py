"""A bundle in one file: an uncompressed tar archive with nothing but plain files in it.

Of all that tar can say, this reads and writes the USTAR header (POSIX.1-1988) of a regular file,
with sizes of 8 GiB and more in base 256 as GNU tar has them. Links, devices, sparse files and
extended headers are refused: a bundle needs none, and each is a way to surprise a reader.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from modelward.errors import FormatError
from modelward.formats.bundle import FILE, check_place
from modelward.formats.release import MAX_LENGTH

DOCUMENT = "archive"
BLOCK = 512  # bytes: everything begins at a multiple of it
END = bytes(2 * BLOCK)
MAX_MEMBERS = 100_000
_MAGIC = b"ustar\x0000"
_NAME, _PREFIX, _OCTAL = 100, 155, 8**11
_FOLDER, _REGULAR = b"5", (b"0", b"\0")

Read = Callable[[int, int], bytes]
"""Returns so many bytes from an offset on, fewer at the end."""


@dataclass(frozen=True)
class Member:
    """One file in an archive.

    Attributes:
        path: Where it stands in the bundle.
        offset: Where its content begins.
        length: Bytes.
    """

    path: str
    offset: int
    length: int


def header(path: str, length: int) -> bytes:
    """Return the block in front of a file's content.

    Args:
        path: Where it stands in the bundle.
        length: Bytes; the content is filled up to a multiple of `BLOCK`.

    Raises:
        ValueError: The path does not fit.
    """
    prefix, name = _split(path.encode())
    size = b"%011o\0" % length if length < _OCTAL else b"\x80" + length.to_bytes(11, "big")
    before = name.ljust(_NAME, b"\0") + b"0000644\0" + b"0000000\0" * 2 + size + b"%011o\0" % 0
    after = b"0" + bytes(_NAME) + _MAGIC + bytes(64) + b"0000000\0" * 2
    after += prefix.ljust(_PREFIX, b"\0")
    checksum = sum(before) + sum(after) + 8 * 0x20
    return (before + b"%06o\0 " % checksum + after).ljust(BLOCK, b"\0")


def padding(length: int) -> int:
    """Return how many zero bytes follow content of that length."""
    return -length % BLOCK


def members(read: Read) -> Iterator[Member]:
    """Yield the files in an archive.

    Raises:
        FormatError: It is cut off, or has something other than plain files of a bundle.
    """
    offset = 0
    for _ in range(MAX_MEMBERS):
        block = read(offset, BLOCK)
        if block == bytes(BLOCK):
            return
        if len(block) < BLOCK:
            raise FormatError(DOCUMENT, "", "is cut off: was it copied whole?")
        member = _member(block, offset + BLOCK)
        if member is not None:
            yield member
            offset += member.length + padding(member.length)
        offset += BLOCK
    raise FormatError(DOCUMENT, "", f"has more than {MAX_MEMBERS} files")


def _member(block: bytes, offset: int) -> Member | None:
    """Return what a header says, or None for a folder."""
    kind = block[156:157]
    checksum = sum(block[:148]) + 8 * 0x20 + sum(block[156:])
    if block[257:262] != b"ustar" or _octal(block[148:156]) != checksum:
        raise FormatError(DOCUMENT, "", f"has no tar header at byte {offset - BLOCK}")
    name, prefix = _text(block[:_NAME]), _text(block[345:500])
    path = f"{prefix}/{name}" if prefix else name
    length = _size(block[124:136])
    path = path.removeprefix("./")
    if kind == _FOLDER and length == 0:
        return None
    if kind not in _REGULAR:
        raise FormatError(DOCUMENT, path[:80], "is no plain file: links and the like are refused")
    try:
        if path != FILE:
            check_place(path)
    except ValueError as error:
        raise FormatError(DOCUMENT, "", str(error)) from error
    if length > MAX_LENGTH:
        raise FormatError(DOCUMENT, path, f"says that it has {length} bytes")
    return Member(path, offset, length)


def _split(path: bytes) -> tuple[bytes, bytes]:
    """Return a path in the header's two parts: up to a slash, and from there."""
    if len(path) <= _NAME:
        return b"", path
    for at, char in enumerate(path):
        if char == ord("/") and at <= _PREFIX and 0 < len(path) - at - 1 <= _NAME:
            return path[:at], path[at + 1 :]
    raise ValueError(f"{path[:80]!r} is too long for a tar archive")


def _text(field: bytes) -> str:
    try:
        return field.partition(b"\0")[0].decode("ascii")
    except UnicodeDecodeError as error:
        raise FormatError(DOCUMENT, "", "has a name that is not ASCII") from error


def _size(field: bytes) -> int:
    if field[0] == 0x80:  # noqa: PLR2004 - GNU tar's mark of base 256
        return int.from_bytes(field[1:], "big")
    return _octal(field)


def _octal(field: bytes) -> int:
    digits = field.strip(b" \0")
    if not digits.isdigit() or set(digits) & set(b"89"):
        raise FormatError(DOCUMENT, "", "has a number that is not octal")
    return int(digits, 8)
