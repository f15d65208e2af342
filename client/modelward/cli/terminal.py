"""What a person, or a script, is told."""

import json
import os
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from modelward.errors import Gate, ModelwardError, Refused

if TYPE_CHECKING:
    import argparse


class Terminal:
    """Tells a person what happens: a line a gate, and a progress bar on a terminal."""

    def __init__(self, *, quiet: bool) -> None:
        self._quiet = quiet
        self._bar = not quiet and sys.stderr.isatty()
        self._open = False

    def passed(self, gate: Gate, detail: str) -> None:
        """Print a line."""
        self.end()
        if self._quiet:
            return
        try:
            sys.stdout.write(f"{gate}: {detail}\n")
            sys.stdout.flush()
        except BrokenPipeError:
            # Nobody reads any more (`| head`): that must not stop an update half-way.
            self._quiet = True
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())

    def fetching(self, received: int, total: int) -> None:
        """Draw the bar of what has arrived."""
        self._draw(received, total, "")

    def hashing(self, done: int, total: int) -> None:
        """Draw the bar of what has been hashed."""
        self._draw(done, total, " hashed")

    def _draw(self, count: int, total: int, what: str) -> None:
        if self._bar and total:
            done = 30 * count // total
            sys.stderr.write(
                f"\r  [{'#' * done}{'.' * (30 - done)}] {100 * count // total:3d} % of "
                f"{total / 1e6:.1f} MB{what}"
            )
            sys.stderr.flush()
            self._open = True

    def end(self) -> None:
        """Leave the bar, if there is one, as it is."""
        if self._open:
            sys.stderr.write("\n")
            self._open = False


def say(options: "argparse.Namespace", result: Mapping[str, Any], text: str) -> None:
    """Print a result: as JSON if that was asked for, else for people."""
    sys.stdout.write((json.dumps(result, indent=2) if options.json else text) + "\n")


def report_error(error: ModelwardError, *, as_json: bool) -> None:
    """Print an error for people and, if that was asked for, as JSON."""
    if as_json:
        sys.stdout.write(json.dumps(error.to_dict(), indent=2) + "\n")
    where = f" at {error.gate}" if error.gate else ""
    label = {"refused": "REFUSED", "unavailable": "unavailable"}.get(error.outcome, "error")
    sys.stderr.write(f"modelward: {label}{where}: {error.reason}\n")
    if error.advice:
        sys.stderr.write(f"  what to do: {error.advice}\n")
    if isinstance(error, Refused):
        sys.stderr.write("  nothing was changed; what ran before still runs\n")
