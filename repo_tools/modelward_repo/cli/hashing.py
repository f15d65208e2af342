"""A progress bar for hashing that takes long enough to wonder."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import click

from modelward_repo.supply_chain.hasher import Progress

if TYPE_CHECKING:
    from click._termui_impl import ProgressBar

WORTH_SHOWING = 256 << 20  # bytes: below, it is over within a second


class _Bar:
    """One bar after the other: materials and products are hashed several times."""

    def __init__(self) -> None:
        self._bar: ProgressBar[int] | None = None
        self._shown = 0

    def __call__(self, done: int, total: int) -> None:
        if total < WORTH_SHOWING:
            return
        if self._bar is None:
            self._bar = click.progressbar(length=total, label="hashing", file=sys.stderr)
            self._bar.__enter__()
        self._bar.update(done - self._shown)
        self._shown = done
        if done >= total:
            self.close()

    def close(self) -> None:
        if self._bar is not None:
            self._bar.__exit__(None, None, None)
        self._bar = None
        self._shown = 0


@contextmanager
def hashing_bar() -> Iterator[Progress]:
    """Show how far hashing is, if it takes long; on anything but a terminal, nothing."""
    bar = _Bar()
    try:
        yield bar
    finally:
        bar.close()
