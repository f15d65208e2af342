"""How the last update ended: shown, never trusted."""

from datetime import UTC, datetime

import pytest

from modelward.install import last

TIME = datetime(2026, 11, 22, 10, tzinfo=UTC)


def test_write_and_read(tmp_path):
    assert last.read(tmp_path) is None
    last.write(tmp_path, TIME, {"outcome": "updated"})
    assert last.read(tmp_path) == {"time": "2026-11-22T10:00:00Z", "outcome": "updated"}


@pytest.mark.parametrize(
    "content", [b"", b"\0" * 9, b"[]", b"{}", b'{"time": "x"}', b"\xff", b"[" * 100_000]
)
def test_damaged(tmp_path, content):
    (tmp_path / last.FILE).write_bytes(content)
    assert last.read(tmp_path) is None
