"""Gate 4 on a device: judge the proof in timestamp.json, fetch what it lacks, remember, give alarm.

What is believed and why is decided in `modelward.trust.log`, which is pure. This is its hands: it
reads what to judge out of the metadata that gate 3 verified, fetches tiles where the device is
further behind than the proof reaches, and keeps what must not be forgotten before anybody acts.
"""

import contextlib
import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime

from tuf.api.metadata import Root

from modelward import fastpath, plain_file
from modelward.device import Device
from modelward.errors import FormatError, Gate, NotFound, Refused, Unavailable
from modelward.formats import log_policy, strict, tlog_proof
from modelward.formats.leaf import REPOSITORY_FIELD, Leaf, RoleDigest
from modelward.formats.log_evidence import LogEvidence
from modelward.formats.log_policy import LogPolicy
from modelward.formats.log_state import LogState, log_digest
from modelward.formats.tile import HASH, Tile
from modelward.formats.tlog_proof import TimestampProof
from modelward.install.log_state import Kept, LogStore
from modelward.trust import log, tuf_cache
from modelward.trust.growth import check_growth, tiles_between
from modelward.trust.log import NeedsTiles, Verified
from modelward.trust.split_view import SplitView, check_same_size
from modelward.trust.tuf_cache import TOP_LEVEL, Cache
from modelward.trust.tuf_client import Fetcher


@dataclass(frozen=True)
class Logged:
    """That the repository's state is in its log.

    Attributes:
        policy: Root's log policy.
        verified: What was established.
        seen: Leaves of the tree that this device had seen before; 0 for none.
    """

    policy: LogPolicy
    verified: Verified
    seen: int

    @property
    def detail(self) -> str:
        """What was found, for people."""
        tree = self.verified.state.signed.checkpoint
        cosigned = ", ".join(sorted(self.verified.times)) or "its quorum"
        before = f", grown from the {self.seen} seen before" if self.seen else ""
        return (
            f"leaf {self.verified.index + 1} of {tree.size} in {tree.origin}{before}; cosigned by "
            f"{cosigned} (needed: {self.policy.quorum or log_policy.NONE})"
        )


def check(
    cache: Cache, policy: LogPolicy | None, device: Device, fetcher: Fetcher, log_url: str
) -> Logged | None:
    """Take what gate 3 verified through gate 4. What it proves is kept before this returns.

    Args:
        cache: The metadata that was just verified.
        policy: The log that its root names; see `policy_of`.
        device: The device.
        fetcher: Fetches tiles, where the device is too far behind to do without.
        log_url: Where the log is, with a final slash.

    Returns:
        What was found; None for a repository that never had a log.

    Raises:
        Refused: The state is not in the log, or a signature is not valid.
        SplitView: The log contradicts what this device saw, now or before; the evidence is kept.
        Unavailable: There is no proof, too few witnesses cosigned, or tiles cannot be had.
    """
    state = device.log.load()
    if policy is None:
        _check_never_logged(state)
        return None
    _check_nothing_pending(device.log, policy)
    try:
        with _at_gate_4():
            verified = _verify(_Shown.of(cache, policy), state, fetcher, log_url)
        _check_heard(device, verified.state, policy, fetcher, log_url)
    except SplitView as error:
        keep(device, error.evidence)
        raise
    if state is None or verified.state.to_bytes() != state.to_bytes():
        device.log.save(verified.state)
    same = state is not None and state.log == verified.state.log
    return Logged(policy, verified, state.signed.checkpoint.size if state and same else 0)


def policy_of(root: Root) -> LogPolicy | None:
    """Return the log that root names, or None.

    Raises:
        FormatError: Root names one in a way that cannot be read.
    """
    value = root.unrecognized_fields.get(log_policy.FIELD)
    with _at_gate_4():
        return None if value is None else LogPolicy.parse(value)


def keep(device: Device, evidence: LogEvidence) -> None:
    """Keep evidence against the log, and let no fast path hide it."""
    # A disk that is full, broken or read-only must not turn a refusal into another error.
    with contextlib.suppress(OSError):
        fastpath.forget(device.config.state)
    with contextlib.suppress(OSError, Unavailable):
        device.log.keep(evidence)


@dataclass(frozen=True)
class _Shown:
    """What this device was shown, for gate 4 to judge."""

    proof: TimestampProof | None
    leaf: Leaf
    policy: LogPolicy
    not_after: datetime
    before: RoleDigest | None  # the root before the newest one

    @classmethod
    def of(cls, cache: Cache, policy: LogPolicy) -> "_Shown":
        root, timestamp = cache.root(), cache.read("timestamp").signed
        value = timestamp.unrecognized_fields.get(tlog_proof.FIELD)
        fields = strict.Fields("root.json", root.unrecognized_fields)
        leaf = Leaf(
            fields.sha256(REPOSITORY_FIELD),
            RoleDigest(root.version, cache.digest("root")),
            RoleDigest(cache.snapshot().version, cache.digest("snapshot")),
        )
        return cls(
            None if value is None else TimestampProof.parse(value),
            leaf,
            policy,
            # No witness can push this clock beyond what roles kept offline signed for.
            min(cache.read(role).signed.expires for role in TOP_LEVEL),
            _root_before(cache, root.version),
        )

    def verify(self, state: LogState | None, tiles: Mapping[Tile, bytes] | None = None) -> Verified:
        return log.verify(
            self.proof,
            self.leaf,
            self.policy,
            state=state,
            not_after=self.not_after,
            tiles=tiles,
        )


def _root_before(cache: Cache, version: int) -> RoleDigest | None:
    path = cache.file("root").with_name("root_history") / f"{version - 1}.root.json"
    with contextlib.suppress(OSError):
        data = plain_file.read(path, tuf_cache.CAP)
        return RoleDigest(version - 1, hashlib.sha256(data).hexdigest())
    return None


def _verify(shown: _Shown, state: LogState | None, fetcher: Fetcher, log_url: str) -> Verified:
    try:
        return shown.verify(state)
    except NeedsTiles as needed:
        return _with_tiles(shown, state, needed, fetcher, log_url)
    except (SplitView, FormatError):
        raise
    except Refused as error:
        _check_between_roots(shown, state, error)
        raise


def _with_tiles(
    shown: _Shown, state: LogState | None, needed: NeedsTiles, fetcher: Fetcher, log_url: str
) -> Verified:
    """Fetch the tiles and verify again. Nobody signs tiles: wrong ones are as good as none."""
    try:
        tiles = {tile: _fetch_tile(fetcher, log_url, tile) for tile in needed.tiles}
        return shown.verify(state, tiles)
    except Unavailable as error:
        if needed.otherwise is not needed:
            raise needed.otherwise from error
        error.gate = Gate.LOG
        error.advice = error.advice or needed.advice
        raise


def _fetch_tile(fetcher: Fetcher, log_url: str, tile: Tile) -> bytes:
    """Fetch a tile. A log may drop a partial one once it has the full one (tlog-tiles)."""
    try:
        return fetcher.fetch(log_url + tile.path, tile.width * HASH)
    except NotFound:
        if tile.full == tile:
            raise
        full = fetcher.fetch(log_url + tile.full.path, tile.full.width * HASH)
        return full[: tile.width * HASH]


def _check_between_roots(shown: _Shown, state: LogState | None, refused: Refused) -> None:
    """A new root appears a moment before the timestamp that proves it to be logged."""
    if shown.before is None:
        return
    try:
        replace(shown, leaf=replace(shown.leaf, root=shown.before)).verify(state)
    except Unavailable:
        pass  # that leaf is logged; what is missing comes later in the list of checks
    except Refused:
        return
    raise Unavailable(
        f"root version {shown.leaf.root.version} is not logged yet",
        "try again later; if it stays so, ask the security team",
        Gate.LOG,
    ) from refused


@contextlib.contextmanager
def _at_gate_4() -> Iterator[None]:
    """Fill in which gate read a document that broke its format."""
    try:
        yield
    except FormatError as error:
        error.gate = error.gate or Gate.LOG
        raise


def _check_never_logged(state: LogState | None) -> None:
    """A root without a log would be the easy way around one."""
    if state is not None:
        raise Unavailable(
            "root no longer names a transparency log, and this device has seen that of "
            f"{state.signed.checkpoint.origin}",
            "a log is replaced, not dropped: sign a root that names one",
            Gate.LOG,
        )


def _check_heard(
    device: Device, state: LogState, policy: LogPolicy, fetcher: Fetcher, log_url: str
) -> None:
    """Compare with the largest tree that others have seen, if this device has heard of one.

    A repository that shows less is no reason to refuse what it shows: it is one to give alarm.

    Raises:
        SplitView: What is shown does not begin with it.
    """
    heard = device.log.heard()
    if heard is None:
        return
    shown, size = state.signed, heard.signed.checkpoint.size
    try:
        if heard.log == state.log and size <= shown.checkpoint.size:
            check_same_size(heard.signed, shown, policy)
            wanted = tiles_between(size, shown.checkpoint.size)
            tiles = {tile: _fetch_tile(fetcher, log_url, tile) for tile in wanted}
            check_growth(heard.signed, shown, policy, tiles)
    except Unavailable:
        pass  # whoever withholds tiles does not get rid of the alarm by that
    else:
        if heard.log != state.log or size <= shown.checkpoint.size:
            device.log.save_heard(None)
            return
    since = heard.since or device.clock().replace(microsecond=0)
    device.log.save_heard(replace(heard, shown=shown.checkpoint.size, since=since))


def _check_nothing_pending(store: LogStore, policy: LogPolicy) -> None:
    """A log that was proven to lie is not believed again, whatever it shows next."""
    for kept in store.evidence():
        if is_pending(kept, log_digest(policy.vkey)):
            raise SplitView(
                f"this device keeps evidence {kept.name}: {kept.judgement.reason}", kept.evidence
            )


def is_pending(kept: Kept, log: str | None) -> bool:
    """Tell whether evidence proves that a log, by the digest of its key, is not honest."""
    return kept.judgement.proven and log_digest(kept.evidence.policy.vkey) == log
