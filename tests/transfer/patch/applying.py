"""Apply a patch the way a device does, to bytes in memory."""

import os
from collections.abc import Iterator
from tempfile import TemporaryFile

from modelward.transfer import patch


def blocks(data: bytes, size: int = 1 << 20) -> Iterator[memoryview]:
    view = memoryview(data)
    return (view[start : start + size] for start in range(0, len(data), size))


def applied(
    method: str, base: bytes | None, data: Iterator[memoryview], length: int, memory: int = 64 << 20
) -> bytes:
    """Return what a patch makes; checks that no byte beyond `length` is ever given out."""
    made = bytearray()

    def sink(block: memoryview) -> None:
        assert 0 < len(block) <= 1 << 20
        made.extend(block)
        assert len(made) <= length

    if base is None:
        patch.apply(method, None, data, sink, length, memory)
    else:
        with TemporaryFile() as file:
            file.write(base)
            file.flush()
            os.lseek(file.fileno(), 3, os.SEEK_SET)  # where a file stands must not matter
            patch.apply(method, file.fileno(), data, sink, length, memory)
    return bytes(made)
