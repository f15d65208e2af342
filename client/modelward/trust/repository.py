"""Gate 3: TUF. Which metadata is current, and which small targets does it vouch for?

Wraps `tuf.ngclient`, which implements the client workflow of the TUF specification (5.3 to 5.7),
and adds what a device needs beyond it: floors that survive a power cut (attack row 3), refusal of
a second timestamp under a version already seen (row 16), and errors that say what to do.
"""

import dataclasses
import hashlib
from collections.abc import Iterable, Iterator
from datetime import datetime
from pathlib import Path
from typing import cast
from urllib.parse import quote

from tuf.api import exceptions as tuf_errors
from tuf.api.metadata import Metadata, Root, Snapshot, TargetFile, Targets, Timestamp
from tuf.ngclient import UpdaterConfig

from modelward.errors import PUT_ROOT_BACK, Gate, Refused
from modelward.formats import strict
from modelward.formats.floors import Floors, RoleFloor
from modelward.formats.strict import MAX_INT
from modelward.trust.tuf_cache import TOP_LEVEL, Cache, state_of
from modelward.trust.tuf_client import (
    Fetcher,
    Keep,
    KeepingUpdater,
    TufFetcher,
    errors_about,
)

# Roots are counted from the provisioned one: enough for a rotation a day over ten years. Each must
# be signed by the one before it, so nobody can make a device walk further than root was rotated.
MAX_ROOTS = 4096
STRONG_HASHES = frozenset({"sha256", "sha384", "sha512"})
_ASK_FOR_ROOT = "get the root metadata from the security team again, by a way that you trust"
_PATH_SAFE = "/!$&'()*+,;=:@~"  # what RFC 3986 lets stand in a path as it is


class Repository:
    """A TUF repository as one device sees it during one update.

    Args:
        cache: Directory for TUF's cached metadata; see `Cache`.
        metadata_url: Where metadata is served.
        targets_url: Where targets are served.
        fetcher: Brings bytes.
        root: Provisioned root metadata, the anchor of trust.
        floors: What was acted upon before.
        refuse_replay: Whether other bytes under the timestamp version already trusted are an
            error. TUF 5.4.3 discards them in silence; a device wants to know.
        keep: Writes what was verified into the cache; None for TUF's own way.

    Raises:
        Refused: The provisioned root is not valid.
    """

    def __init__(  # noqa: PLR0913 - each is a different thing that the caller alone can know
        self,
        *,
        cache: Path,
        metadata_url: str,
        targets_url: str,
        fetcher: Fetcher,
        root: bytes,
        floors: Floors | None = None,
        refuse_replay: bool = True,
        keep: Keep | None = None,
    ) -> None:
        self.cache = Cache(cache)
        self._targets_url = targets_url if targets_url.endswith("/") else targets_url + "/"
        self._fetcher = TufFetcher(fetcher, before_timestamp=self._check_root_expiry)
        self._floors = floors or Floors()
        self._refuse_replay = refuse_replay
        self._now: datetime | None = None
        with errors_about("the provisioned root", PUT_ROOT_BACK):
            self._updater = KeepingUpdater(
                str(cache),
                metadata_url,
                fetcher=self._fetcher,
                config=UpdaterConfig(max_root_rotations=MAX_ROOTS),
                bootstrap=root,
                keep=keep,
            )

    def refresh(self) -> None:
        """Run the TUF client workflow for the four top-level roles (TUF 5.3 to 5.6).

        Raises:
            Refused: Something that was served is not valid, has expired, or is older than what
                this device has already acted upon.
            Unavailable: Something could not be fetched.
        """
        with errors_about("the repository's metadata"):
            self._updater.refresh()
        self._check_versions()
        if self._refuse_replay:
            self._check_replay()
        self._check_floors()

    def judge_expiry_by(self, now: datetime) -> None:
        """Judge expiry by trusted time as well, from now on: TUF's client knows only the clock.

        Args:
            now: A time that has certainly passed.

        Raises:
            Refused: A top-level role has expired by then (attack row 4).
        """
        self._now = now
        for role in TOP_LEVEL:
            self._check_expiry(role)

    def target(self, path: str, cap: int | None = None) -> bytes | None:
        """Return a small target, verified, or None if no role vouches for the path.

        Args:
            path: TUF target path.
            cap: Most bytes it may have; None for whatever its role says.

        Raises:
            Refused: A role's metadata, or the target itself, is not valid.
            Unavailable: Something could not be fetched.
        """
        with errors_about(f"the target {path}"):
            info = self._updater.get_targetinfo(path)
            if info is None:
                return None
            self._check_vouching(path)
            self._check_listed()
            _check_info(info, cap)
            data = self._fetcher.download_bytes(self.target_url(info), info.length)
            info.verify_length_and_hashes(data)
            return data

    def target_info(self, path: str) -> TargetFile | None:
        """Return what the responsible role says of a target, without fetching it.

        Raises:
            Refused: A role's metadata is not valid.
            Unavailable: Something could not be fetched.
        """
        with errors_about(f"the target {path}"):
            info = self._updater.get_targetinfo(path)
            if info is not None:
                self._check_vouching(path)
                _check_info(info, None)
            return info

    def target_url(self, info: TargetFile) -> str:
        """Return where a target is served (TUF 5.7.3, consistent snapshots)."""
        directory, slash, name = info.path.rpartition("/")
        if self.cache.root().consistent_snapshot:
            name = f"{next(iter(info.hashes.values()))}.{name}"
        return self._targets_url + quote(f"{directory}{slash}{name}", _PATH_SAFE)

    def new_floors(self) -> Floors:
        """Return the floors raised to what this refresh verified."""
        return dataclasses.replace(
            self._floors,
            root=self.cache.root().version,
            timestamp=self._role_floor(Timestamp.type),
            snapshot=self._role_floor(Snapshot.type),
            listed={
                name.removesuffix(".json"): meta.version
                for name, meta in self.cache.snapshot().meta.items()
            },
        )

    def _role_floor(self, role: str) -> RoleFloor:
        state = state_of(role, self.cache.read(role), self.cache.root())
        digest = self.cache.digest(role)
        return RoleFloor(state.version, digest, frozenset(state.signers))

    def _check_root_expiry(self) -> None:
        """TUF 5.3.10: an expired root ends the update before anything more is asked for."""
        if self.cache.root().is_expired():
            raise tuf_errors.ExpiredMetadataError("Final root.json is expired")

    def _check_vouching(self, path: str) -> None:
        """Judge the expiry of the delegated roles that a target was looked for in."""
        if self._now is None:
            return
        targets = cast("Targets", self.cache.read(Targets.type).signed)
        if targets.delegations is None or path in targets.targets:
            return
        for role, _ in targets.delegations.get_roles_for_target(path):
            if self.cache.file(role).exists():
                self._check_expiry(role)

    def _check_expiry(self, role: str) -> None:
        expires = self.cache.read(role).signed.expires
        if self._now is not None and expires <= self._now:
            raise Refused(
                Gate.CLOCK,
                f"{role} expired at {strict.rfc3339(expires)}, and it is "
                f"{strict.rfc3339(self._now)} or later: witnesses of the log signed then",
                "set this device's clock; if it is right, ask who keeps newer metadata from here",
            )

    def _check_versions(self) -> None:
        """Attack row 5: a version so high that floors could not keep it."""
        listed = self.cache.snapshot().meta.values()
        timestamp = self.cache.read(Timestamp.type).signed
        for meta in (timestamp, timestamp.snapshot_meta, *listed):
            if type(meta.version) is not int or meta.version > MAX_INT:
                raise Refused(
                    Gate.METADATA,
                    f"the metadata has a version above {MAX_INT}",
                    "a key was stolen to lock out every later version: tell the security team",
                )

    def _check_replay(self) -> None:
        """Attack row 16: a second timestamp, or snapshot, under a version already trusted."""
        served = self._fetcher.served_timestamp
        trusted = self.cache.content(Timestamp.type)
        if served is not None and served != trusted:
            version = self.cache.read(Timestamp.type).signed.version
            raise Refused(
                Gate.METADATA,
                f"timestamp version {version} was served with other content than before",
                "two parties sign timestamps under one version, or its key was stolen: "
                "tell the security team",
            )
        # python-tuf keeps the snapshot it has of that version without holding it against this.
        listed = self.cache.read(Timestamp.type).signed.snapshot_meta
        try:
            listed.verify_length_and_hashes(self.cache.content(Snapshot.type))
        except tuf_errors.LengthOrHashMismatchError as error:
            raise Refused(
                Gate.METADATA,
                f"snapshot version {listed.version} is listed with other content than before",
                "its key may be stolen: tell the security team",
            ) from error

    def _check_floors(self) -> None:
        """Attack rows 2 and 3: older metadata than this device has acted upon."""
        root = self.cache.root()
        if root.version < self._floors.root:
            raise _below("root", root.version, self._floors.root)
        for role, floor in (
            (Timestamp.type, self._floors.timestamp),
            (Snapshot.type, self._floors.snapshot),
        ):
            if floor is None or not _holds(floor, role, root):
                continue
            version = self.cache.read(role).signed.version
            if version < floor.version:
                raise _below(role, version, floor.version)
            digest = self.cache.digest(role)
            if version == floor.version and digest != floor.sha256 and self._refuse_replay:
                raise Refused(
                    Gate.METADATA,
                    f"{role} version {version} has other content than when it was acted upon",
                    "its key may be stolen: tell the security team",
                )
        self._check_listed()

    def _check_listed(self) -> None:
        """Attack row 2 for targets and delegated roles: versions listed by the snapshot."""
        floor = self._floors.snapshot
        if floor is None or not _holds(floor, Snapshot.type, self.cache.root()):
            return
        snapshot = self.cache.snapshot()
        for role, version in self._floors.listed.items():
            meta = snapshot.meta.get(f"{role}.json")
            if meta is None:
                raise Refused(Gate.METADATA, f"the snapshot no longer lists the role {role}")
            if meta.version < version:
                raise _below(role, meta.version, version)


def check_root(data: bytes) -> int:
    """Return the version of root metadata that is signed as it demands itself.

    Raises:
        Refused: It is not root metadata, or not signed by its own threshold.
    """
    with errors_about("the root metadata", _ASK_FOR_ROOT):
        root = Metadata[Root].from_bytes(data)
        if not isinstance(root.signed, Root):
            raise tuf_errors.RepositoryError("it is metadata of another role")
        root.signed.verify_delegate(Root.type, root.signed_bytes, root.signatures)
        return root.signed.version


def verified(info: TargetFile, blocks: Iterable[memoryview]) -> Iterator[memoryview]:
    """Pass on the blocks of a target of any size. The last check is made after the last block.

    The caller must not use what it got unless this ends without an error (TUF 5.7.3).

    Raises:
        Refused: The bytes are not the target.
    """
    received = 0
    with errors_about(f"the target {info.path}"):
        digests = {name: _digest(name) for name in info.hashes}
        for block in blocks:
            received += len(block)
            for digest in digests.values():
                digest.update(block)
            yield block
        if received != info.length:
            raise tuf_errors.LengthOrHashMismatchError(
                f"it has {received} bytes instead of {info.length}"
            )
        for name, digest in digests.items():
            if digest.hexdigest() != info.hashes[name]:
                raise tuf_errors.LengthOrHashMismatchError(f"its {name} digest is another one")


def _digest(name: str) -> "hashlib._Hash | hashlib.blake2b":
    return hashlib.blake2b(digest_size=32) if name == "blake2b-256" else hashlib.new(name)


def _holds(floor: RoleFloor, role: str, root: Root) -> bool:
    """Tell whether root still trusts enough of those who signed the floor's metadata."""
    trusted = root.roles[role]
    return len(floor.signers & set(trusted.keyids)) >= trusted.threshold


def _below(role: str, version: int, floor: int) -> Refused:
    return Refused(
        Gate.METADATA,
        f"{role} version {version} is older than version {floor}, which was already acted upon",
        "someone serves an old repository: check the mirror; nothing was changed here",
    )


def _check_info(info: TargetFile, cap: int | None) -> None:
    if not STRONG_HASHES & set(info.hashes):
        raise Refused(
            Gate.METADATA,
            f"the target {info.path} is listed without a SHA-2 digest",
            "publish it again with modelward-repo",
        )
    if cap is not None and info.length > cap:
        raise Refused(
            Gate.METADATA, f"the target {info.path} has {info.length} bytes, at most {cap} may be"
        )
