"""Whatever somebody put where a small file is expected: it is refused, not waited for."""

import os
import socket
from pathlib import Path
from threading import Thread

import pytest

from modelward import plain_file


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
