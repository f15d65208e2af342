"""Makes patches of the methods zstd/1 and zstd-patch/1: one zstd frame is the whole new file."""

from typing import BinaryIO

from modelward.transfer.patch import frames
from modelward.transfer.patch.frames import zstd
from modelward.transfer.patch.whole import memory_needed
from modelward_repo.publish.delta.files import File
from modelward_repo.publish.delta.tensor_delta import Progress

LEVEL, QUICK_LEVEL = 9, 3  # of a file compressed alone; the second takes a tenth of the time
WORTH_LEVEL = 0.99  # of what the quick one comes to: weights are noise to both
SAMPLES, SAMPLE = 8, 256 << 10  # so many parts of a file, of so many bytes, are tried first
WINDOW_LOG = 23  # 8 MiB: a device can always hold that
PATCH_LEVEL = 19
MOST_PATCH_WINDOW_LOG = 27  # 128 MiB

_Parameter = zstd.CompressionParameter


def encode(
    base: File | None, target: File, out: BinaryIO, threads: int, progress: Progress | None = None
) -> int:
    """Write a patch.

    Args:
        base: What the frame may refer back to, as zstd-patch/1 does; None for zstd/1.
        target: The new file.
        out: Where the patch goes.
        threads: How many compress at once.
        progress: Told how far it is.

    Returns:
        Bytes of memory that a device needs to apply it.
    """
    size = target.length + (base.length if base else 0)
    most = MOST_PATCH_WINDOW_LOG if base else WINDOW_LOG
    log = min(max(10, (size - 1).bit_length()), most)
    options: dict[int, int] = {
        _Parameter.compression_level: PATCH_LEVEL if base else _level(target),
        _Parameter.window_log: log,
        _Parameter.enable_long_distance_matching: int(base is not None),
        _Parameter.nb_workers: 0 if base else threads,  # zstd forgets a prefix between its jobs
    }
    dictionary = None
    if base and base.length >= frames.LEAST_PREFIX:
        dictionary = zstd.ZstdDict(base.read(0, base.length), is_raw=True).as_prefix
    compressor = zstd.ZstdCompressor(options=options, zstd_dict=dictionary)
    compressor.set_pledged_input_size(target.length)
    start = b""
    for block in target.blocks(0, target.length):
        start = _write(compressor.compress(block), out, start)
        if progress:
            progress(len(block))
    start = _write(compressor.flush(), out, start)
    return memory_needed(frames.Frame.parse(start).window, base.length if base else 0)


def memory_for_patch(base: int, target: int) -> int:
    """Return bytes of memory that a device needs for a zstd patch between files of such lengths."""
    return memory_needed(
        min(1 << (base + target - 1).bit_length(), 1 << MOST_PATCH_WINDOW_LOG), base
    )


def _level(target: File) -> int:
    """Return the level that a file is worth."""
    if target.length <= SAMPLES * SAMPLE:
        return LEVEL
    starts = range(0, target.length, target.length // SAMPLES)
    sample = b"".join(target.read(start, SAMPLE) for start in starts)
    thorough, quick = (len(zstd.compress(sample, level)) for level in (LEVEL, QUICK_LEVEL))
    return LEVEL if thorough < WORTH_LEVEL * quick else QUICK_LEVEL


def _write(data: bytes, out: BinaryIO, start: bytes) -> bytes:
    """Write, and return the first bytes of what was written in all."""
    out.write(data)
    return start + data[: frames.HEADER_MOST - len(start)]
