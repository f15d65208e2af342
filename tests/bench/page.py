"""docs/benchmarks.md: each benchmark owns the part between its two markers."""

import os
import platform
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path

PAGE = Path(__file__).parents[2] / "docs/benchmarks.md"


def table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> list[str]:
    """Return the lines of a table."""
    return [
        f"| {' | '.join(header)} |",
        "|" + "---|" * len(header),
        *(f"| {' | '.join(map(str, row))} |" for row in rows),
    ]


def measured(command: str, how: str) -> str:
    """Return the line that says when, where and how a table was measured."""
    cores = os.cpu_count()
    return (
        f"Measured on {datetime.now(UTC):%Y-%m-%d} by `{command}` ({cores} cores, "
        f"{platform.machine()}, Linux {platform.release().split('-')[0]}); {how}."
    )


def write(name: str, lines: Sequence[str]) -> None:
    """Print a benchmark's part and put it between its markers, which the page must have.

    Raises:
        SystemExit: The page lacks the markers.
    """
    print("\n".join(lines))
    begin, end = f"<!-- bench: {name} -->", f"<!-- end: {name} -->"
    text = PAGE.read_text("utf-8")
    before, found, rest = text.partition(begin)
    _, closed, after = rest.partition(end)
    if not found or not closed:
        raise SystemExit(f"{PAGE} has no place for {name}: add the lines {begin} and {end}")
    PAGE.write_text("\n".join([before + begin, *lines, end]) + after, "utf-8")
