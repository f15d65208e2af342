"""Writing a log: tlog-tiles in a storage. Only tiles on the tree's right edge are ever read.

What was signed is never unsigned: a tree's tiles are written first, then the signed checkpoint,
and only then does anybody hear of it. A writer that is killed before the signature leaves tiles
that no checkpoint leads to; the next one writes over them.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence

from modelward.errors import ModelwardError
from modelward.formats.checkpoint import Checkpoint, SignedCheckpoint
from modelward.formats.note import SignatureLine, VerifierKey
from modelward.formats.tile import FULL, HEIGHT, Tile, write_entries
from modelward.trust import merkle
from modelward.trust.cosignature import verify_log_signature
from modelward.trust.merkle import Frontier, ProofError, cover, leaf_hash
from modelward.trust.tiles import TileHashes
from modelward_repo.log.places import LOG, RETIRED, SIGNED, tile_path
from modelward_repo.storage import Storage

Sign = Callable[[bytes], bytes]
"""Signs with the log's key."""


class StoredTiles(Mapping[Tile, bytes]):
    """The tiles in a storage, each read when it is asked for, and once.

    Args:
        storage: The repository.
    """

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self._read: dict[Tile, bytes] = {}

    def __getitem__(self, tile: Tile) -> bytes:
        if tile not in self._read:
            path = tile_path(tile)
            if not self._storage.exists(path):
                raise KeyError(tile)
            self._read[tile] = self._storage.read(path)
        return self._read[tile]

    def __iter__(self) -> Iterator[Tile]:
        return iter(self._read)

    def __len__(self) -> int:
        return len(self._read)


class LogWriter:
    """One log in a storage, for whoever holds the storage's lock.

    Args:
        storage: The repository.
        vkey: The log's key. If there is a log under another key, it is kept aside before this
            one begins: only root's threshold can have named a new one.
    """

    def __init__(self, storage: Storage, vkey: VerifierKey) -> None:
        self._storage = storage
        self._tiles = StoredTiles(storage)
        self.vkey = vkey
        there = signed_tree(storage)
        own = there is not None and there.checkpoint.origin == vkey.name and there.note.by(vkey)
        self.signed = there if own else None
        self._other = None if own else there

    @property
    def size(self) -> int:
        """Leaves of the newest tree that the log has signed."""
        return self.signed.checkpoint.size if self.signed else 0

    def last(self) -> bytes | None:
        """Return the newest leaf, or None."""
        return last_entry(self._storage, self.size)

    def append(self, entries: Sequence[bytes], sign: Sign) -> SignedCheckpoint:
        """Add leaves and sign the tree; on return it outlives a power cut.

        Args:
            entries: The leaves.
            sign: Signs with the log's key.

        Raises:
            ModelwardError: The log's files are damaged, or the key is another one.
            StorageError: Something could not be written; the tree is the old one still.
        """
        if self._other is not None:
            _retire(self._storage, self._other)
        old, grown = self.size, self.frontier()
        hashes = [leaf_hash(entry) for entry in entries]
        grown = grown.extend(hashes)
        self._write_bundles(entries, old)
        self._write_tiles(hashes, old)
        checkpoint = Checkpoint(self.vkey.name, grown.size, grown.root())
        line = SignatureLine.by(self.vkey, sign(str(checkpoint).encode()))
        signed = SignedCheckpoint.new(checkpoint, line)
        verify_log_signature(signed, self.vkey)
        self._storage.replace(SIGNED, signed.to_bytes())
        self.signed = signed
        self._tiles = StoredTiles(self._storage)
        return signed

    def frontier(self) -> Frontier:
        """Return the right edge of the newest tree, held against what was signed.

        Raises:
            ModelwardError: The tiles are damaged: nothing may be signed on top of them.
        """
        if self.signed is None:
            return Frontier()
        read = TileHashes(self._tiles, self.size)
        try:
            found = Frontier(self.size, tuple(read(*node) for node in cover(0, self.size)))
        except ProofError as error:
            raise _damaged(str(error)) from error
        if found.root() != self.signed.checkpoint.root:
            raise _damaged("its tiles lead to another tree than the one it signed")
        return found

    def inclusion(self, index: int) -> tuple[bytes, ...]:
        """Return the inclusion proof for a leaf of the newest tree.

        Raises:
            ModelwardError: The log's files are damaged.
        """
        return self._prove(lambda read: merkle.inclusion_proof(index, self.size, read))

    def consistency(self, old_size: int) -> tuple[bytes, ...]:
        """Return the proof that the newest tree begins with a smaller one.

        Raises:
            ModelwardError: The log's files are damaged, or the other tree is the larger.
        """
        return self._prove(lambda read: merkle.consistency_proof(old_size, self.size, read))

    def tail(self, most: int) -> tuple[bytes, ...]:
        """Return the hashes of the last leaves, oldest first.

        Raises:
            ModelwardError: The log's files are damaged.
        """
        indexes = range(max(0, self.size - most), self.size)
        return self._prove(lambda read: tuple(read(0, index) for index in indexes))

    def _prove(self, proof: Callable[[merkle.HashReader], tuple[bytes, ...]]) -> tuple[bytes, ...]:
        try:
            return proof(TileHashes(self._tiles, self.size))
        except ProofError as error:
            raise _damaged(str(error)) from error

    def _write_bundles(self, entries: Sequence[bytes], old: int) -> None:
        size = old + len(entries)
        kept = old % FULL
        row = [*(self._bundle(old) if kept else ()), *entries]
        first = old - kept
        for begin in range(first, size, FULL):
            tile = Tile(None, begin // FULL, min(FULL, size - begin))
            bundle = write_entries(row[begin - first :][:FULL])
            self._storage.replace(tile_path(tile), bundle)

    def _bundle(self, size: int) -> tuple[bytes, ...]:
        return _entries(self._storage, _last_bundle(size))

    def _write_tiles(self, added: Sequence[bytes], old: int) -> None:
        """Write the tiles that grew, from the leaves upwards."""
        level = 0
        while added:
            at = old >> HEIGHT * level
            row = list(added)
            if at % FULL:
                tile = Tile.of(level, at // FULL, old)
                row[:0] = tile.hashes(self._tiles[tile])
            first = at - at % FULL
            added = []
            for begin in range(0, len(row), FULL):
                part = row[begin : begin + FULL]
                tile = Tile(level, (first + begin) // FULL, len(part))
                self._storage.replace(tile_path(tile), b"".join(part))
                if len(part) == FULL:
                    added.append(Frontier().extend(part).root())
            level += 1


def signed_tree(storage: Storage) -> SignedCheckpoint | None:
    """Return the newest tree that the log in a storage has signed, or None."""
    if not storage.exists(SIGNED):
        return None
    return SignedCheckpoint.parse(storage.read(SIGNED))


def last_entry(storage: Storage, size: int) -> bytes | None:
    """Return the last leaf of a log's first `size`, or None where that is none.

    Raises:
        StorageError: Its bundle is not there.
        FormatError: Its bundle is damaged.
    """
    if not size:
        return None
    return _entries(storage, _last_bundle(size))[-1]


def _last_bundle(size: int) -> Tile:
    index = (size - 1) // FULL
    return Tile(None, index, size - index * FULL)


def _entries(storage: Storage, tile: Tile) -> tuple[bytes, ...]:
    return tile.entries(storage.read(tile_path(tile)))


def _retire(storage: Storage, other: SignedCheckpoint) -> None:
    """Keep a log for auditors, whose place another one takes. Killed anywhere, it goes on here.

    What was kept is never looked at again: it may be the new log's by then.
    """
    line = other.note.signatures[0]
    for path in list(storage.list(LOG)):
        kept = path.removeprefix(f"{LOG}/")
        place = f"{RETIRED}/{line.key_id.hex()}/{kept}"
        if kept.startswith(("tile/", "checkpoint", "signed")) and not storage.exists(place):
            storage.write_new(place, storage.read(path))


def _damaged(problem: str) -> ModelwardError:
    return ModelwardError(
        f"the log's files are damaged: {problem}",
        "nothing was signed; restore log/ from a mirror, and check it with "
        "`modelward-repo log verify`",
    )
