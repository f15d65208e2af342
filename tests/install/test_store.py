"""Every blob once, named by its digest."""

import hashlib
import mmap
import time

import pytest

from modelward.formats.release import Blob
from modelward.install.store import Store

CONTENT = b"weights"
BLOB = Blob(hashlib.sha256(CONTENT).hexdigest(), len(CONTENT))


@pytest.fixture
def store(tmp_path) -> Store:
    return Store(tmp_path / "store")


def test_empty_store(store):
    assert not store.has(BLOB)
    assert store.read(BLOB) is None
    assert not store.is_intact(BLOB)
    assert list(store.digests()) == []
    store.sweep()
    store.remove(BLOB.sha256)


def test_add(store):
    store.add(BLOB, [memoryview(CONTENT[:3]), memoryview(CONTENT[3:])])
    assert store.has(BLOB)
    assert store.is_intact(BLOB)
    assert store.read(BLOB) == CONTENT
    assert list(store.digests()) == [BLOB.sha256]
    assert store.lengths() == {BLOB.sha256: len(CONTENT)}
    assert store.path(BLOB.sha256).stat().st_mode & 0o777 == 0o444
    assert store.free() > 0
    store.remove(BLOB.sha256)
    assert not store.has(BLOB)


def test_blob_whose_blocks_fail_never_appears(store):
    def blocks():
        yield memoryview(CONTENT)
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        store.add(BLOB, blocks())
    assert not store.has(BLOB)
    assert list(store.digests()) == []


@pytest.mark.parametrize("damaged", [b"", b"weight", b"weightz", b"weights!"])
def test_damaged_blob_is_not_read_and_is_replaced(store, damaged):
    store.add(BLOB, [memoryview(CONTENT)])
    path = store.path(BLOB.sha256)
    path.chmod(0o600)
    path.write_bytes(damaged)
    assert store.read(BLOB) is None
    assert not store.is_intact(BLOB)
    assert store.has(BLOB) == (len(damaged) == len(CONTENT))  # the content is checked when used
    store.add(BLOB, [memoryview(CONTENT)])
    assert store.read(BLOB) == CONTENT


def test_sweep_and_digests_pass_over_what_is_not_a_blob(store):
    store.add(BLOB, [memoryview(CONTENT)])
    folder = store.path(BLOB.sha256).parent
    (folder / ".tmp-1").write_bytes(b"half")
    (folder / "stray").write_bytes(b"")
    assert list(store.digests()) == [BLOB.sha256]
    store.sweep()
    assert {path.name for path in folder.iterdir()} == {BLOB.sha256, "stray"}


def test_a_write_through_a_map_shows_in_looks(store):
    store.add(BLOB, [memoryview(CONTENT)])
    path = store.path(BLOB.sha256)
    path.chmod(0o644)
    with path.open("r+b") as file, mmap.mmap(file.fileno(), 0) as page:
        page[:] = CONTENT  # a dirty page: further writes to it make no fault
        before = store.look(BLOB.sha256)
        if before is None:
            pytest.skip("this file system notes no such write")
        time.sleep(0.05)
        page[:] = CONTENT[::-1]
        assert store.look(BLOB.sha256) != before
