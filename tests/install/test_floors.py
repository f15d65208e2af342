"""Floors on disk: what may only rise survives a torn copy."""

import errno
import os

import pytest

from modelward.errors import Gate, Unavailable
from modelward.formats.floors import Floors, RoleFloor
from modelward.formats.strict import MAX_INT
from modelward.install import fsops
from modelward.install.floors import COPIES, FloorStore
from modelward.install.opened import Folder


def floors(version: int, root: int = 1, **changes) -> Floors:
    role = RoleFloor(version, "a" * 64, frozenset({"b" * 64}))
    return Floors(root, role, role, {"targets": version}, {"m": version}, **changes)


def cannot_read(monkeypatch, number: int, *names: str) -> None:
    """Let files of these names give an error."""
    real = Folder.read

    def read(folder: Folder, name: str, cap: int) -> bytes:
        if name in names:
            raise OSError(number, os.strerror(number), name)
        return real(folder, name, cap)

    monkeypatch.setattr(Folder, "read", read)


def test_none_yet(tmp_path):
    assert FloorStore(tmp_path).load() == Floors()


def test_save_and_load(tmp_path):
    store = FloorStore(tmp_path)
    for version in (1, 2):
        store.save(floors(version))
        assert store.load() == floors(version)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(COPIES)


@pytest.mark.parametrize("damage", [b"", b"\0" * 300, b'{"schema"', None])
@pytest.mark.parametrize("copy", COPIES)
def test_one_copy_is_damaged(tmp_path, copy, damage):
    store = FloorStore(tmp_path)
    store.save(floors(2))
    path = tmp_path / copy
    path.unlink()
    if damage is not None:
        path.write_bytes(damage)
    assert store.load() == floors(2)


@pytest.mark.parametrize(
    ("older", "newer"),
    [
        (floors(1), floors(2)),
        (floors(MAX_INT), floors(1, root=2)),  # a root rotated the stolen key away
        (Floors(1), floors(1)),
    ],
)
def test_cut_between_the_copies(tmp_path, older, newer):
    for first, second in ((older, newer), (newer, older)):
        (tmp_path / COPIES[0]).write_bytes(first.to_bytes())
        (tmp_path / COPIES[1]).write_bytes(second.to_bytes())
        assert FloorStore(tmp_path).load() == newer


def test_floors_of_the_largest_repository_can_be_read_back(tmp_path):
    # TUF's client takes a snapshot of 2,000,000 bytes: 30 for each role.
    many = Floors(listed={f"model-{number:015}": MAX_INT for number in range(66_000)})
    store = FloorStore(tmp_path)
    store.save(many)
    assert store.load() == many


@pytest.mark.parametrize("number", [errno.EIO, errno.EACCES, errno.EMFILE])
def test_what_cannot_be_read_is_not_forgotten(tmp_path, monkeypatch, number):
    store = FloorStore(tmp_path)
    store.save(floors(2))
    cannot_read(monkeypatch, number, *COPIES)
    for act in (store.load, store.mend, lambda: store.save(floors(1))):
        with pytest.raises(Unavailable, match="cannot be read") as caught:
            act()
        assert caught.value.gate is Gate.RECOVER
        assert caught.value.advice
    monkeypatch.undo()
    assert store.load() == floors(2)


@pytest.mark.parametrize("number", fsops.LOST)
def test_one_copy_that_the_disk_has_lost(tmp_path, monkeypatch, number):
    store = FloorStore(tmp_path)
    store.save(floors(2))
    cannot_read(monkeypatch, number, COPIES[0])
    assert store.load() == floors(2)
    (tmp_path / COPIES[1]).write_bytes(b"{}")
    with pytest.raises(Unavailable):
        store.load()


def test_one_copy_that_somebody_else_wrote(tmp_path, monkeypatch):
    """It may be the higher one."""
    FloorStore(tmp_path).save(floors(2))
    cannot_read(monkeypatch, errno.EACCES, COPIES[1])
    with pytest.raises(Unavailable, match="Permission denied"):
        FloorStore(tmp_path).load()
