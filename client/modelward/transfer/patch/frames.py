"""zstd, from Python 3.14 or as backports.zstd, with a bound on everything it gives or takes.

Frame headers are read here, before the library sees a byte: RFC 8878, section 3.1.1.
"""

import mmap
import sys
from collections.abc import Generator, Iterator
from dataclasses import dataclass

from modelward.transfer.patch.refusal import refused

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

__all__ = ["Decompressor", "Frame", "decompress", "decompressor", "stream", "zstd"]

Decompressor = zstd.ZstdDecompressor
Buffer = bytes | memoryview | mmap.mmap

MAGIC = b"\x28\xb5\x2f\xfd"
HEADER_MOST = 14  # bytes, with the magic number, without a dictionary's id
LEAST_PREFIX = 8  # bytes: the library takes no shorter one
OVERHEAD = 1 << 20  # bytes: what a decoder takes beside its window; zstd needs about 160 KiB
_FIELD_LENGTHS = (0, 2, 4, 8)
_LEAST_WINDOW_LOG, _MOST_WINDOW_LOG = 10, 31


@dataclass(frozen=True)
class Frame:
    """What the header of a frame declares.

    Attributes:
        window: Bytes that the decoder must keep of what it gave out.
        length: Bytes of the content; None if not said.
    """

    window: int
    length: int | None

    @classmethod
    def parse(cls, start: bytes) -> "Frame":
        """Read a frame's header.

        Args:
            start: The first `HEADER_MOST` bytes of the frame, or the whole of a shorter one.

        Raises:
            Refused: It is not the header of a frame.
        """
        if start[:4] != MAGIC or len(start) < 6:  # noqa: PLR2004 - magic, descriptor, one field
            raise refused("is not compressed as its method says")
        descriptor = start[4]
        if descriptor & 0x0B:  # the reserved bit, and the length of a dictionary's id
            raise refused("uses a part of zstd that its method does not")
        single = bool(descriptor & 0x20)
        position = 5
        window = 0
        if not single:
            exponent, mantissa = divmod(start[position], 8)
            window = (1 << (10 + exponent)) // 8 * (8 + mantissa)
            position += 1
        size = _FIELD_LENGTHS[descriptor >> 6] or int(single)
        field = start[position : position + size]
        if len(field) < size:
            raise refused("ends too soon")
        length = int.from_bytes(field, "little") + (256 if size == 2 else 0) if size else None  # noqa: PLR2004 - RFC 8878, 3.1.1.1.4
        return cls(window if not single else length or 0, length)


def decompressor(window: int, prefix: Buffer = b"") -> Decompressor:
    """Return a decoder of one frame that refuses a larger window.

    Args:
        window: Most bytes of window.
        prefix: What the content may refer back to; not used if it is shorter than `LEAST_PREFIX`.
    """
    log = min(max((window - 1).bit_length(), _LEAST_WINDOW_LOG), _MOST_WINDOW_LOG)
    options: dict[int, int] = {zstd.DecompressionParameter.window_log_max: log}
    if len(prefix) < LEAST_PREFIX:
        return zstd.ZstdDecompressor(options=options)
    dictionary = zstd.ZstdDict(prefix, is_raw=True)
    return zstd.ZstdDecompressor(dictionary.as_prefix, options)


def decompress(data: bytes | memoryview, length: int, prefix: bytes = b"") -> bytes:
    """Return the content of exactly one frame, which must be so long.

    Args:
        data: The frame, and nothing behind it.
        length: Bytes of content.
        prefix: What the content may refer back to.

    Raises:
        Refused: It is anything else.
    """
    # An encoder may round the window up, and with a prefix it spans both.
    decoder = decompressor(2 * (length + len(prefix)), prefix)
    try:
        content = decoder.decompress(data, max_length=length + 1)
    except (zstd.ZstdError, EOFError) as error:
        raise refused(f"is damaged: {error}") from error
    if len(content) != length or not decoder.eof or decoder.unused_data:
        raise refused(f"is damaged: a block of {length} bytes has another length")
    return content


def stream(
    decoder: Decompressor, blocks: Iterator[bytes | memoryview], most: int
) -> Generator[bytes, None, None]:
    """Yield a frame's content in blocks of at most `most` bytes, until the frame ends.

    Raises:
        Refused: The frame is damaged, ends too soon, or something follows it.
    """
    try:
        while not decoder.eof:
            data: bytes | memoryview = b""
            if decoder.needs_input:
                data = next(blocks, b"")
                if not len(data):
                    raise refused("ends too soon")
            content = decoder.decompress(data, max_length=most)
            if content:
                yield content
    except zstd.ZstdError as error:
        raise refused(f"is damaged: {error}") from error
    if decoder.unused_data or any(len(block) for block in blocks):
        raise refused("goes on after its end")
