"""What devices saw of the log, compared with what this server serves and with each other.

A device that saw more than is served here shows that somebody keeps newer states from whoever asks
here. Two trees that cannot both be true are evidence against the log, whoever sent them.
"""

import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Protocol

from modelward.errors import FormatError, ModelwardError, NotFound, Refused
from modelward.formats.checkpoint import Checkpoint, SignedCheckpoint
from modelward.formats.log_evidence import LogEvidence
from modelward.formats.log_policy import LogPolicy
from modelward.formats.log_state import log_digest
from modelward.formats.report import Report
from modelward.formats.tile import HASH, Tile
from modelward.trust.cosignature import verify_log_signature
from modelward.trust.growth import check_growth, tiles_between
from modelward.trust.split_view import SplitView, check_same_size, judge
from modelward_repo.fleet.store import Turn

MAX_AHEAD = 64  # trees beyond the served one that are remembered


@dataclass(frozen=True)
class Found:
    """Something that gives alarm.

    Attributes:
        kind: ``split view``, ``history rewritten``, or ``freeze``.
        subject: What tells it from others of its kind.
        reason: One sentence for people.
        document: Evidence that anybody can judge, or None.
    """

    kind: str
    subject: str
    reason: str
    document: bytes | None = None


class Served(Protocol):
    """The log as this server shows it."""

    def repository_id(self) -> str | None:
        """Return the id in root, or None."""
        ...

    def policy(self) -> LogPolicy | None:
        """Return root's log policy, or None."""
        ...

    def checkpoint(self) -> bytes | None:
        """Return the newest checkpoint, or None."""
        ...

    def tile(self, tile: Tile) -> bytes:
        """Return a tile.

        Raises:
            NotFound: It is not there.
        """
        ...


class Ledger:
    """Compares.

    Args:
        served: The log as this server shows it.
    """

    def __init__(self, served: Served) -> None:
        self._served = served

    def repository_id(self) -> str | None:
        """Return the id of the repository, or None."""
        return self._served.repository_id()

    def checkpoint(self) -> bytes | None:
        """Return the newest checkpoint that is served, or None."""
        return self._served.checkpoint()

    def compare(self, turn: Turn, report: Report) -> list[Found]:
        """Return what a report's checkpoint and evidence show. Trees ahead are remembered."""
        policy = self._served.policy()
        if policy is None:
            return []
        found = [found for each in report.evidence for found in _judged(each, policy)]
        with contextlib.suppress(FormatError, Refused):
            if report.log is not None and report.log.log == log_digest(policy.vkey):
                seen = SignedCheckpoint.parse(report.log.checkpoint.encode())
                verify_log_signature(seen, policy.vkey)
                found += self._compare(turn, report.device, seen, policy)
        return found

    def _compare(
        self, turn: Turn, device: str, seen: SignedCheckpoint, policy: LogPolicy
    ) -> list[Found]:
        data = self._served.checkpoint()
        if data is None:
            return []
        shown = SignedCheckpoint.parse(data)
        verify_log_signature(shown, policy.vkey)
        log, size = log_digest(policy.vkey), shown.checkpoint.size
        found = []
        # What devices saw before this server did, and it serves now.
        for _, root, _, note in turn.ahead(log):
            earlier = SignedCheckpoint.parse(note)
            found += _evidence(partial(check_same_size, earlier, seen, policy))
            if earlier.checkpoint.size <= size:
                found += self._grown(earlier, shown, policy)
                turn.forget_ahead(log, earlier.checkpoint.size, root)
        if seen.checkpoint.size <= size:
            return found + self._grown(seen, shown, policy)
        if len(turn.ahead(log)) < MAX_AHEAD:
            tree = seen.checkpoint
            turn.add_ahead(log, tree.size, tree.root, device, seen.to_bytes())
        reason = (
            f"it has seen {seen.checkpoint.size} leaves of the log, and this server shows {size}: "
            "somebody keeps newer states from whoever asks here"
        )
        return [*found, Found("freeze", "", reason, seen.to_bytes())]

    def _grown(
        self, seen: SignedCheckpoint, shown: SignedCheckpoint, policy: LogPolicy
    ) -> list[Found]:
        """Compare a tree with the larger one that is served, which has all the tiles."""

        def check() -> None:
            check_same_size(seen, shown, policy)
            old, new = seen.checkpoint.size, shown.checkpoint.size
            tiles = {tile: self._tile(tile) for tile in tiles_between(old, new)}
            check_growth(seen, shown, policy, tiles)

        return _evidence(check)

    def _tile(self, tile: Tile) -> bytes:
        try:
            return self._served.tile(tile)
        except NotFound:
            return self._served.tile(tile.full)[: tile.width * HASH]


def _evidence(check: Callable[[], None]) -> list[Found]:
    try:
        check()
    except SplitView as error:
        return _found(error.evidence)
    except ModelwardError:
        return []  # tiles that cannot be read prove nothing
    return []


def _judged(evidence: LogEvidence, policy: LogPolicy) -> list[Found]:
    """Return what a device's evidence proves to somebody who knows the log's key."""
    return _found(evidence) if judge(evidence, policy).proven else []


def _found(evidence: LogEvidence) -> list[Found]:
    judgement = judge(evidence)
    small, large = sorted((evidence.seen.checkpoint, evidence.shown.checkpoint), key=_place)
    subject = f"{small.size} {small.root.hex()[:16]} {large.size} {large.root.hex()[:16]}"
    return [Found(judgement.verdict.value, subject, judgement.reason, evidence.to_bytes())]


def _place(tree: Checkpoint) -> tuple[int, bytes]:
    return tree.size, tree.root
