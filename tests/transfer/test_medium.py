"""What somebody put on a stick: plain files below its directory are read, and nothing else."""

import errno
import hashlib
import os
import socket
from pathlib import Path

import pytest

from modelward.errors import FormatError, NotFound, Refused, TooLong, Unavailable, UsageError
from modelward.formats.release import Blob
from modelward.transfer import medium
from modelward.transfer.medium import Directory, Medium, open_medium
from modelward.transfer.sources import Kind, blob_path
from tests.test_plain_file import devices_opened, make_device
from tests.watching import open_files

DATA = b"weights" * 1000
BLOB = Blob(hashlib.sha256(DATA).hexdigest(), len(DATA))


@pytest.fixture
def stick(tmp_path: Path) -> Path:
    folder = tmp_path / "stick"
    for path, data in {
        "metadata/timestamp.json": b"{}",
        "targets/models/a b/1.release.json": b"release",
        blob_path(BLOB.sha256): DATA,
    }.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(data)
    return folder


@pytest.fixture
def source(stick: Path) -> Medium:
    return open_medium(stick)


def everything(source: Medium, blob: Blob, start: int, stop: int) -> bytes:
    reader = source.open(blob, start, stop)
    buffer, found = memoryview(bytearray(999)), bytearray()
    while count := reader.readinto(buffer):
        found += buffer[:count]
    reader.close()
    return bytes(found)


def test_documents_and_ranges(source: Medium) -> None:
    before = open_files()
    assert source.kind is Kind.MEDIUM
    assert source.fetch("targets/models/a%20b/1.release.json", 7) == b"release"
    assert everything(source, BLOB, 0, BLOB.length) == DATA
    assert everything(source, BLOB, 10, 5000) == DATA[10:5000]
    assert everything(source, BLOB, 5, 5) == b""
    assert open_files() == before


def test_nothing_is_closed_twice(source: Medium) -> None:
    """Another thread closes a reader to end it; its number is somebody else's at once."""
    reader = source.open(BLOB, 0, BLOB.length)
    reader.close()
    number = os.open("/dev/null", os.O_RDONLY)
    reader.close()
    assert reader.readinto(memoryview(bytearray(10))) == 0
    os.close(number)  # still ours


def test_what_is_being_read_stays_open(source: Medium, monkeypatch: pytest.MonkeyPatch) -> None:
    before = open_files()
    reader = source.open(BLOB, 0, BLOB.length)
    read = os.preadv

    def interrupted(descriptor: int, buffers: list[memoryview], at: int) -> int:
        reader.close()
        return read(descriptor, buffers, at)

    monkeypatch.setattr(os, "preadv", interrupted)
    assert reader.readinto(memoryview(bytearray(10))) == 10
    assert open_files() == before


def test_what_is_not_there(source: Medium) -> None:
    with pytest.raises(NotFound, match=r"has no metadata/2\.root\.json"):
        source.fetch("metadata/2.root.json", 10)
    with pytest.raises(NotFound):
        source.open(Blob("00" * 32, 3), 0, 3)


@pytest.mark.attack(25)
@pytest.mark.parametrize(
    "path",
    ["../secret", "metadata/../../secret", "metadata/%2e%2e/%2e%2e/secret", "/etc/hostname",
     "metadata//timestamp.json", "./metadata/timestamp.json", "", "metadata/%00"],
)  # fmt: skip
def test_no_path_leads_out_of_the_directory(source: Medium, stick: Path, path: str) -> None:
    (stick.parent / "secret").write_bytes(b"secret")
    with pytest.raises(NotFound):
        source.fetch(path, 100)


@pytest.mark.attack(11)
def test_links_are_not_followed(source: Medium, stick: Path) -> None:
    outside = stick.parent / "outside"
    outside.mkdir()
    (outside / "secret").write_bytes(b"secret")
    (stick / "metadata/1.root.json").symlink_to(outside / "secret")
    (stick / "log").symlink_to(outside)
    for path in ("metadata/1.root.json", "log/secret"):
        with pytest.raises(Refused, match="no plain file"):
            source.fetch(path, 100)


@pytest.mark.attack(11)
def test_pipes_sockets_folders_and_devices_are_not_read(
    source: Medium, stick: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    os.mkfifo(stick / "metadata/pipe")  # whoever opens it plainly waits for ever
    (stick / "metadata/folder").mkdir()
    with socket.socket(socket.AF_UNIX) as listening:
        monkeypatch.chdir(stick)  # the path of a socket must be short
        listening.bind("metadata/socket")
    names = ["pipe", "folder", "socket"]
    if os.geteuid() == 0:
        os.mknod(stick / "metadata/zero", 0o666 | 0o020000, os.makedev(1, 5))
        names.append("zero")
    for name in names:
        with pytest.raises(Refused, match="no plain file"):
            source.fetch(f"metadata/{name}", 100)


@pytest.mark.attack(11)
@pytest.mark.parametrize("path", ["bundle.json", "metadata/timestamp.json", "metadata"])
def test_a_device_is_not_even_opened(
    stick: Path, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A watchdog's begins to count as it is opened, and starts the machine anew."""
    if path != "bundle.json":
        (stick / path).rename(stick.parent / "what was there")
    make_device(stick / path)
    opened = devices_opened(monkeypatch)
    before = open_files()
    with pytest.raises(Refused, match="no plain file"):
        open_medium(stick)
    assert opened == []
    assert open_files() == before


@pytest.mark.attack(7)
def test_no_more_is_read_than_was_asked_for(source: Medium, stick: Path) -> None:
    with (stick / "metadata/huge").open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(TooLong, match="at most 100 are allowed"):
        source.fetch("metadata/huge", 100)
    os.truncate(stick / blob_path(BLOB.sha256), 1 << 40)
    with pytest.raises(Refused, match=f"instead of {BLOB.length}"):
        source.open(BLOB, 0, BLOB.length)


def test_a_file_that_shrinks_while_it_is_read(source: Medium, stick: Path) -> None:
    reader = source.open(BLOB, 0, BLOB.length)
    reader.readinto(memoryview(bytearray(10)))
    os.truncate(stick / blob_path(BLOB.sha256), 5)
    with pytest.raises(Refused, match="became shorter"):
        reader.readinto(memoryview(bytearray(10)))
    reader.close()


def test_a_stick_that_is_pulled_out(source: Medium, monkeypatch: pytest.MonkeyPatch) -> None:
    reader = source.open(BLOB, 0, BLOB.length)

    def gone(*_: object, **__: object) -> int:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(medium.os, "preadv", gone)
    with pytest.raises(Unavailable, match="Input/output error") as error:
        reader.readinto(memoryview(bytearray(10)))
    assert "pulled out" in error.value.advice
    monkeypatch.setattr(medium.os, "open", gone)
    with pytest.raises(Unavailable, match="Input/output error"):
        source.fetch("metadata/timestamp.json", 10)


def test_what_is_no_bundle(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="there is no bundle"):
        open_medium(tmp_path)
    with pytest.raises(UsageError, match="there is no "):
        open_medium(tmp_path / "nowhere")
    with pytest.raises(UsageError, match="neither a directory nor a file"):
        open_medium(Path("/dev/null"))
    (tmp_path / "some.tar").write_bytes(b"no tar at all" * 100)
    with pytest.raises(FormatError, match="no tar header"):
        open_medium(tmp_path / "some.tar")


def test_an_index_that_makes_no_sense(stick: Path) -> None:
    (stick / "bundle.json").write_bytes(b"{}")
    before = open_files()
    with pytest.raises(FormatError, match="schema"):
        open_medium(stick)
    (stick / "bundle.json").unlink()
    os.mkfifo(stick / "bundle.json")
    with pytest.raises(Refused, match="no plain file"):
        open_medium(stick)
    assert open_files() == before


def test_a_directory_that_is_a_link_itself_is_fine(stick: Path) -> None:
    (stick.parent / "usb").symlink_to(stick)
    extent = Directory(stick.parent / "usb").find("metadata/timestamp.json")
    assert extent.length == 2
    extent.close()
