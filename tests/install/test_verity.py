"""fs-verity: what the kernel answers, and what it means that it does not."""

import errno
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
