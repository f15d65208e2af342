"""A file compressed alone: thoroughly where that helps, quickly where it does not."""

import os
import random
from array import array
from pathlib import Path

import pytest

from modelward.transfer.patch import ZSTD
from modelward.transfer.patch.frames import zstd
from modelward_repo.publish import delta
from modelward_repo.publish.delta import whole

LENGTH = 3 << 20  # bytes: enough for a sample to be smaller


def sources() -> bytes:
    """Return text: Python's own."""
    paths = sorted(Path(os.__file__).parent.glob("*.py"))
    return b"".join(path.read_bytes() for path in paths)[:LENGTH]


def weights() -> bytes:
    """Return numbers that are noise."""
    some = random.Random(2)
    return array("f", (some.gauss(0, 0.03) for _ in range(LENGTH // 4))).tobytes()


@pytest.mark.parametrize(
    ("content", "level"),
    [(sources(), whole.LEVEL), (weights(), whole.QUICK_LEVEL)],
    ids=["text", "weights"],
)
def test_effort_goes_where_it_helps(tmp_path: Path, monkeypatch, content: bytes, level: int):
    target, patch = tmp_path / "target", tmp_path / "patch"
    target.write_bytes(content)

    def made() -> bytes:
        delta.encode(ZSTD, None, target, patch, threads=1)
        return patch.read_bytes()

    chosen = made()
    assert zstd.decompress(chosen) == content
    both = {}
    for each in (whole.LEVEL, whole.QUICK_LEVEL):
        monkeypatch.setattr(whole, "_level", lambda _, each=each: each)
        both[each] = made()
    assert chosen == both[level]
    assert len(chosen) < 1.01 * min(map(len, both.values()))
    assert both[whole.LEVEL] != both[whole.QUICK_LEVEL]
