"""When everything was read last: noted, never trusted."""

import pytest

from modelward.install import scanned


def test_write_and_read(tmp_path):
    assert scanned.age(tmp_path, "boot", 3.0) == float("inf")
    scanned.write(tmp_path, "boot", 1.0)
    assert scanned.age(tmp_path, "boot", 3.0) == 2.0


@pytest.mark.parametrize("content", [b"", b"[]", b"{}", b"\xff", b"[" * 4096])
def test_damaged(tmp_path, content):
    (tmp_path / scanned.FILE).write_bytes(content)
    assert scanned.age(tmp_path, "boot", 3.0) == float("inf")
