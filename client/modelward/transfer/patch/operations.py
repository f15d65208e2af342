"""The head of a tensor delta: how the new file is put together, from its start to its end.

    8 bytes   MWDELTA1
    4         length of the packed operations: one zstd frame
    4         length of the operations, unpacked
    8         length of the base
    8         length of the new file
              the packed operations

An operation is a byte (`Coding` times 16, plus the logarithm of the element's width in bytes), the
bytes of the new file that it covers, and, if it uses the base, where: the distance from the end of
the base range used before, zigzagged. Numbers are varints (LEB128); those above are little-endian.
"""

import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import IntEnum

from modelward.transfer.patch import frames
from modelward.transfer.patch.frames import zstd
from modelward.transfer.patch.refusal import refused

MAGIC = b"MWDELTA1"
HEAD = struct.Struct("<8sIIQQ")
MOST_PACKED = 1 << 20  # bytes of operations; about 100,000 tensors
MOST_LENGTH = 1 << 50  # bytes of a file, as in release.json
WIDTHS = (1, 2, 4, 8)
_VARINT_MOST = 9  # bytes: 63 bits


class Coding(IntEnum):
    """How an operation makes its part of the new file."""

    COPY = 0  # the same bytes as in the base
    RAW = 1  # elements that owe nothing to the base
    SUBTRACT = 2  # zigzagged differences of the elements as integers
    FLOAT = 3  # the same, of integers in the order of the floats that the elements are
    XOR = 4  # bits that differ


@dataclass(frozen=True)
class Operation:
    """One run of the new file.

    Attributes:
        coding: How it is made.
        width: Bytes of an element; 1 for a copy.
        length: Bytes of the new file, a multiple of `width`.
        offset: Where the base range of the same length begins; 0 if no base is used.
    """

    coding: Coding
    width: int
    length: int
    offset: int = 0

    @property
    def stream(self) -> tuple[Coding, int] | None:
        """Which of the patch's streams of blocks it takes from; None for a copy."""
        return None if self.coding is Coding.COPY else (self.coding, self.width)


@dataclass(frozen=True)
class Operations:
    """All operations, checked, in the form in which they were sent: small, whatever they are.

    Attributes:
        packed: As varints; see above.
        base: Bytes that the base must have.
        length: Bytes of the new file.
    """

    packed: bytes
    base: int
    length: int

    @classmethod
    def of(cls, operations: Iterable[Operation], base: int) -> "Operations":
        """Pack operations.

        Args:
            operations: From the start of the new file to its end.
            base: Bytes of the base.

        Raises:
            ValueError: They are too many.
        """
        packed = bytearray()
        length = end = 0
        for operation in operations:
            packed.append(operation.coding << 4 | WIDTHS.index(operation.width))
            packed += _varint(operation.length)
            if operation.coding is not Coding.RAW:
                packed += _varint(_zigzag(operation.offset - end))
                end = operation.offset + operation.length
            length += operation.length
        if len(packed) > MOST_PACKED:
            raise ValueError(f"{len(packed)} bytes of operations; at most {MOST_PACKED}")
        return cls(bytes(packed), base, length)

    @classmethod
    def parse(cls, head: bytes, packed: bytes) -> "Operations":
        """Read a patch's head.

        Args:
            head: The first `HEAD.size` bytes.
            packed: The frame behind it; `packed_length` tells how long it is.

        Raises:
            Refused: It is malformed.
        """
        _, _, unpacked, base, length = HEAD.unpack(head)
        operations = cls(frames.decompress(packed, unpacked), base, length)
        if sum(operation.length for operation in operations) != length:
            raise refused(f"does not say how all {length} bytes of the new file are made")
        return operations

    def to_bytes(self) -> bytes:
        """Return a patch's head."""
        frame = zstd.compress(self.packed, 19)
        return HEAD.pack(MAGIC, len(frame), len(self.packed), self.base, self.length) + frame

    def __iter__(self) -> Iterator[Operation]:
        """Yield the operations.

        Raises:
            Refused: They are malformed, or reach outside the base.
        """
        numbers = _Numbers(self.packed)
        end = covered = 0
        while numbers.position < len(self.packed):
            kind = numbers.byte()
            coding, width = kind >> 4, kind & 15
            if coding >= len(Coding) or width >= len(WIDTHS) or (not coding and width):
                raise refused(f"has an operation of an unknown kind: {kind}")
            coding, width = Coding(coding), WIDTHS[width]
            length = numbers.varint()
            if not length or length % width:
                raise refused(f"has an operation on {length} bytes, in elements of {width}")
            covered += length
            if covered > self.length:
                raise refused(f"makes more than the {self.length} bytes that were declared")
            offset = 0
            if coding is not Coding.RAW:
                number = numbers.varint()
                offset = end + (number >> 1 ^ -(number & 1))
                end = offset + length
                if offset < 0 or end > self.base:
                    raise refused("uses a part of the base that does not exist")
            yield Operation(coding, width, length, offset)


def packed_length(head: bytes) -> int:
    """Return how many bytes of packed operations follow a head.

    Raises:
        Refused: It is not the head of a tensor delta, or they are too many.
    """
    magic, packed, unpacked, base, length = HEAD.unpack(head)
    if magic != MAGIC:
        raise refused("is not a tensor delta")
    if max(packed, unpacked) > MOST_PACKED or max(base, length) > MOST_LENGTH:
        raise refused("has a head that is larger than any may be")
    return int(packed)


class _Numbers:
    def __init__(self, data: bytes) -> None:
        self._data = data
        self.position = 0

    def byte(self) -> int:
        if self.position >= len(self._data):
            raise refused("has an operation that is cut short")
        self.position += 1
        return self._data[self.position - 1]

    def varint(self) -> int:
        number = 0
        for index in range(_VARINT_MOST):
            byte = self.byte()
            number |= (byte & 0x7F) << 7 * index
            if byte < 0x80:  # noqa: PLR2004 - the bit that says: more follows
                return number
        raise refused("has an operation with a number that is too large")


def _varint(number: int) -> bytes:
    result = bytearray()
    while number > 0x7F:  # noqa: PLR2004 - seven bits a byte
        result.append(number & 0x7F | 0x80)
        number >>= 7
    result.append(number)
    return bytes(result)


def _zigzag(number: int) -> int:
    return number << 1 if number >= 0 else ~(number << 1)
