"""Sources that are no servers, for tests of what is done with sources."""

from collections.abc import Callable

from modelward.errors import NotFound, TooLong
from modelward.formats.release import Blob
from modelward.transfer.sources import Kind, blob_path


class FakeSource:
    """Serves documents from memory; `fail` may raise instead, told the path."""

    def __init__(
        self,
        name: str,
        documents: dict[str, bytes] | None = None,
        kind: Kind = Kind.ORIGIN,
        fail: Callable[[str], None] | None = None,
    ) -> None:
        self.name = name
        self.kind = kind
        self.documents = documents or {}
        self.fail = fail
        self.asked: list[str] = []

    def fetch(self, path: str, limit: int) -> bytes:
        self.asked.append(path)
        if self.fail:
            self.fail(path)
        if path not in self.documents:
            raise NotFound(f"{self.name}: no {path}")
        data = self.documents[path]
        if len(data) > limit:
            raise TooLong(f"{self.name}: too long")
        return data

    def open(self, blob: Blob, start: int, stop: int) -> "FakeReader":
        data = self.fetch(blob_path(blob.sha256), 1 << 60)
        return FakeReader(data[start:stop])

    def close(self) -> None:
        pass


class FakeReader:
    """Reads bytes, a few at a time."""

    def __init__(self, data: bytes, most: int = 100_000) -> None:
        self._left = memoryview(data)
        self._most = most

    def readinto(self, buffer: memoryview) -> int:
        count = min(len(buffer), len(self._left), self._most)
        buffer[:count] = self._left[:count]
        self._left = self._left[count:]
        return count

    def close(self) -> None:
        self._left = memoryview(b"")
