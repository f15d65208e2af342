"""Whatever somebody put where a small file is expected: it is refused, not waited for."""

import os
import socket
import stat
from pathlib import Path
from threading import Thread

import pytest

from modelward import plain_file


def make_device(path: Path) -> None:
    """Put a device in a file's place: the one that is `/dev/null`."""
    try:
        os.mknod(path, stat.S_IFCHR | 0o666, os.makedev(1, 3))
    except PermissionError:
        pytest.skip("only root makes devices")


def devices_opened(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return a list to which the names of all devices are added that are opened from now on."""
    opened, real = [], os.open

    def recorded(path, flags, *arguments, **options):
        descriptor = real(path, flags, *arguments, **options)
        if stat.S_ISCHR(os.fstat(descriptor).st_mode) and not flags & os.O_PATH:
            opened.append(str(path))
        return descriptor

    monkeypatch.setattr(os, "open", recorded)
    return opened


@pytest.fixture
def folder(tmp_path):
    descriptor = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    yield descriptor
    os.close(descriptor)


@pytest.fixture(params=["proc", "no proc"])
def with_or_without_proc(request, monkeypatch):
    real = os.open

    def without(path, *arguments, **options):
        path = str(path).replace("/proc/", "/nowhere/")
        return real(path, *arguments, **options)

    if request.param == "no proc":
        monkeypatch.setattr(os, "open", without)


@pytest.fixture
def pipe(tmp_path):
    os.mkfifo(tmp_path / "file")
    return tmp_path / "file"


def test_a_file(tmp_path):
    file = tmp_path / "file"
    file.write_bytes(b"a" * 100_000)
    (tmp_path / "link").symlink_to(file)
    assert plain_file.read(tmp_path / "link", 100_000) == b"a" * 100_000
    with pytest.raises(OSError, match="is longer than 99999 bytes"):
        plain_file.read(file, 99_999)


def test_a_pipe_that_nobody_writes_to(pipe):
    with pytest.raises(OSError, match="is not a regular file") as caught:
        plain_file.read(pipe, 100)
    assert caught.value.filename == str(pipe)


def test_a_device_that_never_ends():
    with pytest.raises(OSError, match="is not a regular file"):
        plain_file.read(Path("/dev/zero"), 100)
    with pytest.raises(OSError, match="is longer than 100 bytes"):
        plain_file.read(Path("/dev/zero"), 100, piped=True)


def test_neither_a_folder_nor_a_socket(tmp_path):
    with pytest.raises(OSError, match="is not a regular file"):
        plain_file.read(tmp_path, 100)
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / "file"))
        with pytest.raises(OSError, match="No such device"):
            plain_file.read(tmp_path / "file", 100)


def test_a_pipe_that_a_person_named(pipe):
    writer = Thread(target=pipe.write_bytes, args=(b"content",))
    writer.start()
    assert plain_file.read(pipe, 100, piped=True) == b"content"
    writer.join()


@pytest.mark.usefixtures("with_or_without_proc")
def test_a_file_that_a_stranger_put_there(tmp_path, folder):
    (tmp_path / "file").write_bytes(b"content")
    descriptor = plain_file.open_of_stranger("file", folder)
    assert os.read(descriptor, 100) == b"content"
    assert not os.get_inheritable(descriptor)
    os.close(descriptor)
    with pytest.raises(FileNotFoundError):
        plain_file.open_of_stranger("nothing", folder)
    (tmp_path / "link").symlink_to("file")
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    for name in ("link", "folder", "pipe"):
        with pytest.raises(plain_file.NotRegularError):
            plain_file.open_of_stranger(name, folder)


@pytest.mark.usefixtures("with_or_without_proc")
def test_a_device_that_a_stranger_put_there(tmp_path, folder, monkeypatch):
    make_device(tmp_path / "device")
    opened = devices_opened(monkeypatch)
    with pytest.raises(plain_file.NotRegularError):
        plain_file.open_of_stranger("device", folder)
    assert opened == []
    os.close(os.open(tmp_path / "device", os.O_RDONLY))
    assert opened == [str(tmp_path / "device")]


def test_a_stranger_who_is_quick(tmp_path, folder, monkeypatch):
    """Where there is no /proc, a name may be a pipe's by the time that it is opened."""
    (tmp_path / "file").write_bytes(b"content")
    real = os.open

    def quick(path, *arguments, **options):
        if str(path).startswith("/proc/"):
            (tmp_path / "file").unlink()
            os.mkfifo(tmp_path / "file")
            raise FileNotFoundError
        return real(path, *arguments, **options)

    monkeypatch.setattr(os, "open", quick)
    with pytest.raises(plain_file.NotRegularError):
        plain_file.open_of_stranger("file", folder)
