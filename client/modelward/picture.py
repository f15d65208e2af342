"""An explanation as a picture: how the files went from step to step to the release and here."""

import textwrap
from collections.abc import Sequence
from html import escape

from modelward.explain import SHORT, Explanation, short
from modelward.formats import strict
from modelward.trust.supply_chain import Chain, StepRecord
from modelward.trust.tuf_cache import RoleState

# Pixels. The first row of boxes is at 0; all of the chart is moved below the text above it.
_MARGIN, _STEP_X, _STEP_Y, _WIDTH, _HEIGHT = 24, 204, 124, 170, 96
_LINE, _LETTER = 16, 7  # a line of small text, and a letter of it at the widest
_NAME = 13  # characters of a file's name that fit a box

_Place = tuple[int, int]


def svg(explanation: Explanation) -> str:
    """Return the picture, as an SVG document that stands alone."""
    release, chain = explanation.attested.release, explanation.attested.chain
    columns = _columns(chain)
    places: dict[str, _Place] = {}
    shapes: list[str] = []
    for column, steps in enumerate(columns):
        for row, step in enumerate(steps):
            places[step.name] = (column * _STEP_X, row * _STEP_Y)
            shapes.append(_box(places[step.name], step.name, _step_lines(step), "step"))
    release_at = (len(columns) * _STEP_X, 0)
    device_at = (release_at[0] + _STEP_X, 0)
    shapes += [_release(explanation, release_at), _device(explanation, device_at)]
    arrows = [(places[giver], places[taker]) for taker, giver in chain.matches]
    arrows += [(places[chain.steps[-1].name], release_at), (release_at, device_at)]
    chart = "\n".join([*(_arrow(giver, taker) for giver, taker in arrows), *shapes])

    width = device_at[0] + _WIDTH + 2 * _MARGIN
    title = f"Why {release.model} {release.version} is trusted"
    text = _wrapped(_head(explanation), width)
    top = 50 + _LINE * len(text) + max(_lift(giver, taker) for giver, taker in arrows)
    height = top + max(len(steps) for steps in columns) * _STEP_Y
    words = "".join(
        f'<text x="{_MARGIN}" y="{50 + _LINE * number}" class="small">{escape(line)}</text>\n'
        for number, line in enumerate(text)
    )
    return f"""<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img"
 width="{width}" height="{height}" font-family="system-ui, sans-serif">
<title>{escape(title)}</title>
<style>
 svg {{ background: #fff }} .title {{ font-size: 14px; font-weight: 600; fill: #102a43 }}
 .small {{ font-size: 11px; fill: #334e68 }} .head {{ font-size: 18px; font-weight: 600 }}
 .step {{ fill: #f0f4f8; stroke: #829ab1 }} .release {{ fill: #e3f8ff; stroke: #2186eb }}
 .device {{ fill: #e3f9e5; stroke: #3f9142 }}
 .arrow {{ fill: none; stroke: #829ab1; stroke-width: 1.4; marker-end: url(#tip) }}
</style>
<defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7"
 orient="auto"><path d="M0,0 L8,4 L0,8 z" fill="#829ab1"/></marker></defs>
<text x="{_MARGIN}" y="30" class="head">{escape(title)}</text>
{words}<g transform="translate({_MARGIN},{top})">
{chart}
</g>
</svg>
"""


def _columns(chain: Chain) -> list[list[StepRecord]]:
    """Place every step one column right of the furthest step that it takes files from."""
    depth: dict[str, int] = {}
    takes: dict[str, list[str]] = {step.name: [] for step in chain.steps}
    for taker, giver in chain.matches:
        takes[taker].append(giver)
    for step in chain.steps:
        depth[step.name] = max((depth.get(giver, 0) + 1 for giver in takes[step.name]), default=0)
    columns: list[list[StepRecord]] = [[] for _ in range(max(depth.values()) + 1)]
    for step in chain.steps:
        columns[depth[step.name]].append(step)
    return columns


# --- text -----------------------------------------------------------------------------------------


def _head(explanation: Explanation) -> list[str]:
    """Return what stands above the chart: who vouches for it, and until when."""
    chain = explanation.attested.chain
    layout = (
        f"layout signed by owners {short(chain.owners)} ({chain.owner_threshold} needed), "
        f"valid until {strict.rfc3339(chain.expires)}"
    )
    return [
        layout,
        *([_role_line(role) for role in explanation.roles] or ["no metadata is cached"]),
        *explanation.log.lines(),
        *([f"Warning: {explanation.warning}"] if explanation.warning else []),
    ]


def _role_line(role: RoleState) -> str:
    return (
        f"{role.name} {role.version}: {len(role.signers)} of {len(role.keys)} signed "
        f"({role.threshold} needed), expires {role.expires:%Y-%m-%d}"
    )


def _wrapped(lines: Sequence[str], width: int) -> list[str]:
    """Break lines that would leave the picture."""
    letters = (width - 2 * _MARGIN) // _LETTER
    return [part for line in lines for part in textwrap.wrap(line, letters)]


def _step_lines(step: StepRecord) -> list[str]:
    path, digest = next(iter(sorted(step.products.items())), ("nothing", ""))
    name = path.rpartition("/")[2][:_NAME]
    more = f" +{len(step.products) - 1}" if len(step.products) > 1 else ""
    return [
        f"by {short(step.functionaries)}",
        f"{len(step.functionaries)} signed, {step.threshold} needed",
        f"{len(step.materials)} files in, {len(step.products)} out",
        f"{name} {digest[:SHORT]}{more}",
    ]


# --- shapes ---------------------------------------------------------------------------------------


def _release(explanation: Explanation, at: _Place) -> str:
    release = explanation.attested.release
    role = next((role for role in explanation.roles if role.name == f"model-{release.model}"), None)
    lines = [
        f"release {release.counter}, {len(release.files)} files",
        f"signed by {short(role.signers)}" if role else "signed by its role",
        f"sha256 {explanation.slot.sha256[:SHORT]}",
    ]
    return _box(at, f"{release.model} {release.version}", lines, "release")


def _device(explanation: Explanation, at: _Place) -> str:
    lines = [f"id {explanation.device_id[:20]}", "verified again just now"]
    return _box(at, "this device", lines, "device")


def _box(at: _Place, title: str, lines: Sequence[str], kind: str) -> str:
    x, y = at
    texts = "".join(
        f'<text x="{x + 10}" y="{y + 36 + 15 * number}" class="small">{escape(line)}</text>'
        for number, line in enumerate(lines)
    )
    return (
        f'<rect x="{x}" y="{y}" width="{_WIDTH}" height="{_HEIGHT}" rx="8" class="{kind}"/>'
        f'<text x="{x + 10}" y="{y + 20}" class="title">{escape(title)}</text>{texts}'
    )


def _arrow(giver: _Place, taker: _Place) -> str:
    """Draw an arrow; one that would cross other boxes goes over or under them."""
    if lift := _lift(giver, taker):
        x1, x2 = giver[0] + _WIDTH * 2 // 3, taker[0] + _WIDTH // 3
        return f'<path d="M{x1},0 C{x1},{-lift} {x2},{-lift} {x2},-4" class="arrow"/>'
    x1, y1 = giver[0] + _WIDTH, giver[1] + _HEIGHT // 2
    if _apart(giver, taker) > 1:
        x2, y2 = taker[0] + _WIDTH // 3, taker[1] + _HEIGHT + 4
        return f'<path d="M{x1},{y1} C{x2},{y1} {x2},{y1} {x2},{y2}" class="arrow"/>'
    x2, y2 = taker[0] - 4, taker[1] + _HEIGHT // 2
    bend = max(20, (x2 - x1) // 2)
    return f'<path d="M{x1},{y1} C{x1 + bend},{y1} {x2 - bend},{y2} {x2},{y2}" class="arrow"/>'


def _lift(giver: _Place, taker: _Place) -> int:
    """How far above the first row an arrow bends: 0 unless it goes over boxes of that row."""
    over = _apart(giver, taker) > 1 and giver[1] == taker[1] == 0
    return 16 + 14 * _apart(giver, taker) if over else 0


def _apart(giver: _Place, taker: _Place) -> int:
    return (taker[0] - giver[0]) // _STEP_X
