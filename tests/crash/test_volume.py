"""Nobody else keeps an image mounted: its power would stay cut. As root only."""

import contextlib
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.crash import volume

UNSHARE = ("unshare", "--mount", "sleep", "60")


@pytest.fixture
def image(tmp_path):
    """An image of a file system."""
    reason = volume.missing("ext4")
    if reason:
        pytest.skip(f"ext4: {reason}")
    volume.make("ext4", tmp_path / "image")
    return tmp_path / "image"


@contextlib.contextmanager
def onlooker(*command: str) -> Iterator[subprocess.Popen[bytes]]:
    """A program that is started by a line on its input, and is killed in the end."""
    waiting = ("sh", "-c", 'read line; exec "$@"', "sh", *command)
    with subprocess.Popen(waiting, stdin=subprocess.PIPE) as process:
        try:
            yield process
        finally:
            process.kill()


def start(process: subprocess.Popen[bytes]) -> str:
    """Start it, and return the mounts that it sees."""
    assert process.stdin is not None
    process.stdin.write(b"\n")
    process.stdin.flush()
    until = time.monotonic() + 10
    while Path(f"/proc/{process.pid}/comm").read_text() != "sleep\n":
        assert time.monotonic() < until
        time.sleep(0.005)
    return Path(f"/proc/{process.pid}/mountinfo").read_text()


def test_mounts_are_not_seen(image, tmp_path):
    with onlooker(*UNSHARE) as other:
        with volume.mounted(image, tmp_path / "mount") as place:
            (place / "file").write_text("here")
            assert str(place) not in start(other)
            volume.cut_power(place, volume.JOURNAL_FLUSHED)
        with volume.mounted(image, tmp_path / "mount") as place:
            assert (place / "file").read_bytes() in {b"", b"here"}  # and no EIO


def test_holder_is_named(image, tmp_path, monkeypatch):
    monkeypatch.setattr(volume, "PATIENCE", 0.1)
    holders = []

    def mount() -> None:
        with volume.mounted(image, tmp_path / "mount") as place:
            # It looks with this thread's eyes.
            holders.append(stack.enter_context(onlooker(*UNSHARE)))
            assert str(place) in start(holders[0])

    with contextlib.ExitStack() as stack:
        with pytest.raises(RuntimeError) as caught:
            mount()
        assert f"mounted by process {holders[0].pid} (sleep)" in str(caught.value)
