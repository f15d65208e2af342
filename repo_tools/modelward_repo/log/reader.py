"""Reading a repository and its log from outside, trusting nothing but a root."""

import hashlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from tuf.api.metadata import Root, Timestamp

from modelward.errors import Gate, NotFound, Refused
from modelward.formats import strict, tlog_proof
from modelward.formats.leaf import REPOSITORY_FIELD, Leaf, RoleDigest
from modelward.formats.log_policy import LogPolicy
from modelward.formats.log_state import LogState
from modelward.formats.note import CAP as NOTE_CAP
from modelward.formats.tile import FULL, HASH, MAX_ENTRY, Tile
from modelward.formats.tlog_proof import TimestampProof
from modelward.ledger import policy_of
from modelward.trust import log
from modelward.trust.log import NeedsTiles, Verified
from modelward.trust.repository import Repository
from modelward.trust.tuf_client import Fetcher
from modelward_repo.log.places import CHECKPOINT, archive_path, tile_path
from modelward_repo.publish.target import Source

METADATA_CAP = 64 << 20  # bytes of one metadata file
_BUNDLE_CAP = FULL * (MAX_ENTRY + 2)


@dataclass(frozen=True)
class Shown:
    """What a repository shows now, verified as a device does up to gate 3.

    Attributes:
        root: Its root.
        timestamp: Its timestamp.
        policy: The log that root demands.
        leaf: What must be in the log.
        documents: The files of root and snapshot.
    """

    root: Root
    timestamp: Timestamp
    policy: LogPolicy
    leaf: Leaf
    documents: Mapping[str, bytes]

    @property
    def proof(self) -> TimestampProof | None:
        """The proof that rides in the timestamp, not verified."""
        value = self.timestamp.unrecognized_fields.get(tlog_proof.FIELD)
        return None if value is None else TimestampProof.parse(value)

    def verify(self, reader: "LogReader", state: LogState | None) -> Verified:
        """Take it through gate 4 as a device would; see `modelward.trust.log.verify`."""

        def verify(tiles: Mapping[Tile, bytes] | None = None) -> Verified:
            return log.verify(
                self.proof,
                self.leaf,
                self.policy,
                state=state,
                not_after=self.timestamp.expires,
                tiles=tiles,
            )

        try:
            return verify()
        except NeedsTiles as needed:
            return verify({tile: reader.tile(tile) for tile in needed.tiles})


@contextmanager
def read_repository(source: Source) -> Iterator[tuple[Repository, Shown]]:
    """Read what a repository shows now.

    Raises:
        Refused: Its metadata is not valid, or it demands no log.
        Unavailable: Something could not be fetched.
    """
    with TemporaryDirectory(prefix="modelward-") as directory:
        repository = Repository(
            cache=Path(directory),
            metadata_url=f"{source.url}metadata/",
            targets_url=f"{source.url}targets/",
            fetcher=source.fetcher,
            root=source.root,
        )
        repository.refresh()
        cache = repository.cache
        root = cache.root()
        policy = policy_of(root)
        if policy is None:
            raise Refused(Gate.LOG, "root demands no log: there is nothing to verify")
        files = {role: cache.file(role).read_bytes() for role in ("root", "snapshot")}
        leaf = Leaf(
            strict.Fields("root.json", root.unrecognized_fields).sha256(REPOSITORY_FIELD),
            RoleDigest(root.version, hashlib.sha256(files["root"]).hexdigest()),
            RoleDigest(cache.snapshot().version, hashlib.sha256(files["snapshot"]).hexdigest()),
        )
        timestamp: Timestamp = cache.read(Timestamp.type).signed
        yield repository, Shown(root, timestamp, policy, leaf, files)


class LogReader:
    """The files of a log, unverified but for the digests that name them.

    Args:
        source: The repository.
    """

    def __init__(self, source: Source) -> None:
        self._fetcher: Fetcher = source.fetcher
        self._url = source.url

    def checkpoint(self) -> bytes:
        """Return the newest checkpoint that is shown."""
        return self.fetch(CHECKPOINT, NOTE_CAP)

    def tile(self, tile: Tile) -> bytes:
        """Return a tile. A log may drop a partial one once it has the full one (tlog-tiles)."""
        try:
            return self.fetch(tile_path(tile), tile.width * HASH)
        except NotFound:
            if tile.full == tile:
                raise
            return self.fetch(tile_path(tile.full), FULL * HASH)[: tile.width * HASH]

    def entries(self, begin: int, end: int) -> Iterator[bytes]:
        """Yield leaves.

        Args:
            begin: The first.
            end: The one after the last.
        """
        for index in range(begin // FULL, -(-end // FULL)):
            first = index * FULL
            tile = Tile(None, index, min(FULL, end - first))
            yield from self._bundle(tile)[max(0, begin - first) :]

    def document(self, sha256: str) -> bytes:
        """Return a logged document.

        Raises:
            Refused: What lies there is another one.
            NotFound: It is not there.
        """
        data = self.fetch(archive_path(sha256), METADATA_CAP)
        if hashlib.sha256(data).hexdigest() != sha256:
            raise Refused(Gate.LOG, f"{archive_path(sha256)} is not the document that was logged")
        return data

    def fetch(self, path: str, cap: int) -> bytes:
        """Return a file of the repository.

        Raises:
            NotFound: It is not there.
            Unavailable: It could not be fetched, or is longer than `cap` bytes.
        """
        return self._fetcher.fetch(self._url + path, cap)

    def _bundle(self, tile: Tile) -> tuple[bytes, ...]:
        try:
            return tile.entries(self.fetch(tile_path(tile), _BUNDLE_CAP))
        except NotFound:
            if tile.full == tile:
                raise
            full = self.fetch(tile_path(tile.full), _BUNDLE_CAP)
            return tile.full.entries(full)[: tile.width]
