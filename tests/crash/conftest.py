"""A place for many small trees, and no waiting for a disk: a model of one is what is tested."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

MEMORY = Path("/dev/shm")


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """See the module."""
    monkeypatch.setattr(os, "fsync", lambda _: None)
    place = MEMORY / f"modelward-{os.getpid()}-{tmp_path.name}" if MEMORY.is_dir() else tmp_path
    place.mkdir(exist_ok=True)
    yield place
    shutil.rmtree(place)
