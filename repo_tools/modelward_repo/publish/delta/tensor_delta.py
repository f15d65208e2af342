"""Makes patches of the method tensor-delta/1; `modelward.transfer.patch.tensor_delta` applies them.

Blocks and digests are made by several threads and written in order, so that memory does not depend
on the size of a tensor or file.
"""

import hashlib
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import BinaryIO

import numpy as np

from modelward.transfer.patch import frames
from modelward.transfer.patch.frames import zstd
from modelward.transfer.patch.operations import Coding, Operation, Operations
from modelward.transfer.patch.tensor_delta import (
    BLOCK,
    DIGEST,
    PLANE,
    PREFIX,
    Block,
    Digest,
    lengths_of_streams,
    steps,
)
from modelward_repo.publish.delta.files import NOTHING, File
from modelward_repo.publish.delta.match import operations as matched
from modelward_repo.publish.delta.residue import packed_planes, residue

Progress = Callable[[int], None]  # called with the number of bytes of the new file just coded

RAW_LEVEL = 12  # of bytes that are text and protobuf rather than numbers


def encode(
    base: File | None, target: File, out: BinaryIO, threads: int, progress: Progress | None = None
) -> int:
    """Write a patch.

    Args:
        base: What devices have; None for a patch that needs nothing.
        target: The new file.
        out: Where the patch goes.
        threads: How many compress at once.
        progress: Told how far it is.

    Returns:
        How many streams the patch has: what a device's memory depends on.

    Raises:
        ValueError: The files have more parts than a patch can say.
    """
    old = base or NOTHING
    plan = matched(old, target)
    streams = lengths_of_streams(plan)
    out.write(Operations.of(plan, old.length).to_bytes())
    runs = {stream: _runs(plan, stream) for stream in streams}
    coder = _Coder(old, target)
    waiting: deque[Future[bytes]] = deque()
    made = 0
    with ThreadPoolExecutor(threads) as pool:
        for step in steps(plan, streams):
            match step:
                case Block(coding, width, length):
                    parts = _take(runs[coding, width], length)
                    waiting.append(pool.submit(coder.block, coding, width, parts))
                case Digest(length):
                    waiting.append(pool.submit(coder.digest, made, length))
                    made += length
                    if progress:
                        progress(length)
                case _:
                    continue
            while len(waiting) > 2 * threads:
                out.write(waiting.popleft().result())
        while waiting:
            out.write(waiting.popleft().result())
    return len(streams)


class _Run:
    """Bytes of a stream that lie together in both files."""

    def __init__(self, start: int, offset: int, length: int) -> None:
        self.start = start
        self.offset = offset
        self.length = length

    def take(self, length: int) -> "_Run":
        """Return the first bytes of the run, which has them no longer."""
        taken = _Run(self.start, self.offset, length)
        self.start += length
        self.offset += length
        self.length -= length
        return taken


def _runs(plan: list[Operation], stream: tuple[Coding, int]) -> deque[_Run]:
    runs: deque[_Run] = deque()
    start = 0
    for operation in plan:
        if operation.stream == stream:
            runs.append(_Run(start, operation.offset, operation.length))
        start += operation.length
    return runs


def _take(runs: deque[_Run], length: int) -> list[_Run]:
    taken = []
    while length:
        run = runs[0].take(min(length, runs[0].length))
        taken.append(run)
        length -= run.length
        if not runs[0].length:
            runs.popleft()
    return taken


@dataclass(frozen=True)
class _Coder:
    """Makes blocks and digests, in any thread."""

    base: File
    target: File

    def block(self, coding: Coding, width: int, runs: list[_Run]) -> bytes:
        """Return a stream's next block."""
        parts = [
            residue(
                coding,
                width,
                b"" if coding is Coding.RAW else self.base.read(run.offset, run.length),
                self.target.read(run.start, run.length),
            )
            for run in runs
        ]
        elements = parts[0] if len(parts) == 1 else np.concatenate(parts)
        if coding is Coding.RAW and width == 1:
            return self._raw_block(elements.tobytes())
        return b"".join(packed_planes(elements))

    def digest(self, start: int, length: int) -> bytes:
        """Return the digest of a part of the new file."""
        digest = hashlib.sha256()
        for block in self.target.blocks(start, start + length):
            digest.update(block)
        return digest.digest()[:DIGEST]

    def _raw_block(self, content: bytes) -> bytes:
        """Code text and protobuf: what was at the start of the base is often much like it."""
        prefix = self.base.read(0, BLOCK)
        packed = zstd.compress(content, RAW_LEVEL)
        head = PREFIX.pack(0, 0)
        if len(prefix) >= frames.LEAST_PREFIX:
            referring = _compress_with(prefix, content)
            if len(referring) < len(packed):
                packed, head = referring, PREFIX.pack(0, len(prefix))
        return head + PLANE.pack(len(packed)) + packed


def _compress_with(prefix: bytes, content: bytes) -> bytes:
    parameter = zstd.CompressionParameter
    log = max(10, (2 * (len(prefix) + len(content)) - 1).bit_length())
    options: dict[int, int] = {
        parameter.compression_level: RAW_LEVEL,
        parameter.window_log: min(log, 22),
    }
    dictionary = zstd.ZstdDict(prefix, is_raw=True)
    compressor = zstd.ZstdCompressor(options=options, zstd_dict=dictionary.as_prefix)
    compressor.set_pledged_input_size(len(content))
    return compressor.compress(content, zstd.ZstdCompressor.FLUSH_FRAME)
