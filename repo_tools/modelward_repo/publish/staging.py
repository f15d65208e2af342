"""A change to a repository, made in memory and then written in an order no reader can trip over.

A publisher loads the published state, changes roles, looks at the result as a device would, and
commits. Committing writes targets, then metadata, all under names that were never used before,
and last of all replaces `timestamp.json`: until then every reader sees the old state, afterwards
the new one. A publisher killed in between leaves files that nothing refers to.

Where root demands a log, the change is logged and cosigned before its timestamp is signed. From
the moment it is logged it is part of the repository's history: killed, or short of witnesses, it
waits, and every later change builds upon it (see `modelward_repo.publish.ledger`).
"""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from urllib.parse import unquote

from securesystemslib.signer import Signer
from tuf.api.exceptions import RepositoryError
from tuf.api.metadata import Metadata, Root, Snapshot, Targets, Timestamp

from modelward.errors import ModelwardError, NotFound, TooLong, UsageError
from modelward.formats.tlog_proof import FIELD as PROOF_FIELD
from modelward.trust.repository import Repository
from modelward_repo.log.places import archive_path
from modelward_repo.publish import ledger, versions
from modelward_repo.publish.ledger import Ledger, LogKey, Waiting
from modelward_repo.roles import metadata as tuf
from modelward_repo.storage import Storage

TIMESTAMP = "metadata/timestamp.json"
FIRST_ROOT = "metadata/1.root.json"
STAGED = "staged:///"


@dataclass(frozen=True)
class Online:
    """What signs the two roles that every change signs anew.

    Attributes:
        snapshot: Signers of `snapshot`.
        timestamp: Signers of `timestamp`.
        log: What logs the change; None where root demands no log.
    """

    snapshot: Sequence[Signer]
    timestamp: Sequence[Signer]
    log: LogKey | None = None


class Staging:
    """A repository with changes that are not yet published. See `of` and `genesis`.

    Attributes:
        waiting: Whether what this builds upon is logged, but not yet published.
    """

    def __init__(
        self,
        storage: Storage,
        now: datetime,
        root: Metadata[Root],
        timestamp: Metadata[Timestamp] | None,
        snapshot: Metadata[Snapshot],
    ) -> None:
        self.now = now
        self.root = root
        self.timestamp = timestamp
        self.snapshot = snapshot
        self.waiting = False
        self._storage = storage
        self._new: dict[str, bytes] = {}
        self._timestamp_file = b""
        self._online: Online | None = None
        self._snapshot_file = b""  # as it is to be published; empty if it stays the old one
        self._versions = self._last_taken()
        self._numbered: dict[str, int] = {}

    @classmethod
    def of(cls, storage: Storage, now: datetime) -> "Staging":
        """Return a repository with what waits to be published, nothing else changed yet.

        Args:
            storage: Where it lies.
            now: The time to count expiry from.

        Raises:
            UsageError: There is no repository.
        """
        published = cls.published(storage, now)
        if published.timestamp is None:
            raise RuntimeError("a published repository has a timestamp")
        known = published.root.signed
        leaf = ledger.waiting(storage, known, published.timestamp.signed)
        if leaf is None:
            return published
        root, snapshot = (
            storage.read(archive_path(role.sha256)) for role in (leaf.root, leaf.snapshot)
        )
        name = f"metadata/{leaf.root.version}.root.json"
        snapshot_name = f"metadata/{leaf.snapshot.version}.snapshot.json"
        staging = cls(
            storage, now, _parse(name, root), published.timestamp, _parse(snapshot_name, snapshot)
        )
        staging.waiting = True
        staging._snapshot_file = snapshot
        if leaf.root.version > known.version:
            staging._new[name] = root
        return staging

    @classmethod
    def published(cls, storage: Storage, now: datetime) -> "Staging":
        """Return a repository as devices see it, without what waits.

        Args:
            storage: Where it lies.
            now: The time to count expiry from.

        Raises:
            UsageError: There is no repository.
        """
        if not storage.exists(TIMESTAMP):
            raise UsageError(
                "there is no repository here",
                "name its directory with --repository, or make one with `modelward-repo init`",
            )
        root = f"metadata/{versions.last(storage).get('root', 1)}.root.json"
        timestamp: Metadata[Timestamp] = _parse(TIMESTAMP, storage.read(TIMESTAMP))
        snapshot = f"metadata/{timestamp.signed.snapshot_meta.version}.snapshot.json"
        return cls(
            storage,
            now,
            _parse(root, storage.read(root)),
            timestamp,
            _parse(snapshot, storage.read(snapshot)),
        )

    @classmethod
    def genesis(
        cls, storage: Storage, now: datetime, root: Metadata[Root], signers: Sequence[Signer]
    ) -> "Staging":
        """Return a repository that does not exist yet.

        Args:
            storage: An empty place.
            now: The time to count expiry from.
            root: Its root, not yet signed.
            signers: Whoever signs root.
        """
        staging = cls(storage, now, root, None, Metadata(Snapshot()))
        staging.snapshot.signed.meta.clear()
        staging._put(Root.type, root, signers)
        return staging

    def targets(self, role: str) -> Metadata[Targets]:
        """Return the metadata of a targets role, as staged or published.

        Raises:
            UsageError: The repository has no such role.
        """
        listed = self.snapshot.signed.meta.get(f"{role}.json")
        if listed is None:
            raise UsageError(
                f"the repository has no role {role!r}", "see `modelward-repo status` for its roles"
            )
        path = f"metadata/{listed.version}.{role}.json"
        return _parse(path, self.read(path))

    def delegator(self, role: str) -> Root | Targets:
        """Return what delegates to a role: root to the top-level ones, targets to the others."""
        if role in self.root.signed.roles:
            return self.root.signed
        return self.targets(Targets.type).signed

    def target(self, role: str, path: str) -> bytes | None:
        """Return a target that a role lists, or None."""
        listed = self.targets(role).signed.targets.get(path)
        return self.read(target_file(path, listed.hashes["sha256"])) if listed else None

    def read(self, path: str) -> bytes:
        """Return a file, staged or published."""
        return self._new[path] if path in self._new else self._storage.read(path)

    def put_targets(
        self,
        role: str,
        metadata: Metadata[Targets],
        added: Mapping[str, bytes],
        signers: Sequence[Signer],
    ) -> None:
        """Stage new metadata of a targets role.

        Args:
            role: The role.
            metadata: Its metadata; version, expiry and signatures are set here.
            added: Targets to add to it, by path.
            signers: Whoever signs it.
        """
        for path, data in added.items():
            metadata.signed.targets[path] = tuf.target_file(path, data)
            self._new[target_file(path, hashlib.sha256(data).hexdigest())] = data
        version, data = self._put(role, metadata, signers)
        self.snapshot.signed.meta[f"{role}.json"] = tuf.meta_file(version, data)

    def sign_again(self, role: str, signers: Sequence[Signer]) -> None:
        """Stage a targets role with the same content and a new expiry."""
        self.put_targets(role, self.targets(role), {}, signers)

    def put_root(self, data: bytes) -> None:
        """Stage the next root, signed in a ceremony; what is staged from now on is judged by it."""
        self.root = _parse("the new root", data)
        self._new[f"metadata/{self.root.signed.version}.root.json"] = data

    def put_signed_targets(self, data: bytes, added: Mapping[str, bytes]) -> None:
        """Stage new metadata of `targets`, signed in a ceremony.

        Args:
            data: The metadata's file.
            added: Targets that it lists and that are not published yet, by path.
        """
        metadata: Metadata[Targets] = _parse("the new targets", data)
        for path, content in added.items():
            self._new[target_file(path, hashlib.sha256(content).hexdigest())] = content
        version = metadata.signed.version
        self._new[f"metadata/{version}.{Targets.type}.json"] = data
        self.snapshot.signed.meta[f"{Targets.type}.json"] = tuf.meta_file(version, data)

    def next_version(self, role: str) -> int:
        """Return the version that the next metadata of a role gets: never one written before."""
        if role == Timestamp.type and role not in self._numbered:
            return self.timestamp.signed.version + 1 if self.timestamp else 1
        return self._numbered.get(role, self._versions.get(role, 0) + 1)

    def number(self, role: str, version: int) -> None:
        """Give the next metadata of a role this version, whatever came before."""
        self._numbered[role] = version

    def finish(self, online: Online, *, snapshot: bool = True) -> None:
        """Sign snapshot and timestamp: the change is complete.

        Args:
            online: What signs them.
            snapshot: Whether the snapshot changes; else only the timestamp is signed anew.
        """
        timestamp = self.timestamp or Metadata(Timestamp())
        self._online = online
        if snapshot:
            _, self._snapshot_file = self._put("snapshot", self.snapshot, online.snapshot)
        if self._snapshot_file:
            timestamp.signed.snapshot_meta = tuf.meta_file(
                self.snapshot.signed.version, self._snapshot_file
            )
            timestamp.signed.unrecognized_fields.pop(PROOF_FIELD, None)
        version = self.next_version(Timestamp.type)
        expires = self._expires("timestamp")
        self._timestamp_file = tuf.sign(timestamp, version, expires, online.timestamp)

    def resume(self, online: Online) -> None:
        """Publish what waits, if anything does. The caller holds the storage's lock.

        Raises:
            Waiting: Too few witnesses cosigned; it still waits.
            Refused: A device would refuse the result.
            StorageError: Something could not be written.
        """
        if self.waiting:
            self.finish(online, snapshot=False)
            with self.as_device():
                self.commit()

    def fetch(self, url: str, limit: int) -> bytes:
        """Return a file as a server would, once the change were published.

        This makes a `Staging` a `modelward.trust.repository.Fetcher`.

        Raises:
            NotFound: There is no such file.
            TooLong: It is longer than `limit` bytes.
        """
        path = unquote(url.removeprefix(STAGED))
        if path == TIMESTAMP and self._timestamp_file:
            data = self._timestamp_file
        elif path in self._new or self._storage.exists(path):
            data = self.read(path)
        else:
            raise NotFound(f"there is no {path}")
        if len(data) > limit:
            raise TooLong(f"{path} is longer than {limit} bytes")
        return data

    @contextmanager
    def as_device(self) -> Iterator[Repository]:
        """Give the changed repository as a device sees it that trusts its very first root.

        Raises:
            Refused: A device would refuse its metadata.
        """
        with TemporaryDirectory(prefix="modelward-") as cache:
            repository = Repository(
                cache=Path(cache),
                metadata_url=f"{STAGED}metadata/",
                targets_url=f"{STAGED}targets/",
                fetcher=self,
                root=self.read(FIRST_ROOT),
            )
            repository.refresh()
            yield repository

    def commit(self, *, root_last: bool = False) -> None:
        """Publish the change. The caller holds the storage's lock since before loading.

        Devices look for a new root before anything else and follow it at once. So it is written
        next to last, and stands without its timestamp for as short as can be.

        Args:
            root_last: Write a new root even after the timestamp: for a timestamp that the old
                root trusts as well, where the new root does not trust the old timestamp.

        Raises:
            StorageError: Something could not be written; the old state is still published.
            UsageError: Root demands a log, and its key is not here.
            Waiting: The change is logged, but too few witnesses cosigned; the old state is still
                published, and the next publisher builds upon the change.
        """
        online = self._online
        if not self._timestamp_file or online is None:
            raise RuntimeError("finish() was not called")
        log = Ledger.of(self._storage, self.root.signed)
        if log and online.log is None:
            raise UsageError(
                f"the log {log.policy.origin} must record this, but its key is not here",
                f"run this where KEYS/<holder>/{ledger.KEY}.key is kept, and name that folder "
                "with --keys",
            )
        root = f"metadata/{self.root.signed.version}.root.json"
        for path in sorted(self._new, key=lambda path: path.startswith("metadata/")):
            if path != root:
                self._storage.write_new(path, self._new[path])
        if log and online.log:
            root_file = self._new.get(root) or self._storage.read(root)
            self._log(log, online.log, online.timestamp, root_file)
        if root in self._new and not root_last:
            self._storage.write_new(root, self._new[root])
        self._storage.replace(TIMESTAMP, self._timestamp_file)
        if root in self._new and root_last:
            self._storage.write_new(root, self._new[root])

    def _log(self, log: Ledger, key: LogKey, signers: Sequence[Signer], root: bytes) -> None:
        """Log the change and give the timestamp its proof.

        Raises:
            Waiting: Too few witnesses cosigned.
        """
        version = self.snapshot.signed.version
        changed = bool(self._snapshot_file)
        snapshot = self._snapshot_file or self._storage.read(f"metadata/{version}.snapshot.json")
        leaf = log.leaf((self.root.signed.version, root), (version, snapshot))
        if changed:
            log.append(leaf, (root, snapshot), key)
        if self.timestamp is None or not log.is_last(leaf):
            # The first of all is made aside and waits; an old one keeps the proof that it has.
            return
        try:
            self._timestamp_file = log.prove(self.timestamp, key, signers)
        except Waiting:
            if changed:
                raise

    def _put(
        self, role: str, metadata: Metadata[Any], signers: Sequence[Signer]
    ) -> tuple[int, bytes]:
        version = self.next_version(role)
        self._versions[role] = version
        self._numbered.pop(role, None)
        data = tuf.sign(metadata, version, self._expires(role), signers)
        self._new[f"metadata/{version}.{role}.json"] = data
        return version, data

    def _last_taken(self) -> dict[str, int]:
        """Return per role the version before the next free one."""
        listed = {
            name.removesuffix(".json"): file.version
            for name, file in self.snapshot.signed.meta.items()
        }
        if self.timestamp:
            listed[Snapshot.type] = self.timestamp.signed.snapshot_meta.version
            listed[Root.type] = self.root.signed.version
        return versions.last_taken(self._storage, listed)

    def _expires(self, role: str) -> datetime:
        validity: timedelta = tuf.validity(self.delegator(role), role)
        return self.now + validity


def _parse(path: str, data: bytes) -> Metadata[Any]:
    try:
        return Metadata.from_bytes(data)
    except RepositoryError as error:
        raise ModelwardError(
            f"{path} is not TUF metadata: {error}", "the repository is damaged: restore it"
        ) from error


def target_file(path: str, digest: str) -> str:
    """Return where a target's file lies (TUF 6.2, consistent snapshots)."""
    directory, slash, name = path.rpartition("/")
    return f"targets/{directory}{slash}{digest}.{name}"
