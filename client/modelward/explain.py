"""Why is a model trusted? The proof that was kept when it was installed, verified again, told."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from modelward import proof
from modelward.device import Device
from modelward.errors import UsageError
from modelward.formats import strict
from modelward.formats.installed import Slot
from modelward.log_memory import Memory, remember
from modelward.trust.supply_chain import Attested
from modelward.trust.tuf_cache import Cache, RoleState

SHORT = 8  # digits of a key id or digest that people compare


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
        signers = short(role.signers)
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
        f"   layout signed by owners {short(chain.owners)}, {chain.owner_threshold} needed",
        f"   layout expires {strict.rfc3339(chain.expires)}",
    ]
    for step in chain.steps:
        lines.append(
            f"   {step.name:<14} by {short(step.functionaries)} ({step.threshold} needed): "
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


def short(keyids: Sequence[str] | Mapping[str, Any]) -> str:
    """Return the key ids as people compare them, or "nobody"."""
    return ", ".join(keyid[:SHORT] for keyid in keyids) or "nobody"
