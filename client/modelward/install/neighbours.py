"""Neighbours that were found on the local network: written by `modelward serve`, for updates.

Trusted with nothing: an address here is somebody to ask.
"""

import contextlib
from collections.abc import Iterable, Iterator
from pathlib import Path

from modelward.config.address import check_repository
from modelward.errors import FormatError, UsageError
from modelward.formats import strict
from modelward.install import fsops
from modelward.install.opened import read_file

FILE = "neighbours.json"
SCHEMA = "modelward/neighbours/1"
CAP = 64 << 10
MOST = 256  # URLs: as many as a network of the usual size has addresses


def write(state: Path, urls: tuple[str, ...]) -> None:
    """Note who is there now, by URLs in the order they were heard first."""
    fsops.write_file(state / FILE, strict.dump({"schema": SCHEMA, "urls": list(urls[:MOST])}))


def read(state: Path) -> tuple[str, ...]:
    """Return who was there last, by addresses that make sense; nobody if it cannot be read."""
    with contextlib.suppress(OSError, FormatError):
        data = read_file(state / FILE, CAP)
        fields = strict.Fields("neighbours", strict.load("neighbours", data, CAP))
        fields.schema(SCHEMA)
        return tuple(_possible(fields.texts("urls", MOST)))
    return ()


def clear(state: Path) -> None:
    """Forget them all."""
    fsops.remove(state / FILE)


def _possible(urls: Iterable[str]) -> Iterator[str]:
    for url in urls:
        with contextlib.suppress(UsageError):
            yield check_repository(url)
