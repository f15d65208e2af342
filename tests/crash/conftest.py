"""A place for many small trees, and no waiting for a disk: a model of one is what is tested.

What is done there is done as the owner of its files does it, not as root may.
"""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.crash.owner import as_owner

MEMORY = Path("/dev/shm")


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """See the module."""
    monkeypatch.setattr(os, "fsync", lambda _: None)
    place = MEMORY / f"modelward-{os.getpid()}-{tmp_path.name}" if MEMORY.is_dir() else tmp_path
    place.mkdir(exist_ok=True)
    with as_owner():
        yield place
    shutil.rmtree(place)
