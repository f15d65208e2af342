"""Folders within each other, more than a path can name."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from modelward.install import fsops

_FLAGS = os.O_RDONLY | os.O_DIRECTORY


def nest(place: Path, count: int, name: str = "d") -> None:
    """Make folders within each other, by their names alone."""
    here = os.open(place, _FLAGS)
    try:
        for _ in range(count):
            os.mkdir(name, dir_fd=here)
            inner = os.open(name, _FLAGS, dir_fd=here)
            os.close(here)
            here = inner
        os.close(os.open("file", os.O_WRONLY | os.O_CREAT, dir_fd=here))
    finally:
        os.close(here)


@contextlib.contextmanager
def gone_after(*places: Path) -> Iterator[None]:
    """Remove folders in the end: pytest cannot, which goes into each of those within them."""
    try:
        yield
    finally:
        fsops.remove(*places)
