"""fs-verity: what the kernel answers, and what it means that it does not."""

import errno
import os
import stat
import struct

from modelward.install import fsops, syscalls, verity

DIGEST = bytes(range(32))


def kernel(algorithm: int, digest: bytes):
    """Answer as a kernel does that checks the file."""

    def ioctl(descriptor: int, request: int, answer: bytearray) -> int:
        assert (descriptor, request) == (7, 0xC0046686)
        assert struct.unpack_from("=HH", answer) == (0, 64)
        answer[: 4 + len(digest)] = struct.pack("=HH", algorithm, len(digest)) + digest
        return 0

    return ioctl


def test_measured():
    assert verity.measure(7, kernel(1, DIGEST)) == f"sha256:{DIGEST.hex()}"
    assert verity.measure(7, kernel(2, DIGEST * 2)) == f"sha512:{(DIGEST * 2).hex()}"
    assert verity.measure(7, kernel(3, DIGEST)) is None


def test_a_kernel_that_does_not_check(tmp_path):
    """Asked for real: an ordinary file is not checked, wherever this runs."""
    path = tmp_path / "file"
    path.write_bytes(b"content")
    with path.open("rb") as file:
        assert verity.measure(file.fileno()) is None


def test_turning_it_on(tmp_path):
    """Asked for real: it works or is refused, and the file stays what it was."""
    path = tmp_path / "file"
    path.write_bytes(b"content")
    on = fsops.enable_verity(path)
    with path.open("rb") as file:
        assert (verity.measure(file.fileno()) is not None) == on
    assert path.read_bytes() == b"content"


def test_on_already(tmp_path, monkeypatch):
    def already(_descriptor):
        raise FileExistsError(errno.EEXIST, "File exists")

    monkeypatch.setattr(syscalls, "enable_verity", already)
    (tmp_path / "file").touch()
    assert fsops.enable_verity(tmp_path / "file")


def test_a_file_that_its_owner_may_not_write_to(tmp_path, monkeypatch):
    """The kernel asks for leave to write. Seen on a real one in tests/vm."""
    path, asked = tmp_path / "file", []
    path.touch(0o444)

    def kernel(descriptor: int) -> None:
        asked.append(stat.S_IMODE(os.fstat(descriptor).st_mode))
        if not asked[-1] & stat.S_IWUSR:
            raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(syscalls, "enable_verity", kernel)
    assert fsops.enable_verity(path)
    assert asked == [0o444, 0o644]
    assert stat.S_IMODE(path.stat().st_mode) == 0o444


def test_no_room_for_the_hashes(tmp_path, monkeypatch):
    """It works without."""

    def full(_descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(syscalls, "enable_verity", full)
    (tmp_path / "file").touch()
    assert not fsops.enable_verity(tmp_path / "file")
