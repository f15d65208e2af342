"""Bytes of a patch, so many at a time, from blocks of any size."""

from collections.abc import Iterable

from modelward.transfer.patch.refusal import refused


class Reader:
    """Reads a stream of blocks.

    Args:
        blocks: The stream. Each block is held only until it has been read.
    """

    def __init__(self, blocks: Iterable[bytes | memoryview]) -> None:
        self._blocks = iter(blocks)
        self._rest = memoryview(b"")

    def read(self, length: int) -> bytes:
        """Return exactly so many bytes.

        Raises:
            Refused: The stream ends before.
        """
        parts = []
        missing = length
        while missing:
            if not self._rest:
                self._rest = self._next()
            parts.append(bytes(self._rest[:missing]))
            self._rest = self._rest[missing:]
            missing -= len(parts[-1])
        return b"".join(parts)

    def end(self) -> None:
        """Check that there is no more.

        Raises:
            Refused: There is.
        """
        if self._rest or any(len(block) for block in self._blocks):
            raise refused("goes on after its end")

    def _next(self) -> memoryview:
        block = next(self._blocks, None)
        if block is None:
            raise refused("ends too soon")
        return memoryview(block).cast("B")
