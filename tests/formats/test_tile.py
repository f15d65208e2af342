"""Tile paths, tiles and entry bundles, with the shared tlog-tiles vectors."""

import contextlib
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelward.errors import FormatError
from modelward.formats.tile import Tile, write_entries
from modelward.trust.merkle import leaf_hash

SHARED = Path(
    os.environ.get("MODELWARD_VECTORS", Path(__file__).parents[3] / "shared" / "vectors")
) / ("tlog-tiles")


@pytest.mark.parametrize(
    "path", sorted(SHARED.glob("tile/entries/*.p/*")), ids=lambda path: f"width-{path.name}"
)
def test_shared_entries_hash_to_their_tile(path):
    bundle = Tile.parse(path.relative_to(SHARED).as_posix())
    tile = Tile(0, bundle.index, bundle.width)
    assert bundle.level is None
    entries = bundle.entries(path.read_bytes())
    assert write_entries(entries) == path.read_bytes()
    assert tile.hashes((SHARED / tile.path).read_bytes()) == tuple(map(leaf_hash, entries))


@pytest.mark.parametrize(
    ("path", "tile"),
    [
        ("tile/0/000", Tile(0, 0)),
        ("tile/0/x001/x234/067", Tile(0, 1234067)),
        ("tile/63/999.p/255", Tile(63, 999, 255)),
        ("tile/1/x001/000.p/1", Tile(1, 1000, 1)),
        ("tile/entries/x001/x234/067.p/7", Tile(None, 1234067, 7)),
    ],
)
def test_path_is_read_and_written_back(path, tile):
    assert Tile.parse(path) == tile
    assert tile.path == path


@pytest.mark.parametrize(
    "path",
    [
        "",
        "tile",
        "tile/0",
        "tile/0/0",
        "tile/0/00",
        "tile/0/0000",
        "tile/00/000",
        "tile/64/000",
        "tile/-1/000",
        "tile/0/x000/001",
        "tile/0/001/002",
        "tile/0/x001",
        "tile/0/x001/x002",
        "tile/0/000.p/0",
        "tile/0/000.p/01",
        "tile/0/000.p/256",
        "tile/0/000.p/257",
        "tile/0/000.p",
        "tile/0/000.p/",
        "tile/0/000/",
        "tile/0/000\n",
        "/tile/0/000",
        "tile/0/../000",
        "tile/0/\u0660\u0660\u0660",
        "tile/data/000",
        "tile/0/" + "x999/" * 6 + "999",
        "tile/0/" + "x999/" * 30 + "999",
    ],
)
def test_path_is_refused(path):
    with pytest.raises(FormatError, match="path"):
        Tile.parse(path)


def test_widths_of_a_tree():
    # The example of tlog-tiles: 70,000 leaves.
    size = 70_000
    assert Tile.of(0, 272, size) == Tile(0, 272)
    assert Tile.of(0, 273, size) == Tile(0, 273, 112)
    assert Tile.of(1, 0, size) == Tile(1, 0)
    assert Tile.of(1, 1, size) == Tile(1, 1, 17)
    assert Tile.of(2, 0, size) == Tile(2, 0, 1)
    assert Tile.of(1, 0, 256) == Tile(1, 0, 1)
    assert Tile.of(1, 1, size).full == Tile(1, 1)


def test_tile_of_another_length_is_refused():
    with pytest.raises(FormatError, match="64 bytes"):
        Tile(0, 0, 2).hashes(bytes(63))


@pytest.mark.parametrize(
    "data",
    [b"", b"\0\1a", b"\0\1a\0\1", b"\0\1a\0", b"\0\1a\0\2b", b"\0\1a\0\1b\0", b"\0\1a\0\1b\0\1c"],
)
def test_bundle_is_refused(data):
    with pytest.raises(FormatError, match="entry bundle"):
        Tile(None, 0, 2).entries(data)


def test_entries_may_be_empty():
    assert Tile(None, 0, 2).entries(b"\0\0\0\0") == (b"", b"")


def test_entry_too_long_is_not_written():
    with pytest.raises(FormatError):
        write_entries([bytes(65_536)])


@given(st.none() | st.integers(0, 63), st.integers(0, 2**63 - 1), st.integers(1, 256))
def test_any_tile_has_one_path(level, index, width):
    tile = Tile(level, index, width)
    assert Tile.parse(tile.path) == tile


@pytest.mark.fuzz
@given(
    st.text(max_size=40)
    | st.from_regex(r"tile/[0-9e][0-9]?/(x?[0-9]{2,4}/?){0,4}(\.p/[0-9]{0,4})?\n?", fullmatch=True)
)
def test_any_path(path):
    with contextlib.suppress(FormatError):
        assert Tile.parse(path).path == path


@pytest.mark.fuzz
@given(st.binary(max_size=100), st.integers(1, 5))
def test_any_bundle(data, width):
    with contextlib.suppress(FormatError):
        assert write_entries(Tile(None, 0, width).entries(data)) == data
