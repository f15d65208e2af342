"""The method tensor-delta/1: differences between the elements of matched tensors.

Behind the head (`modelward.transfer.patch.operations`) come blocks and digests, in the order in
which they are needed while the new file is put together from its start to its end:

- Operations of one coding and width take from one *stream*: what they have in common is coded
  together, so that many small tensors cost no more than a large one. A stream comes in blocks of
  1 MiB, the last one shorter; a block stands where the first operation needs it. It is, for each
  plane (first bytes of all elements, second bytes, ...): 4 bytes of length, and one zstd frame.
  Is the length's top bit set, the plane is in *crumbs*: that frame has the two low bits of its
  bytes, four to a byte, and a second frame, with its length, has all bytes shifted right by two.
  Blocks of raw bytes (coding RAW, width 1) are preceded by 8 bytes of offset and 4 of length of the
  part of the base, at most 1 MiB, that the frame may refer back to.
- After each 1 MiB of the new file, and after the last byte, come the first 16 bytes of the SHA-256
  of the part: a wrong base, or a patch that is damaged, is noticed there.

A thread works ahead of the caller's: it reads, decompresses and does the arithmetic, and the
caller's own checks digests and writes. A third one gains nothing and holds some MiB more.
"""

import hashlib
import os
import struct
from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import dataclass
from itertools import cycle
from typing import assert_never

from modelward.transfer.patch import frames, lanes
from modelward.transfer.patch.ahead import HELD, ahead
from modelward.transfer.patch.arithmetic import Arithmetic, arithmetic
from modelward.transfer.patch.operations import (
    HEAD,
    Coding,
    Operation,
    Operations,
    packed_length,
)
from modelward.transfer.patch.reader import Reader
from modelward.transfer.patch.refusal import refused

BLOCK = 1 << 20  # bytes
DIGEST = 16  # bytes
CRUMBS = 1 << 31
PLANE = struct.Struct("<I")
PREFIX = struct.Struct("<QI")
# What is held at once beside the streams' blocks: packed and operations, blocks between threads.
_FIXED = 16 * BLOCK


@dataclass(frozen=True)
class Block:
    """Read the next block of a stream.

    Attributes:
        coding: The stream's coding.
        width: Its elements' bytes.
        length: Bytes of elements.
    """

    coding: Coding
    width: int
    length: int


@dataclass(frozen=True)
class Piece:
    """Make so many more bytes of the new file.

    Attributes:
        operation: By which operation.
        done: Bytes that it made before.
        length: Bytes to make, no more than what is left of its stream's block.
    """

    operation: Operation
    done: int
    length: int


@dataclass(frozen=True)
class Digest:
    """Check so many bytes of the new file against the next digest.

    Attributes:
        length: Bytes, all made.
    """

    length: int


Step = Block | Piece | Digest


def steps(
    operations: Iterable[Operation], streams: dict[tuple[Coding, int], int]
) -> Iterator[Step]:
    """Yield what is to be done, in order: the same for who makes a patch and who applies it.

    Args:
        operations: From the start of the new file to its end.
        streams: Bytes of each stream.
    """
    left_in_streams = dict(streams)
    left_in_block = dict.fromkeys(streams, 0)
    unchecked = 0
    for operation in operations:
        done = 0
        stream = operation.stream
        while done < operation.length:
            length = min(lanes.PIECE, operation.length - done)
            if stream is not None:
                if not left_in_block[stream]:
                    left_in_block[stream] = min(BLOCK, left_in_streams[stream])
                    left_in_streams[stream] -= left_in_block[stream]
                    yield Block(*stream, left_in_block[stream])
                length = min(length, left_in_block[stream])
                left_in_block[stream] -= length
            yield Piece(operation, done, length)
            done += length
            unchecked += length
            if unchecked >= BLOCK:
                yield Digest(BLOCK)
                unchecked -= BLOCK
    if unchecked:
        yield Digest(unchecked)


def lengths_of_streams(operations: Iterable[Operation]) -> dict[tuple[Coding, int], int]:
    """Return the bytes of each stream."""
    lengths: dict[tuple[Coding, int], int] = {}
    for operation in operations:
        if operation.stream is not None:
            lengths[operation.stream] = lengths.get(operation.stream, 0) + operation.length
    return lengths


def memory_needed(streams: int) -> int:
    """Return how many bytes of memory applying a patch takes, at most.

    Args:
        streams: How many streams it has.
    """
    return _FIXED + streams * BLOCK


def apply(
    base: int | None,
    patch: Iterable[memoryview],
    sink: Callable[[memoryview], object],
    length: int,
    memory: int,
) -> None:
    """Give out the file; see `modelward.transfer.patch.apply`."""
    reader = Reader(patch)
    head = reader.read(HEAD.size)
    operations = Operations.parse(head, reader.read(packed_length(head)))
    if operations.length != length:
        raise refused(f"makes a file of {operations.length} bytes, not of {length}")
    present = 0 if base is None else os.fstat(base).st_size
    if operations.base != present:
        raise refused(f"is for a base of {operations.base} bytes; the one here has {present}")
    streams = lengths_of_streams(operations)
    needed = memory_needed(len(streams))
    if needed > memory:
        raise refused(f"needs {needed} bytes of memory; {memory} are allowed")
    # A block that was freed teaches glibc that blocks of its size come and go. Untaught, it gives
    # the memory of every block back to the kernel, and takes it again: a third of the time.
    bytearray(2 * BLOCK)
    decoding = _Decoding(base, reader, operations, streams, arithmetic(length))
    with ahead(decoding.made()) as parts:
        for content, digest in parts:
            if hashlib.sha256(content).digest()[:DIGEST] != digest:
                raise refused("is damaged, or the base is not the one it was made for")
            sink(content)


@dataclass(frozen=True)
class _Decoding:
    """The work of the thread ahead, on one patch."""

    base: int | None
    reader: Reader
    operations: Operations
    streams: dict[tuple[Coding, int], int]
    arithmetic: Arithmetic

    def made(self) -> Generator[tuple[memoryview, bytes], None, None]:
        """Yield the parts of the new file with the digests that they should have.

        A part is overwritten when `HELD` more have been asked for.
        """
        residues: dict[tuple[Coding, int], memoryview] = {}
        buffers = cycle([memoryview(bytearray(BLOCK + lanes.PIECE)) for _ in range(HELD)])
        buffer, filled = next(buffers), 0
        for step in steps(self.operations, self.streams):
            match step:
                case Block(coding, width, length):
                    residues.pop((coding, width), None)  # used up: room for the next
                    residues[coding, width] = self._block(coding, width, length)
                case Piece(operation, done, length):
                    part = buffer[filled : filled + length]
                    self._make(part, operation, done, residues)
                    filled += length
                case Digest(length):
                    yield buffer[:length], self.reader.read(DIGEST)
                    more = buffer[length:filled]
                    buffer, filled = next(buffers), filled - length
                    buffer[:filled] = more
                case _:
                    assert_never(step)
        self.reader.end()

    def _make(
        self,
        part: memoryview,
        operation: Operation,
        done: int,
        residues: dict[tuple[Coding, int], memoryview],
    ) -> None:
        """Fill a part of the new file by an operation that made `done` bytes before."""
        residue = memoryview(b"")
        if operation.stream is not None:
            residue = residues[operation.stream][: len(part)]
            residues[operation.stream] = residues[operation.stream][len(part) :]
        if operation.coding is Coding.RAW:
            part[:] = residue
            return
        _read_into(part, self.base, operation.offset + done)
        if operation.coding is not Coding.COPY:
            self.arithmetic.combine(operation.coding, operation.width, part, residue)

    def _block(self, coding: Coding, width: int, length: int) -> memoryview:
        """Return the elements of a block."""
        prefix = b""
        if coding is Coding.RAW and width == 1:
            prefix = self._prefix()
        planes = [self._plane(length // width, prefix) for _ in range(width)]
        return self.arithmetic.interleave(planes)

    def _prefix(self) -> bytes:
        offset, length = PREFIX.unpack(self.reader.read(PREFIX.size))
        if length > BLOCK or offset + length > self.operations.base:
            raise refused("refers back to a part of the base that does not exist")
        prefix = bytearray(length)
        _read_into(memoryview(prefix), self.base, offset)
        return bytes(prefix)

    def _plane(self, length: int, prefix: bytes) -> bytes:
        (packed,) = PLANE.unpack(self.reader.read(PLANE.size))
        if not packed & CRUMBS:
            return self._frame(packed, length, prefix)
        low = self._frame(packed ^ CRUMBS, -(-length // 4))
        (packed,) = PLANE.unpack(self.reader.read(PLANE.size))
        return self.arithmetic.from_crumbs(low, self._frame(packed, length))

    def _frame(self, packed: int, length: int, prefix: bytes = b"") -> bytes:
        if packed > length + length // 128 + 64:  # more than zstd ever makes of so many bytes
            raise refused("has a block that is larger than what it stands for")
        return frames.decompress(self.reader.read(packed), length, prefix)


def _read_into(part: memoryview, base: int | None, offset: int) -> None:
    """Fill a part with what the base has.

    Raises:
        Refused: The base became shorter meanwhile.
    """
    count = 0
    while count < len(part):
        more = 0 if base is None else os.preadv(base, [part[count:]], offset + count)
        if not more:
            raise refused("is for a base that is longer than the file here")
        count += more
