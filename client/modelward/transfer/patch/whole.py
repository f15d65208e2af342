"""The methods zstd/1 and zstd-patch/1: one zstd frame is the whole new file.

With zstd-patch/1 the frame may refer back to the base as if it stood before the new file
(`zstd --patch-from`). The base has to be in memory then, and the window has to span both.
"""

import itertools
import mmap
import os
from collections.abc import Callable, Iterable, Iterator

from modelward.transfer.patch import frames
from modelward.transfer.patch.ahead import ahead
from modelward.transfer.patch.refusal import refused

BLOCK = 1 << 20  # bytes


def apply(
    base: int | None,
    patch: Iterable[memoryview],
    sink: Callable[[memoryview], object],
    length: int,
    memory: int,
) -> None:
    """Give out the file; see `modelward.transfer.patch.apply`."""
    blocks = filter(len, patch)
    start = b""
    while len(start) < frames.HEADER_MOST and (block := next(blocks, None)) is not None:
        start += block
    frame = frames.Frame.parse(start[: frames.HEADER_MOST])
    if frame.length != length:
        raise refused(f"makes a file of {frame.length} bytes, not of {length}")
    needed = memory_needed(frame.window, 0 if base is None else os.fstat(base).st_size)
    if needed > memory:
        raise refused(f"needs {needed} bytes of memory; {memory} are allowed")
    decoder = _decoder(frame.window, base)
    whole: Iterator[bytes | memoryview] = itertools.chain([start], blocks)
    left = length
    with ahead(frames.stream(decoder, whole, BLOCK)) as contents:
        for content in contents:
            left -= len(content)
            if left < 0:
                raise refused(f"makes more than the {length} bytes that were declared")
            sink(memoryview(content))
    if left:
        raise refused(f"makes a file of {length - left} bytes, not of {length}")


def _read_through(base: int) -> None:
    """Read the base, into the kernel's memory, before it is mapped.

    A sector that cannot be read is an error here, and would be the end of the process there.
    """
    buffer = bytearray(BLOCK)
    offset = 0
    while count := os.preadv(base, [buffer], offset):
        offset += count


def memory_needed(window: int, base: int) -> int:
    """Return how many bytes of memory decoding takes.

    Args:
        window: Bytes of the frame's window.
        base: Bytes of the base; 0 if there is none.
    """
    return window + base + frames.OVERHEAD + 8 * BLOCK


def _decoder(window: int, base: int | None) -> frames.Decompressor:
    if base is None or os.fstat(base).st_size < frames.LEAST_PREFIX:
        return frames.decompressor(window)
    _read_through(base)
    # The library copies the base. Unmapped at once, it is not in memory twice while decoding.
    with mmap.mmap(base, 0, prot=mmap.PROT_READ) as content:
        return frames.decompressor(window, content)
