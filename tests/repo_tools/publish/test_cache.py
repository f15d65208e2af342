"""What publishing remembers: never across a changed status, never half of anything."""

import os
import time
from pathlib import Path

import pytest

from modelward.formats.release import Blob
from modelward_repo.publish.cache import SETTLED, Cache, Made
from modelward_repo.supply_chain.hasher import hash_files

DIGEST = "a" * 64


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "bundle/model.onnx"
    path.parent.mkdir()
    path.write_bytes(b"weights")
    return path


def later(seconds: float = SETTLED):
    return lambda: time.time() + seconds


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    return Cache(tmp_path / "cache", clock=later())


def test_a_file_is_known_by_its_status(cache: Cache, file: Path):
    assert cache.digest(file.stat()) is None
    cache.learn(file.stat(), DIGEST)
    assert cache.digest(file.stat()) == DIGEST
    assert Cache(cache.directory).digest(file.stat()) == DIGEST
    assert Cache(cache.directory, trust_times=False).digest(file.stat()) is None


@pytest.mark.parametrize("change", ["written", "replaced", "touched", "times set back", "renamed"])
def test_a_file_whose_status_changed_is_unknown(cache: Cache, file: Path, change: str):
    cache.learn(file.stat(), DIGEST)
    before = file.stat()
    if change == "written":
        file.write_bytes(b"other")
    elif change == "replaced":
        other = file.with_name("other")
        other.write_bytes(b"WEIGHTS")
        other.replace(file)
    elif change == "touched":
        os.utime(file)
    elif change == "times set back":
        file.write_bytes(b"WEIGHTS")
        os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    else:
        file = file.rename(file.with_name("other"))
    assert cache.digest(file.stat()) is None


def test_a_file_changed_just_now_is_not_remembered(cache: Cache, file: Path):
    Cache(cache.directory, clock=later(0)).learn(file.stat(), DIGEST)
    assert cache.digest(file.stat()) is None
    Cache(cache.directory, clock=later(0)).learn(file.stat(), DIGEST, ours=True)
    assert cache.digest(file.stat()) == DIGEST


def test_a_second_name_does_not_make_a_file_unknown(cache: Cache, file: Path):
    cache.learn(file.stat(), DIGEST)
    before = file.stat()
    file.with_name("second").hardlink_to(file)
    assert cache.digest(file.stat()) is None
    cache.carry(before, file.stat())
    assert cache.digest(file.stat()) == DIGEST
    before = file.stat()
    file.write_bytes(b"WEIGHTS")
    cache.carry(before, file.stat())
    assert cache.digest(file.stat()) is None


def test_what_was_made_is_found(cache: Cache):
    assert cache.made("x") is None
    cache.keep("x", Made(Blob(DIGEST, 7), 100))
    cache.keep("y", Made(None))
    assert cache.made("x") == Made(Blob(DIGEST, 7), 100)
    assert cache.made("y") == Made(None)


@pytest.mark.parametrize(
    "note", [b"", b"{", b"[]", b'{"sha256":"short","length":1}', b'{"sha256":null' + b" " * 5000]
)
def test_a_damaged_note_is_none(cache: Cache, file: Path, note: bytes):
    cache.keep("x", Made(Blob(DIGEST, 7), 100))
    cache.learn(file.stat(), DIGEST)
    for path in cache.directory.glob("*/*.json"):
        path.write_bytes(note)
    assert cache.made("x") is None
    assert cache.digest(file.stat()) is None


def test_what_killed_publishers_left_is_swept_away(cache: Cache):
    aside = cache.aside()
    aside.write_bytes(b"half")
    cache.sweep()
    assert aside.exists()
    Cache(cache.directory, clock=later(25 * 3600)).sweep()
    assert not aside.exists()


def test_hashing_an_unchanged_file_reads_nothing(cache: Cache, file: Path):
    honest = hash_files(file.parent, ["."], known=cache)
    assert hash_files(file.parent, ["."]) == honest
    cache.learn(file.stat(), DIGEST)  # a lie shows that the file is not read
    assert hash_files(file.parent, ["."], known=cache) == {"model.onnx": DIGEST}
    assert hash_files(file.parent, ["."], known=Cache(cache.directory, False)) == honest
