"""The log on disk is the tree that RFC 6962 says, and writing it reads its right edge only."""

from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelward.errors import ModelwardError
from modelward.formats.note import SignatureType
from modelward.formats.tile import FULL, Tile
from modelward.trust.merkle import leaf_hash, verify_consistency, verify_inclusion
from modelward_repo.log.places import SIGNED, tile_path
from modelward_repo.log.writer import LogWriter, last_entry
from modelward_repo.storage.local import LocalStorage, StorageError
from tests.simulator import merkle
from tests.simulator.log import key

VKEY, SIGN = key("log.example", SignatureType.ED25519)


class MemoryStorage(LocalStorage):
    """Files in memory, and what was read and written."""

    def __init__(self) -> None:
        super().__init__(Path("/nowhere"))
        self.files: dict[str, bytes] = {}
        self.reads: list[str] = []
        self.fail_at: str | None = None

    def exists(self, path: str) -> bool:
        return path in self.files

    def read(self, path: str) -> bytes:
        self.reads.append(path)
        return self.files[path]

    def open(self, path: str) -> BinaryIO:
        raise NotImplementedError

    def replace(self, path: str, data: bytes) -> None:
        if path == self.fail_at:
            raise StorageError("no")
        self.files[path] = data

    def write_new(self, path: str, data: bytes) -> None:
        assert self.files.setdefault(path, data) == data

    def list(self, prefix: str) -> Iterator[str]:
        return iter(sorted(path for path in self.files if path.startswith(prefix)))


def entries(count: int, first: int = 0) -> list[bytes]:
    return [b"entry %d" % number for number in range(first, first + count)]


def expected(all_entries: list[bytes]) -> dict[str, bytes]:
    """Every tile that a reader of this tree may ask for."""
    found = {}
    size = len(all_entries)
    level = 0
    while size >> 8 * level:
        count = size >> 8 * level
        for index in range(-(-count // FULL)):
            tile = Tile.of(level, index, size)
            found[tile_path(tile)] = merkle.tile(all_entries, level, index)
        level += 1
    return found


@given(st.lists(st.integers(1, 300), min_size=1, max_size=6), st.data())
def test_any_sequence_of_appends_is_the_tree_of_the_rfc(
    counts: list[int], data: st.DataObject
) -> None:
    storage = MemoryStorage()
    written: list[bytes] = []
    for count in counts:
        added = entries(count, len(written))
        signed = LogWriter(storage, VKEY).append(added, SIGN)
        written += added
        assert signed.checkpoint.size == len(written)
        assert signed.checkpoint.root == merkle.mth(written)
    for path, content in expected(written).items():
        assert storage.files[path] == content
    writer = LogWriter(storage, VKEY)
    size = len(written)
    assert writer.last() == last_entry(storage, size) == written[-1]
    index = data.draw(st.integers(0, size - 1))
    root = merkle.mth(written)
    verify_inclusion(index, size, leaf_hash(written[index]), writer.inclusion(index), root)
    old = data.draw(st.integers(0, size))
    verify_consistency(old, size, writer.consistency(old), merkle.mth(written[:old]), root)
    assert writer.tail(16) == tuple(map(leaf_hash, written[-16:]))


def test_bundles_hold_the_entries() -> None:
    storage = MemoryStorage()
    written = entries(FULL + 3)
    for begin in range(0, len(written), 7):
        LogWriter(storage, VKEY).append(written[begin : begin + 7], SIGN)
    first, second = Tile(None, 0), Tile(None, 1, 3)
    assert first.entries(storage.files[tile_path(first)]) == tuple(written[:FULL])
    assert second.entries(storage.files[tile_path(second)]) == tuple(written[FULL:])


@pytest.mark.parametrize("size", [1, 255, 256, 257, 65_535, 65_536, 70_000])
def test_only_the_right_edge_is_read(size: int) -> None:
    storage = MemoryStorage()
    LogWriter(storage, VKEY).append(entries(size), SIGN)
    storage.reads.clear()
    writer = LogWriter(storage, VKEY)
    writer.append([b"one more"], SIGN)
    writer.inclusion(size)
    writer.tail(16)
    writer.consistency(size)
    levels = (size.bit_length() + 7) // 8
    # A tile of every level before and after, two of level 0 for the tail; the bundle; what was
    # signed.
    assert len(storage.reads) <= 2 * levels + 4
    assert max(storage.reads.count(path) for path in storage.reads) <= 2
    edge = {Tile.of(level, (size >> 8 * level) // FULL, size + 1) for level in range(levels)}
    assert all(
        path == SIGNED or _index(path) >= max(0, _level_size(path, size) // FULL - 1)
        for path in storage.reads
    ), edge


def _index(path: str) -> int:
    return Tile.parse(path.removeprefix("log/")).index


def _level_size(path: str, size: int) -> int:
    return size >> 8 * (Tile.parse(path.removeprefix("log/")).level or 0)


def test_a_damaged_edge_is_never_built_upon() -> None:
    storage = MemoryStorage()
    LogWriter(storage, VKEY).append(entries(5), SIGN)
    path = "log/tile/0/000.p/5"
    storage.files[path] = bytes(32) + storage.files[path][32:]
    before = storage.files[SIGNED]
    with pytest.raises(ModelwardError, match="lead to another tree"):
        LogWriter(storage, VKEY).append([b"more"], SIGN)
    del storage.files[path]
    with pytest.raises(ModelwardError, match="is missing"):
        LogWriter(storage, VKEY).append([b"more"], SIGN)
    assert storage.files[SIGNED] == before


def test_what_was_written_and_not_signed_is_written_over() -> None:
    storage = MemoryStorage()
    LogWriter(storage, VKEY).append(entries(FULL - 1), SIGN)
    storage.fail_at = SIGNED
    with pytest.raises(StorageError):
        LogWriter(storage, VKEY).append([b"never signed"], SIGN)
    storage.fail_at = None
    signed = LogWriter(storage, VKEY).append([b"signed"], SIGN)
    written = [*entries(FULL - 1), b"signed"]
    assert signed.checkpoint.root == merkle.mth(written)
    assert all(storage.files[path] == data for path, data in expected(written).items())


def test_another_key_signs_nothing() -> None:
    _, other = key("other.example", SignatureType.ED25519)
    storage = MemoryStorage()
    with pytest.raises(ModelwardError, match="is not valid"):
        LogWriter(storage, VKEY).append([b"leaf"], other)
    assert SIGNED not in storage.files


def test_a_new_log_leaves_the_old_one_to_auditors_wherever_it_is_interrupted() -> None:
    vkey, sign = key("other.example", SignatureType.ED25519)
    storage = MemoryStorage()
    LogWriter(storage, VKEY).append(entries(3), SIGN)
    old = dict(storage.files)
    storage.fail_at = SIGNED
    for _ in range(2):
        with pytest.raises(StorageError):
            LogWriter(storage, vkey).append([b"new", b"new", b"new"], sign)
    storage.fail_at = None
    signed = LogWriter(storage, vkey).append([b"new"], sign)
    assert signed.checkpoint.size == 1
    kept = f"log/retired/{VKEY.key_id.hex()}/"
    for path, data in old.items():
        assert storage.files[path.replace("log/", kept, 1)] == data
