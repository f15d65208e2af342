"""Gate 5: which version is meant for this device now? The same answer for anyone who asks.

Deterministic from signed policy, the device's id and labels, and the time, so that a decision can
be recomputed by anybody and no controller has to be trusted with it.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from modelward.errors import Gate, Refused
from modelward.formats import window
from modelward.formats.channel import MILLION, Channel, Entry, Rollout


@dataclass(frozen=True)
class Decision:
    """What a device should run, and why.

    Attributes:
        version: The version; None to stay as it is.
        reason: One sentence for people.
        windows: Local times of day in which it may switch to that version; empty for always.
        for_now: Whether it holds only until what failed on the device may be tried again.
    """

    version: str | None
    reason: str
    windows: tuple[str, ...] = ()
    for_now: bool = False


def bucket(salt: bytes, device_id: str) -> int:
    """Return the device's place in a rollout, in parts per million.

    The first 8 bytes of SHA-256(salt || 0x00 || device id), big-endian, modulo 1,000,000.
    """
    digest = hashlib.sha256(salt + b"\x00" + device_id.encode()).digest()
    return int.from_bytes(digest[:8], "big") % MILLION


def decide(  # noqa: PLR0913 - all of them, and nothing else, decide
    channel: Channel,
    model: str,
    *,
    running: str | None,
    device_id: str,
    labels: Mapping[str, str],
    now: datetime,
) -> Decision:
    """Decide which version of a model is meant for a device now.

    Args:
        channel: The channel the device follows.
        model: The model.
        running: The version it runs, or None.
        device_id: The device's id.
        labels: The device's labels.
        now: Trusted time, in the device's own time zone: maintenance windows are local.

    Raises:
        Refused: The channel says nothing of the model.
    """
    entry = channel.models.get(model)
    if entry is None:
        known = ", ".join(sorted(channel.models)) or "none"
        raise Refused(
            Gate.CHANNEL,
            f"the channel {channel.name!r} does not offer a model {model!r}",
            f"models on this channel: {known}",
        )
    if entry.rollout is None:
        return Decision(entry.version, f"{channel.name} offers {entry.version} to every device")
    open_to_us = _stage_reason(entry.rollout, device_id, labels, now)
    windows = () if running in (None, entry.version) else _windows(entry.rollout)
    if open_to_us and windows and not window.inside(windows, now):
        names = ", ".join(windows)
        return Decision(None, f"{entry.version} waits for a maintenance window ({names})")
    if open_to_us:
        return Decision(entry.version, open_to_us, windows)
    return _before_our_stage(entry, running)


def _before_our_stage(entry: Entry, running: str | None) -> Decision:
    fallback = entry.previous
    if running is not None and running not in entry.revoked:
        return Decision(None, f"the rollout of {entry.version} has not reached this device")
    if fallback is None or fallback in entry.revoked:
        # Never to nothing: a device keeps what it has (attack row 31).
        return Decision(None, f"{entry.version} is not for this device yet, and nothing else is")
    return Decision(fallback, f"until the rollout of {entry.version} reaches this device")


def _windows(rollout: Rollout) -> tuple[str, ...]:
    """Return when a device that runs something may switch; empty for always."""
    return () if rollout.urgent else rollout.windows


def _stage_reason(
    rollout: Rollout, device_id: str, labels: Mapping[str, str], now: datetime
) -> str | None:
    if rollout.halted or now < rollout.not_before:
        return None
    place = bucket(rollout.salt, device_id)
    for number, stage in enumerate(rollout.stages, 1):
        matches = all(labels.get(name) in values for name, values in stage.labels.items())
        # A stage that waits for a promotion stays shut until promotions are understood here.
        opened = now >= rollout.not_before + stage.after and stage.promotion is None
        if opened and matches and place < stage.ppm:
            return f"stage {number} is open and covers this device ({place} < {stage.ppm} ppm)"
    return None
