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

Two threads work ahead of the caller's: one reads and decompresses, one does the arithmetic, and
the caller's own checks digests and writes.
"""

import hashlib
import os
import struct
from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import dataclass
from typing import assert_never

from modelward.transfer.patch import frames, lanes
from modelward.transfer.patch.ahead import ahead
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
    with ahead(_made(base, reader, operations, streams)) as parts:
        for content, digest in parts:
            if hashlib.sha256(content).digest()[:DIGEST] != digest:
                raise refused("is damaged, or the base is not the one it was made for")
            sink(content)


def _made(
    base: int | None,
    reader: Reader,
    operations: Operations,
    streams: dict[tuple[Coding, int], int],
) -> Generator[tuple[memoryview, bytes], None, None]:
    """Yield the parts of the new file with the digests that they should have."""
    residues: dict[tuple[Coding, int], memoryview] = {}
    made = bytearray()
    with ahead(_received(base, reader, operations, streams)) as received:
        for step in steps(operations, streams):
            match step:
                case Block(coding, width):
                    residues[coding, width] = memoryview(lanes.interleave(next(received)))
                case Piece(operation, done, length):
                    made += _content(base, operation, done, length, residues)
                case Digest(length):
                    part, made = made, made[length:]
                    yield memoryview(part)[:length], next(received)[0]
                case _:
                    assert_never(step)
        if next(received, None) is not None:
            raise refused("goes on after its end")


def _content(
    base: int | None,
    operation: Operation,
    done: int,
    length: int,
    residues: dict[tuple[Coding, int], memoryview],
) -> bytes | memoryview:
    residue = memoryview(b"")
    if operation.stream is not None:
        residue = residues[operation.stream][:length]
        residues[operation.stream] = residues[operation.stream][length:]
    if operation.coding is Coding.RAW:
        return residue
    old = _read(base, operation.offset + done, length)
    if operation.coding is Coding.COPY:
        return old
    return lanes.combine(operation.coding, operation.width, old, residue)


def _received(
    base: int | None,
    reader: Reader,
    operations: Operations,
    streams: dict[tuple[Coding, int], int],
) -> Generator[list[bytes], None, None]:
    """Yield the planes of each block, and each digest alone, in the order of the patch."""
    for step in steps(operations, streams):
        match step:
            case Block(coding, width, length):
                prefix = b""
                if coding is Coding.RAW and width == 1:
                    prefix = _prefix(base, operations.base, reader)
                yield [_plane(reader, length // width, prefix) for _ in range(width)]
            case Digest():
                yield [reader.read(DIGEST)]
            case Piece():
                pass
            case _:
                assert_never(step)
    reader.end()


def _prefix(base: int | None, present: int, reader: Reader) -> bytes:
    offset, length = PREFIX.unpack(reader.read(PREFIX.size))
    if length > BLOCK or offset + length > present:
        raise refused("refers back to a part of the base that does not exist")
    return _read(base, offset, length) if length else b""


def _plane(reader: Reader, length: int, prefix: bytes) -> bytes:
    (packed,) = PLANE.unpack(reader.read(PLANE.size))
    if not packed & CRUMBS:
        return _frame(reader, packed, length, prefix)
    low = _frame(reader, packed ^ CRUMBS, -(-length // 4))
    (packed,) = PLANE.unpack(reader.read(PLANE.size))
    return lanes.from_crumbs(low, _frame(reader, packed, length))


def _frame(reader: Reader, packed: int, length: int, prefix: bytes = b"") -> bytes:
    if packed > length + length // 128 + 64:  # more than zstd ever makes of so many bytes
        raise refused("has a block that is larger than what it stands for")
    return frames.decompress(reader.read(packed), length, prefix)


def _read(base: int | None, offset: int, length: int) -> bytes:
    """Return a part of the base.

    Raises:
        Refused: The base became shorter meanwhile.
    """
    data = b"" if base is None else os.pread(base, length, offset)
    while base is not None and len(data) < length:
        more = os.pread(base, length - len(data), offset + len(data))
        if not more:
            break
        data += more
    if len(data) != length:
        raise refused("is for a base that is longer than the file here")
    return data
