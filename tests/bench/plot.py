"""Plots for docs/benchmarks.md, as SVG files beside it: few lines, and no library."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from xml.sax.saxutils import escape

from tests.bench.page import PAGE

FOLDER = PAGE.parent / "plots"
LABELS, WIDTH, ROW, TOP, SIDE = 330, 560, 24, 70, 24  # pixels
COLOURS = ("#9aa0a6", "#5f6368", "#e8a33d", "#b0542c", "#8e63ce", "#3f7fd0", "#137b3f")


def dots(
    name: str, title: str, rows: Mapping[str, Mapping[str, float]], series: Sequence[str]
) -> str:
    """Write a plot of one line a row and one dot a series, on a logarithmic axis.

    Args:
        name: Of the file.
        title: What the axis shows, with its unit.
        rows: For each label, the value of each series that it has; all above 0.
        series: In the order of the legend; the last one stands out.

    Returns:
        The line that shows the plot in a Markdown page of `docs/`.
    """
    values = [value for row in rows.values() for value in row.values()]
    low, high = math.floor(math.log10(min(values))), math.ceil(math.log10(max(values)))
    height = TOP + ROW * len(rows) + 30

    def x(value: float) -> float:
        return LABELS + WIDTH * (math.log10(value) - low) / (high - low)

    box = f"0 0 {LABELS + WIDTH + SIDE} {height}"
    shapes = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="{box}">',
        "<style>text {font: 12px sans-serif}</style>",
        '<rect width="100%" height="100%" fill="white"/>',
        f'<text x="{LABELS}" y="18">{escape(title)}</text>',
    ]
    colours = dict(zip(reversed(series), reversed(COLOURS), strict=False))
    place = SIDE
    for one in series:
        shapes.append(f'<circle cx="{place}" cy="38" r="5" fill="{colours[one]}"/>')
        shapes.append(f'<text x="{place + 9}" y="42">{escape(one)}</text>')
        place += 22 + 7 * len(one)
    for power in range(low, high + 1):
        at = x(10**power)
        bottom = height - 26
        shapes.append(f'<line x1="{at}" y1="{TOP - 12}" x2="{at}" y2="{bottom}" stroke="#dddddd"/>')
        shapes.append(f'<text x="{at}" y="{height - 10}" text-anchor="middle">{10**power:g}</text>')
    for number, (label, row) in enumerate(rows.items()):
        y = TOP + ROW * number
        shapes.append(
            f'<text x="{LABELS - 12}" y="{y + 4}" text-anchor="end">{escape(label)}</text>'
        )
        for one in series:
            if one in row:
                radius = 6 if one == series[-1] else 4.5
                shapes.append(
                    f'<circle cx="{x(row[one]):.1f}" cy="{y}" r="{radius}" fill="{colours[one]}" '
                    f'fill-opacity="0.85"><title>{escape(one)}: {row[one]:.3g}</title></circle>'
                )
    FOLDER.mkdir(exist_ok=True)
    write(FOLDER / f"{name}.svg", [*shapes, "</svg>"])
    return f"![{title}](plots/{name}.svg)"


def write(path: Path, lines: Sequence[str]) -> None:
    """Write a text file."""
    path.write_text("\n".join(lines) + "\n", "utf-8")
