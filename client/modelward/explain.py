"""Why is a model trusted? The proof that was kept when it was installed, verified again, told."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

from modelward import proof
from modelward.device import Device
from modelward.errors import UsageError
from modelward.formats import strict
from modelward.formats.installed import Slot
from modelward.log_memory import Memory, remember
from modelward.trust.repository import Cache, RoleState
from modelward.trust.supply_chain import Attested, Chain, StepRecord

SHORT = 8  # digits of a key id or digest that people compare
_NAME = 13  # characters of a file's path that fit a box


@dataclass(frozen=True)
class Explanation:
    """Everything that makes a device trust a model.

    Attributes:
        device_id: The device.
        slot: Where the release is installed.
        attested: The release and its chain, verified again just now.
        roles: The roles of the repository that vouch for it.
        log: What the device knows of the transparency log.
        warning: What would be refused if it came today, or None.
    """

    device_id: str
    slot: Slot
    attested: Attested
    roles: tuple[RoleState, ...]
    log: Memory
    warning: str | None


def explain(device: Device, model: str) -> Explanation:
    """Verify the kept proof of an installed model again, without any network.

    Args:
        device: The device.
        model: The model.

    Raises:
        UsageError: The model is not installed.
        Refused: The proof does not hold.
    """
    slot = device.slots.installed().active.get(model)
    if slot is None:
        raise UsageError(f"no model {model!r} is installed", f"run `modelward update {model}`")
    attested, warning = proof.of(device, model, slot)
    return Explanation(
        device.config.device_id, slot, attested, _roles(device, model), remember(device), warning
    )


def _roles(device: Device, model: str) -> tuple[RoleState, ...]:
    """Return the roles that vouch for a model, as of the last update; none without metadata."""
    cache = Cache(device.cache)
    if not cache.file("timestamp").exists():
        return ()
    wanted = {"root", "targets", "snapshot", "timestamp", "channels", f"model-{model}"}
    return tuple(role for role in cache.roles() if role.name in wanted)


def to_dict(explanation: Explanation) -> dict[str, Any]:
    """Return an explanation as a JSON object."""
    release, chain = explanation.attested.release, explanation.attested.chain
    return {
        "model": release.model,
        "version": release.version,
        "counter": release.counter,
        "released": strict.rfc3339(release.released),
        "release_sha256": explanation.slot.sha256,
        "device": explanation.device_id,
        "warning": explanation.warning,
        "ticket": release.ticket.to_dict(),
        "files": [
            {"path": file.path, "length": file.blob.length, "sha256": file.blob.sha256}
            for file in release.files
        ],
        "layout": {
            "owners": list(chain.owners),
            "threshold": chain.owner_threshold,
            "expires": strict.rfc3339(chain.expires),
        },
        "steps": [
            {
                "name": step.name,
                "threshold": step.threshold,
                "functionaries": list(step.functionaries),
                "materials": dict(step.materials),
                "products": dict(step.products),
            }
            for step in chain.steps
        ],
        "roles": [
            {
                "name": role.name,
                "version": role.version,
                "expires": strict.rfc3339(role.expires),
                "threshold": role.threshold,
                "signers": list(role.signers),
                "keys": list(role.keys),
            }
            for role in explanation.roles
        ],
        "log": explanation.log.to_dict(),
    }


def to_text(explanation: Explanation) -> str:
    """Return an explanation for people."""
    release, chain = explanation.attested.release, explanation.attested.chain
    lines = [
        f"{release.model} {release.version} is trusted because:",
        "",
        "1. The repository's roles say that it is the release (TUF)",
    ]
    for role in explanation.roles:
        signers = _keys(role.signers)
        lines.append(
            f"   {role.name:<22} version {role.version:<4} signed by {len(role.signers)} of "
            f"{len(role.keys)}, {role.threshold} needed ({signers}); "
            f"expires {strict.rfc3339(role.expires)}"
        )
    if not explanation.roles:
        lines.append("   (no metadata is cached: run `modelward update`)")
    lines += [
        "",
        "2. Every step that made it was done by whom its layout names (in-toto)",
        f"   layout signed by owners {_keys(chain.owners)}, {chain.owner_threshold} needed",
        f"   layout expires {strict.rfc3339(chain.expires)}",
    ]
    for step in chain.steps:
        lines.append(
            f"   {step.name:<14} by {_keys(step.functionaries)} ({step.threshold} needed): "
            f"{len(step.materials)} files in, {len(step.products)} out"
        )
    lines += ["", "3. Its files are exactly the approved ones"]
    for file in release.files:
        lines.append(
            f"   {file.path:<24} {file.blob.length:>12} bytes  sha256 {file.blob.sha256[:16]}.."
        )
    if told := explanation.log.lines():
        lines += ["", "4. It was logged where everybody sees it", *(f"   {line}" for line in told)]
    if explanation.warning:
        lines += ["", f"Warning: {explanation.warning}"]
    return "\n".join(lines)


def to_svg(explanation: Explanation) -> str:
    """Return a picture: how the files went from step to step to the release and this device."""
    release, chain = explanation.attested.release, explanation.attested.chain
    columns = _columns(chain)
    places: dict[str, tuple[int, int]] = {}
    boxes: list[str] = []
    for column, steps in enumerate(columns):
        for row, step in enumerate(steps):
            places[step.name] = (_MARGIN + column * _STEP_X, _TOP + row * _STEP_Y)
            boxes.append(_box(*places[step.name], step.name, _step_lines(step), "step"))
    x = _MARGIN + len(columns) * _STEP_X
    places["release"] = (x, _TOP)
    places["device"] = (x + _STEP_X, _TOP)
    model_role = next((r for r in explanation.roles if r.name == f"model-{release.model}"), None)
    boxes.append(
        _box(
            *places["release"],
            f"{release.model} {release.version}",
            [
                f"release {release.counter}, {len(release.files)} files",
                f"signed by {_keys(model_role.signers)}" if model_role else "signed by its role",
                f"sha256 {explanation.slot.sha256[:SHORT]}",
            ],
            "release",
        )
    )
    boxes.append(
        _box(
            *places["device"],
            "this device",
            [f"id {explanation.device_id[:20]}", "verified again just now"],
            "device",
        )
    )
    arrows = [_arrow(places[giver], places[taker]) for taker, giver in chain.matches]
    arrows += [
        _arrow(places[chain.steps[-1].name], places["release"]),
        _arrow(places["release"], places["device"]),
    ]
    width = x + 2 * _STEP_X + _MARGIN
    rows = max(len(steps) for steps in columns)
    return _document(width, _TOP + max(rows, 1) * _STEP_Y + 30, boxes, arrows, explanation)


_MARGIN, _TOP, _STEP_X, _STEP_Y, _WIDTH, _HEIGHT = 24, 184, 204, 124, 170, 96


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


def _step_lines(step: StepRecord) -> list[str]:
    path, digest = next(iter(sorted(step.products.items())), ("nothing", ""))
    name = path.rpartition("/")[2][:_NAME]
    more = f" +{len(step.products) - 1}" if len(step.products) > 1 else ""
    return [
        f"by {_keys(step.functionaries)}",
        f"{len(step.functionaries)} signed, {step.threshold} needed",
        f"{len(step.materials)} files in, {len(step.products)} out",
        f"{name} {digest[:SHORT]}{more}",
    ]


def _box(x: int, y: int, title: str, lines: Sequence[str], kind: str) -> str:
    texts = "".join(
        f'<text x="{x + 10}" y="{y + 36 + 15 * number}" class="small">{escape(line)}</text>'
        for number, line in enumerate(lines)
    )
    return (
        f'<rect x="{x}" y="{y}" width="{_WIDTH}" height="{_HEIGHT}" rx="8" class="{kind}"/>'
        f'<text x="{x + 10}" y="{y + 20}" class="title">{escape(title)}</text>{texts}'
    )


def _arrow(giver: tuple[int, int], taker: tuple[int, int]) -> str:
    """Draw an arrow; one that would cross other boxes goes over or under them."""
    columns = (taker[0] - giver[0]) // _STEP_X
    if columns > 1 and giver[1] == _TOP == taker[1]:
        x1, x2, y = giver[0] + _WIDTH * 2 // 3, taker[0] + _WIDTH // 3, _TOP
        top = y - 16 - 14 * columns
        return f'<path d="M{x1},{y} C{x1},{top} {x2},{top} {x2},{y - 4}" class="arrow"/>'
    x1, y1 = giver[0] + _WIDTH, giver[1] + _HEIGHT // 2
    if columns > 1:
        x2, y2 = taker[0] + _WIDTH // 3, taker[1] + _HEIGHT + 4
        return f'<path d="M{x1},{y1} C{x2},{y1} {x2},{y1} {x2},{y2}" class="arrow"/>'
    x2, y2 = taker[0] - 4, taker[1] + _HEIGHT // 2
    bend = max(20, (x2 - x1) // 2)
    return f'<path d="M{x1},{y1} C{x1 + bend},{y1} {x2 - bend},{y2} {x2},{y2}" class="arrow"/>'


def _document(
    width: int,
    height: int,
    boxes: Sequence[str],
    arrows: Sequence[str],
    explanation: Explanation,
) -> str:
    release, chain = explanation.attested.release, explanation.attested.chain
    title = f"Why {release.model} {release.version} is trusted"
    subtitle = (
        f"layout signed by owners {_keys(chain.owners)} ({chain.owner_threshold} needed), "
        f"valid until {strict.rfc3339(chain.expires)}"
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
<text x="{_MARGIN}" y="50" class="small">{escape(subtitle)}</text>
<text x="{_MARGIN}" y="66" class="small">{escape(_roles_line(explanation.roles))}</text>
<text x="{_MARGIN}" y="82" class="small">{escape("; ".join(explanation.log.lines()))}</text>
{"".join(arrows)}
{"".join(boxes)}
</svg>
"""


def _roles_line(roles: Sequence[RoleState]) -> str:
    parts = [
        f"{role.name} {role.version}: {len(role.signers)} of {len(role.keys)} signed "
        f"({role.threshold} needed), expires {role.expires:%Y-%m-%d}"
        for role in roles
    ]
    return "; ".join(parts) or "no metadata is cached"


def _keys(keyids: Sequence[str] | Mapping[str, Any]) -> str:
    return ", ".join(keyid[:SHORT] for keyid in keyids) or "nobody"
