"""What a device knows of the transparency log without asking anybody, and what it tells of it."""

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from tuf.api.exceptions import RepositoryError

from modelward import fastpath
from modelward.device import Device
from modelward.errors import FormatError, Gate, Refused, Unavailable
from modelward.formats import log_policy, strict
from modelward.formats.checkpoint import SignedCheckpoint
from modelward.formats.heard import Heard
from modelward.formats.log_policy import LogPolicy
from modelward.formats.log_state import LogState, log_digest
from modelward.install.log_state import Kept
from modelward.ledger import is_pending, keep, policy_of
from modelward.trust import split_view
from modelward.trust.cosignature import NO_LIMIT, verify_cosignatures
from modelward.trust.split_view import Order, SplitView
from modelward.trust.tuf_cache import Cache


@dataclass(frozen=True)
class Memory:
    """What a device knows of the log without asking anybody.

    Attributes:
        policy: The policy of the root that is cached, or None.
        state: The last tree it believed, or None.
        times: When each witness cosigned that: None if it made no statement about the time.
        evidence: What it keeps against any log.
        heard: The largest tree that others have seen and it has not, or None.
    """

    policy: LogPolicy | None
    state: LogState | None
    times: Mapping[str, datetime | None]
    evidence: tuple[Kept, ...]
    heard: Heard | None = None

    @property
    def log(self) -> str | None:
        """Which log is believed: as root says or, where that cannot be read, as remembered."""
        if self.policy is not None:
            return log_digest(self.policy.vkey)
        return self.state.log if self.state else None

    @property
    def alarms(self) -> tuple[Kept, ...]:
        """Evidence that the log is not honest, and no root has named another one since."""
        return tuple(kept for kept in self.evidence if is_pending(kept, self.log))

    @property
    def freeze(self) -> str | None:
        """Why it seems that newer states are kept from this device, for people; or None."""
        if self.heard is None or self.heard.log != self.log:
            return None
        return self.heard.alarm

    def to_dict(self) -> dict[str, Any] | None:
        """Return what is known as a JSON object, or None for a device without a log."""
        if self.policy is None and self.state is None and not self.evidence:
            return None
        tree = self.state.signed if self.state else None
        return {
            "origin": self.policy.origin if self.policy else None,
            "size": tree.checkpoint.size if tree else None,
            "root_hash": tree.checkpoint.root.hex() if tree else None,
            "checkpoint": tree.to_bytes().decode() if tree else None,
            "cosigned": {
                name: strict.rfc3339(time) if time else None for name, time in self.times.items()
            },
            "quorum": self.policy.to_dict()["quorum"] if self.policy else None,
            "evidence": [
                kept_dict(kept) | {"alarm": is_pending(kept, self.log)} for kept in self.evidence
            ],
            "heard": self.heard.signed.checkpoint.size if self.heard else None,
            "freeze": self.freeze,
        }

    def lines(self) -> list[str]:
        """Return what is known, for people."""
        told = []
        if self.policy is not None and self.state is not None:
            cosigned = ", ".join(
                name + (f" at {strict.rfc3339(time)}" if time else "")
                for name, time in self.times.items()
            )
            told.append(
                f"log {self.policy.origin} of size {self.state.signed.checkpoint.size}, cosigned "
                f"by {cosigned or 'nobody'} (needed: {self.policy.quorum or log_policy.NONE})"
            )
        told += [
            f"{'ALARM' if is_pending(kept, self.log) else 'kept'}: evidence {kept.name} "
            f"against {kept.evidence.policy.origin}: {kept.judgement.reason}"
            for kept in self.evidence
        ]
        told += [f"ALARM: {self.freeze}"] if self.freeze else []
        return told


def _hear(device: Device, other: SignedCheckpoint, policy: LogPolicy) -> None:
    """Remember a larger tree, unless the log alone says so: its key may be the stolen one."""
    before, log = device.log.heard(), log_digest(policy.vkey)
    same = before is not None and before.log == log
    if same and before is not None and before.signed.checkpoint.size >= other.checkpoint.size:
        return
    if not policy.is_quorum(verify_cosignatures(other, policy, NO_LIMIT).times.keys()):
        return
    since, shown = (before.since, before.shown) if before is not None and same else (None, 0)
    heard = Heard(log, other, device.clock().replace(microsecond=0), shown, since)
    fastpath.forget(device.config.state)
    device.log.save_heard(heard)


def kept_dict(kept: Kept) -> dict[str, Any]:
    """Return a line about evidence as a JSON object."""
    return {
        "name": kept.name,
        "log": str(kept.evidence.policy.vkey),
        "verdict": kept.judgement.verdict.value,
        "reason": kept.judgement.reason,
    }


def remember(device: Device) -> Memory:
    """Return what a device knows of the log. Its checkpoint's signatures are verified again.

    Raises:
        Unavailable: What it knows cannot be read.
    """
    cache = Cache(device.cache)
    policy = None
    if cache.file("root").exists():
        with contextlib.suppress(OSError, RepositoryError, FormatError):
            policy = policy_of(cache.root())
    state = device.known(device.log.load)
    times: dict[str, datetime | None] = {}
    if policy is not None and state is not None and state.log == log_digest(policy.vkey):
        with contextlib.suppress(Refused):
            found = verify_cosignatures(state.signed, policy, NO_LIMIT)
            times = {
                name: datetime.fromtimestamp(at, UTC) if at else None
                for name, at in found.times.items()
            }
    elif policy is not None:
        state = None  # of a log that root named before
    return Memory(policy, state, times, device.log.evidence(), device.known(device.log.heard))


@dataclass(frozen=True)
class Compared:
    """A neighbour's checkpoint beside one's own; both are signed by the log.

    Attributes:
        order: How the neighbour's stands to one's own.
        own: Leaves of one's own tree.
        other: Leaves of the neighbour's.
    """

    order: Order
    own: int
    other: int

    def to_dict(self) -> dict[str, Any]:
        """Return it as a JSON object."""
        return {"outcome": self.order.value, "own_size": self.own, "other_size": self.other}

    def to_text(self) -> str:
        """Return it for people."""
        if self.order is Order.SAME:
            return f"the same tree of {self.own} leaves"
        if self.order is Order.SMALLER:
            return f"the neighbour is behind: it saw {self.other} leaves, this device {self.own}"
        return (
            f"the log has {self.other} leaves, and this device has seen {self.own}: run `modelward "
            "update`; if it stays so, somebody keeps newer states from this device"
        )


def gossip(device: Device, checkpoint: bytes) -> Compared:
    """Compare a checkpoint from a neighbour or a server with the one this device believes.

    A larger one is remembered if a quorum of witnesses cosigned it: the next update is a full one,
    and if the repository still shows less then, that is an alarm.

    Args:
        device: The device.
        checkpoint: The neighbour's, a signed note.

    Raises:
        Unavailable: This device has seen no log yet.
        Refused: It is not a checkpoint of the log.
        SplitView: Both cannot be true; the evidence is kept.
    """
    memory = remember(device)
    if memory.policy is None or memory.state is None:
        raise Unavailable("this device has seen no log yet", "run `modelward update`", Gate.LOG)
    own = memory.state.signed
    try:
        other = SignedCheckpoint.parse(checkpoint)
        order = split_view.compare(own, other, memory.policy)
    except SplitView as error:
        keep(device, error.evidence)
        raise
    except FormatError as error:
        error.gate = Gate.LOG
        raise
    if order is Order.LARGER:
        _hear(device, other, memory.policy)
    return Compared(order, own.checkpoint.size, other.checkpoint.size)
