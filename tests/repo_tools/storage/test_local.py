import hashlib
import io
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from modelward.formats.release import Blob
from modelward_repo.storage.local import PARTIAL, STALE, LocalStorage, StorageError


@pytest.fixture
def storage(tmp_path: Path) -> LocalStorage:
    return LocalStorage(tmp_path)


def blob(data: bytes) -> Blob:
    return Blob(hashlib.sha256(data).hexdigest(), len(data))


def test_what_was_written_is_read(storage: LocalStorage) -> None:
    storage.write_new("a/b/c", b"content")
    assert storage.read("a/b/c") == b"content"
    assert storage.size("a/b/c") == 7
    assert storage.exists("a/b/c")
    assert not storage.exists("a/b")
    assert list(storage.list("a")) == ["a/b/c"]
    assert list(storage.list("nothing")) == []


def test_the_same_content_again_is_fine_and_other_content_is_not(storage: LocalStorage) -> None:
    storage.write_new("file", b"content")
    storage.write_new("file", b"content")
    with pytest.raises(StorageError, match="other content"):
        storage.write_new("file", b"CONTENT")
    assert storage.read("file") == b"content"


def test_replace_replaces(storage: LocalStorage) -> None:
    storage.replace("timestamp.json", b"one")
    storage.replace("timestamp.json", b"two")
    assert storage.read("timestamp.json") == b"two"


def test_a_missing_file_is_named(storage: LocalStorage) -> None:
    with pytest.raises(StorageError, match="no file x/y"):
        storage.read("x/y")
    with pytest.raises(StorageError, match="no file x/y"):
        storage.size("x/y")


def test_blobs_are_copied_in_pieces_and_hashed_meanwhile(storage: LocalStorage) -> None:
    data = os.urandom(3_000_000)
    counted: list[int] = []
    storage.copy_new("blob", io.BytesIO(data), blob(data), counted.append)
    assert storage.read("blob") == data
    assert len(counted) == 3
    assert sum(counted) == len(data)


def test_a_source_that_is_not_the_blob_leaves_nothing(storage: LocalStorage) -> None:
    with pytest.raises(StorageError, match="changed while"):
        storage.copy_new("blob", io.BytesIO(b"other"), blob(b"content"))
    assert not storage.exists("blob")
    assert not list((storage.root / PARTIAL).iterdir())


def test_a_damaged_blob_is_not_taken_for_published(storage: LocalStorage) -> None:
    (storage.root / "blob").write_bytes(b"c0ntent")
    with pytest.raises(StorageError, match="other content"):
        storage.copy_new("blob", io.BytesIO(b"content"), blob(b"content"))


def test_an_unreadable_source_leaves_nothing(storage: LocalStorage) -> None:
    class Broken(io.BytesIO):
        def read(self, _size: int | None = -1) -> bytes:
            raise OSError(5, "Input/output error")

    with pytest.raises(StorageError, match="Input/output error"):
        storage.copy_new("blob", Broken(), blob(b""))
    assert not list((storage.root / PARTIAL).iterdir())


def test_every_write_is_synced_before_it_gets_its_name(
    storage: LocalStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    order: list[str] = []
    fsync, rename = os.fsync, os.rename

    def noting_fsync(descriptor: int) -> None:
        order.append(f"fsync {Path(f'/proc/self/fd/{descriptor}').readlink()}")
        fsync(descriptor)

    def noting_rename(source: Path, target: Path) -> None:
        order.append(f"rename {target}")
        rename(source, target)

    monkeypatch.setattr(os, "fsync", noting_fsync)
    monkeypatch.setattr(os, "rename", noting_rename)
    storage.write_new("a/file", b"content")
    root = str(storage.root)
    named = order.index(f"rename {root}/a/file")
    assert order[named - 1].startswith(f"fsync {root}/{PARTIAL}/")
    assert order[named + 1] == f"fsync {root}/a"
    assert f"fsync {root}" in order[:named]  # the name of the new directory


def test_the_lock_orders_processes(storage: LocalStorage) -> None:
    code = (
        "import sys; from pathlib import Path; "
        "from modelward_repo.storage.local import LocalStorage\n"
        "with LocalStorage(Path(sys.argv[1])).lock(): print('mine', flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-c", code, str(storage.root)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout
        assert other.stdin
        assert other.stdout.readline() == b"mine\n"
        taken = threading.Event()

        def take() -> None:
            with storage.lock():
                taken.set()

        thread = threading.Thread(target=take)
        thread.start()
        assert not taken.wait(0.2)
        other.stdin.close()
        assert taken.wait(10)
        thread.join()


def test_the_lock_is_waited_for_only_as_long_as_there_is_patience(storage: LocalStorage) -> None:
    with storage.lock(0):
        start = time.monotonic()
        with (
            pytest.raises(StorageError, match="kept the repository locked"),
            LocalStorage(storage.root).lock(0.2),
        ):
            pass
        assert 0.2 <= time.monotonic() - start < 5
    with storage.lock(0.0):
        pass


def test_the_lock_of_a_killed_publisher_is_free_and_its_remains_are_swept(
    storage: LocalStorage,
) -> None:
    remains = storage.root / PARTIAL / "old"
    fresh = storage.root / PARTIAL / "fresh"
    remains.parent.mkdir()
    remains.write_bytes(b"half")
    fresh.write_bytes(b"still being written")
    long_ago = time.time() - STALE - 1
    os.utime(remains, (long_ago, long_ago))
    with storage.lock():
        assert not remains.exists()
        assert fresh.exists()


def test_a_full_disk_is_said_and_leaves_the_old_state(
    storage: LocalStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage.replace("timestamp.json", b"old")

    def full(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StorageError, match="No space left"):
        storage.replace("timestamp.json", b"new")
    assert storage.read("timestamp.json") == b"old"
    assert not list((storage.root / PARTIAL).iterdir())
