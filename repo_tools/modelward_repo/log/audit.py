"""A full audit of a log: every leaf, every tile, every document, every cosignature.

Everything is read that the log ever recorded, and every finding is reported, not only the first.
"""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from tuf.api.exceptions import RepositoryError
from tuf.api.metadata import Metadata, MetaFile, Root, Snapshot

from modelward.errors import ModelwardError
from modelward.formats.checkpoint import SignedCheckpoint
from modelward.formats.leaf import Leaf, RoleDigest
from modelward.formats.tile import FULL, Tile
from modelward.trust.cosignature import verify_cosignatures, verify_log_signature
from modelward.trust.merkle import Frontier, leaf_hash
from modelward_repo.log.places import archive_path
from modelward_repo.log.reader import METADATA_CAP, LogReader, Shown, read_repository
from modelward_repo.publish.target import Source

SKEW = timedelta(minutes=5)  # a witness's clock may be ahead by this much


@dataclass
class Audit:
    """What an audit found.

    Attributes:
        origin: Which log.
        size: Leaves of the tree that was audited.
        published: Index of the leaf that the repository shows now; None if it was not found.
        cosigned: Witnesses whose cosignatures on that tree are valid.
        documents: How many archived documents were read and are as they were logged.
        roles: How many files of targets roles were read and are as they were logged.
        faults: What is wrong.
        notes: What is worth knowing, and not wrong.
    """

    origin: str = ""
    size: int = 0
    published: int | None = None
    cosigned: tuple[str, ...] = ()
    documents: int = 0
    roles: int = 0
    faults: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """Return it as a JSON object."""
        return {
            "log": self.origin,
            "size": self.size,
            "published": self.published,
            "cosigned": list(self.cosigned),
            "documents": self.documents,
            "roles": self.roles,
            "faults": self.faults,
            "notes": self.notes,
        }

    @contextmanager
    def faulting(self, what: str) -> Iterator[None]:
        """Record what goes wrong in the block as a fault, and go on."""
        try:
            yield
        except ModelwardError as error:
            self.faults.append(f"{what}: {error.reason}")
        except (RepositoryError, ValueError, KeyError, TypeError, AttributeError) as error:
            self.faults.append(f"{what}: {error}")


Progress = Callable[[int, int], None]
"""Told how many leaves of how many were audited."""


def audit(source: Source, now: datetime, progress: Progress = lambda _done, _all: None) -> Audit:
    """Audit a repository's log from its first leaf.

    Args:
        source: The repository, and the root to trust.
        now: The time: cosignatures from later do not count.
        progress: Told how far it is.

    Raises:
        Refused: The repository's metadata is not valid, or it demands no log.
        Unavailable: The repository cannot be reached.
    """
    found = Audit()
    reader = LogReader(source)
    with read_repository(source) as (_, shown):
        found.origin = shown.policy.origin
        signed = _checkpoint(found, reader, shown, now)
        with found.faulting("the proof in timestamp.json"):
            shown.verify(reader, None)
        if signed is not None:
            found.size = signed.checkpoint.size
            _Leaves(found, reader, shown).audit(signed, progress)
    if found.published is None and signed is not None:
        found.faults.append(
            f"snapshot {shown.leaf.snapshot.version} with root {shown.leaf.root.version}, which "
            "the repository shows, is not in the log"
        )
    return found


def _checkpoint(
    found: Audit, reader: LogReader, shown: Shown, now: datetime
) -> SignedCheckpoint | None:
    """Return the newest checkpoint if it is the log's; its cosignatures are judged here."""
    policy = shown.policy
    signed = None
    with found.faulting("log/checkpoint"):
        read = SignedCheckpoint.parse(reader.checkpoint())
        verify_log_signature(read, policy.vkey)
        signed = read
    if signed is None:
        return None
    with found.faulting("log/checkpoint"):
        cosigners = verify_cosignatures(signed, policy, now + SKEW)
        found.cosigned = tuple(sorted(cosigners.times))
        if not policy.is_quorum(cosigners.times.keys()):
            who = ", ".join(found.cosigned) or "nobody"
            found.faults.append(
                f"log/checkpoint: too few witnesses cosigned: {policy.quorum} must, {who} did"
            )
        for name in policy.witnesses.keys() - cosigners.times.keys():
            why = cosigners.ignored.get(name, "no cosignature")
            found.notes.append(f"log/checkpoint: witness {name}: {why}")
    return signed


class _Leaves:
    """All leaves, in order, and what each of them names."""

    def __init__(self, found: Audit, reader: LogReader, shown: Shown) -> None:
        self._found = found
        self._reader = reader
        self._shown = shown
        self._before: Leaf | None = None
        self._roots: dict[RoleDigest, Metadata[Root] | None] = {}
        self._snapshots: set[RoleDigest] = set()
        self._listed: set[tuple[str, int, str]] = set()
        self._proven = shown.proof.proof.checkpoint.checkpoint if shown.proof else None

    def audit(self, signed: SignedCheckpoint, progress: Progress) -> None:
        size = signed.checkpoint.size
        hashes: list[bytes] = []
        with self._found.faulting("log/tile/entries"):
            for index, entry in enumerate(self._reader.entries(0, size)):
                hashes.append(leaf_hash(entry))
                with self._found.faulting(f"leaf {index}"):
                    self._leaf(index, Leaf.parse(entry))
                if index % FULL == 0:
                    progress(index, size)
        progress(size, size)
        if len(hashes) < size:
            self._found.faults.append(f"only {len(hashes)} of {size} leaves could be read")
            return
        if Frontier().extend(hashes).root() != signed.checkpoint.root:
            self._found.faults.append(
                f"the {size} leaves do not make the tree that log/checkpoint says"
            )
        proven = self._proven
        if proven and (
            proven.size > size or Frontier().extend(hashes[: proven.size]).root() != proven.root
        ):
            self._found.faults.append(
                f"the tree of {proven.size} leaves in timestamp.json is not part of the log"
            )
        self._tiles(hashes)

    def _tiles(self, hashes: Sequence[bytes]) -> None:
        """Hold every tile against what its leaves make of it."""
        level = 0
        row = list(hashes)
        while row:
            above = []
            for begin in range(0, len(row), FULL):
                part = row[begin : begin + FULL]
                tile = Tile(level, begin // FULL, len(part))
                with self._found.faulting(f"log/{tile.path}"):
                    if self._reader.tile(tile) != b"".join(part):
                        self._found.faults.append(f"log/{tile.path}: is not what its leaves make")
                if len(part) == FULL:
                    above.append(Frontier().extend(part).root())
            row = above
            level += 1

    def _leaf(self, index: int, leaf: Leaf) -> None:
        if leaf.repository != self._shown.leaf.repository:
            raise ValueError(f"is of another repository, {leaf.repository[:80]}")
        if leaf == self._shown.leaf:
            self._found.published = index
        before, self._before = self._before, leaf
        if before:
            self._check_order(before, leaf)
        root = self._root(leaf.root)
        if leaf.snapshot not in self._snapshots:
            self._snapshots.add(leaf.snapshot)
            self._snapshot(leaf.snapshot, root)

    @staticmethod
    def _check_order(before: Leaf, leaf: Leaf) -> None:
        for name, old, new in (
            ("root", before.root, leaf.root),
            ("snapshot", before.snapshot, leaf.snapshot),
        ):
            # After a theft, a root with new keys may have snapshots counted from a lower number.
            lifted = name == "snapshot" and leaf.root.version > before.root.version
            if new.version < old.version and not lifted:
                raise ValueError(f"{name} goes back from version {old.version} to {new.version}")
            if new.version == old.version and new.sha256 != old.sha256:
                raise ValueError(f"there are two of {name} version {new.version}")

    def _root(self, digest: RoleDigest) -> Metadata[Root] | None:
        if digest not in self._roots:
            self._roots[digest] = None
            data = self._reader.document(digest.sha256)
            root = Metadata[Root].from_bytes(data)
            root.signed.verify_delegate(Root.type, root.signed_bytes, root.signatures)
            self._check_version(root, digest)
            self._found.documents += 1
            if digest.version <= self._shown.root.version:
                served = self._reader.fetch(f"metadata/{digest.version}.root.json", METADATA_CAP)
                if served != data:
                    raise ValueError(f"devices get another root {digest.version} than was logged")
            self._roots[digest] = root
        return self._roots[digest]

    def _snapshot(self, digest: RoleDigest, root: Metadata[Root] | None) -> None:
        data = self._reader.document(digest.sha256)
        snapshot = Metadata[Snapshot].from_bytes(data)
        self._check_version(snapshot, digest)
        if root:
            root.signed.verify_delegate(Snapshot.type, snapshot.signed_bytes, snapshot.signatures)
        self._found.documents += 1
        for name, meta in snapshot.signed.meta.items():
            self._targets(name.removesuffix(".json"), meta)

    def _targets(self, role: str, meta: MetaFile) -> None:
        """Hold the file of a targets role against what a logged snapshot says of it."""
        digest = (meta.hashes or {}).get("sha256", "")
        key = (role, meta.version, digest)
        if key in self._listed:
            return
        self._listed.add(key)
        path = f"metadata/{meta.version}.{role}.json"
        with self._found.faulting(path):
            data = self._reader.fetch(path, METADATA_CAP)
            if not digest:
                raise ValueError("the snapshot that lists it does not give its digest")
            if hashlib.sha256(data).hexdigest() != digest:
                raise ValueError("is not the file that was logged")
            self._found.roles += 1

    @staticmethod
    def _check_version(metadata: Metadata[Any], digest: RoleDigest) -> None:
        if metadata.signed.version != digest.version:
            raise ValueError(
                f"{archive_path(digest.sha256)} is version {metadata.signed.version}, and was "
                f"logged as {digest.version}"
            )
