"""Real file systems on loop devices, whose power can be cut."""

import contextlib
import ctypes
import fcntl
import os
import shutil
import struct
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

SHUTDOWN = 0x8004587D  # EXT4_IOC_SHUTDOWN, XFS_IOC_GOINGDOWN
JOURNAL_FLUSHED, JOURNAL_LOST = 1, 2
MEMORY = Path("/dev/shm")
PATIENCE = 10.0  # seconds
CLONE_NEWNS, MS_REC, MS_SLAVE = 0x20000, 0x4000, 0x80000  # sched.h, mount.h

_libc = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True)
class FileSystem:
    """A file system.

    Attributes:
        make: The command that makes it; the image's path follows.
        size: Bytes of an image, which is sparse.
        cuts: Whether it can be shut down as a power cut does.
    """

    make: tuple[str, ...]
    size: int
    cuts: bool = True


FILE_SYSTEMS = {
    "ext4": FileSystem(("mkfs.ext4", "-q", "-F", "-b", "4096"), 48 << 20),
    "xfs": FileSystem(("mkfs.xfs", "-q", "-f"), 320 << 20),
    "btrfs": FileSystem(("mkfs.btrfs", "-q", "-f"), 160 << 20, cuts=False),
}


def missing(name: str) -> str | None:
    """Return why a file system cannot be tried here, or None."""
    if os.geteuid():
        return "only root may mount"
    tool = FILE_SYSTEMS[name].make[0]
    for needed in (tool, "strace", "mount"):
        if shutil.which(needed) is None:
            return f"{needed} is not installed"
    if not Path("/dev/loop-control").exists():
        return "there are no loop devices"
    return None


def run(*command: str | Path) -> None:
    """Run a command that must succeed."""
    subprocess.run([*map(str, command)], check=True, capture_output=True)


def make(name: str, image: Path) -> None:
    """Make a file system in a new image."""
    with image.open("wb") as file:
        file.truncate(FILE_SYSTEMS[name].size)
    run(*FILE_SYSTEMS[name].make, image)


@contextlib.contextmanager
def mounted(image: Path, place: Path) -> Iterator[Path]:
    """Mount an image where nobody else sees it, and see to it that nothing has it mounted after.

    A program that takes a view of the mounts of its own (`unshare --mount`, a sandbox) keeps
    mounted what it sees. Mounted again meanwhile, the image would be that same file system, its
    power cut, whatever the image holds by then.

    Raises:
        RuntimeError: It is mounted still, and who has it so.
    """
    place.mkdir(exist_ok=True)
    _look_alone()
    run("mount", "-o", "loop,noatime", image, place)
    try:
        yield place
    finally:
        unmount(place)
        until = time.monotonic() + PATIENCE
        while device := _attached(image):
            if time.monotonic() > until:
                raise RuntimeError(f"{image} is unmounted, but in use as {device}: {_who(device)}")
            time.sleep(0.01)


def _look_alone() -> None:
    """Give this thread, and what it starts, a view of the mounts of its own.

    What others mount and unmount still shows in it, where the machine shares that at all.
    """
    for result in (
        _libc.unshare(CLONE_NEWNS),
        _libc.mount(None, b"/", None, ctypes.c_ulong(MS_REC | MS_SLAVE), None),
    ):
        if result:
            raise OSError(ctypes.get_errno(), "this process cannot have mounts of its own")


def _attached(image: Path) -> str | None:
    """Return the loop device that reads from an image, or None."""
    for backing in Path("/sys/block").glob("loop*/loop/backing_file"):
        with contextlib.suppress(OSError):  # detached meanwhile
            if backing.read_text("utf-8").rstrip("\n") == str(image.resolve()):
                return f"/dev/{backing.parent.parent.name}"
    return None


def _who(device: str) -> str:
    """Return which processes have a device mounted, for people."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # it has ended
            mounts = (process / "mountinfo").read_text("utf-8", "replace").splitlines()
            # Optional fields end with " - "; then come type, source and options.
            if any(line.partition(" - ")[2].split()[1:2] == [device] for line in mounts):
                found.append(f"{process.name} ({(process / 'comm').read_text().strip()})")
    return f"mounted by process {', '.join(found)}" if found else "no process has it mounted"


def unmount(place: Path) -> None:
    """Unmount; what a process that was killed had started may still be about to end."""
    until = time.monotonic() + PATIENCE
    while subprocess.run(["umount", place], check=False, capture_output=True).returncode:
        if time.monotonic() > until:
            run("umount", place)
        time.sleep(0.02)


def copy(template: Path, image: Path) -> None:
    """Copy an image, holes and all."""
    run("cp", "--sparse=always", template, image)


def lose_folder(image: Path, path: str) -> None:
    """Overwrite the block of an ext4 file system that says what is in a small folder."""
    command = f"zap_block -f {path} 0"
    done = subprocess.run(
        ["debugfs", "-w", "-R", command, image], check=True, capture_output=True, text=True
    )
    if len(done.stderr.splitlines()) > 1:  # the first line is its name and version
        raise RuntimeError(done.stderr)


def cut_power(place: Path, flag: int) -> None:
    """Shut a mounted file system down at once: what is not on disk will never be."""
    descriptor = os.open(place, os.O_RDONLY)
    try:
        fcntl.ioctl(descriptor, SHUTDOWN, struct.pack("I", flag))
    finally:
        os.close(descriptor)
