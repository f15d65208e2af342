"""The file that a file on an overlay is: overlayfs keeps nothing itself, but in other layers.

What is made on an overlay lies in its upper layer, under the same path and number, and everything
that is done to it is done there: size and times are those of that file. Nothing but the kernel's
list of mounts says where the upper layer is, and it may be hidden, or be elsewhere by now. So what
is found there is looked at first.
"""

import os
import re
from dataclasses import dataclass
from pathlib import Path

MAGIC = 0x794C7630  # overlayfs, as statfs(2) has it
_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
_OCTAL = re.compile(rb"\\([0-7]{3})")


@dataclass(frozen=True)
class _Mount:
    """An overlay as it is mounted somewhere.

    Attributes:
        at: Where.
        root: Which of its folders is seen there.
        upper: The folder that it writes to, as whoever mounted it named it.
    """

    at: Path
    root: str
    upper: Path


def open_upper(descriptor: int) -> int | None:
    """Open for reading, in the upper layer of its overlay, the very file that a descriptor is of.

    Returns:
        The new descriptor; None if that file is in another layer or cannot be found.

    Raises:
        OSError: What the kernel tells of this process cannot be read.
    """
    mount = _mount_of(descriptor)
    path = Path(f"/proc/self/fd/{descriptor}").readlink()
    if mount is None or not mount.upper.is_absolute() or not path.is_relative_to(mount.at):
        return None
    inner = Path(mount.root.lstrip("/"), path.relative_to(mount.at))
    try:
        found = os.open(mount.upper / inner, _FLAGS)
    except OSError:
        return None
    if _identity(found) == _identity(descriptor):
        return found
    os.close(found)
    return None


def _identity(descriptor: int) -> tuple[int, ...]:
    """Return what only the very same file has in common with a file.

    Of a file whose content is in a lower layer still (metacopy), only its blocks tell.
    """
    seen = os.fstat(descriptor)
    return seen.st_ino, seen.st_size, seen.st_mtime_ns, seen.st_ctime_ns, seen.st_blocks


def _mount_of(descriptor: int) -> _Mount | None:
    """Return the overlay by whose mount a file was opened: see proc(5), mountinfo and fdinfo."""
    about = Path(f"/proc/self/fdinfo/{descriptor}").read_bytes().split(b"\n")
    number = next((line.split()[1] for line in about if line.startswith(b"mnt_id:")), b"")
    for line in Path("/proc/self/mountinfo").read_bytes().split(b"\n"):
        words = line.split(b" ")
        if words[0] == number and b"-" in words:
            kind, _, options = words[words.index(b"-") + 1 :]
            upper = dict(option.partition(b"=")[::2] for option in options.split(b",")).get(
                b"upperdir"
            )
            if kind == b"overlay" and upper:
                return _Mount(Path(_text(words[4])), _text(words[3]), Path(_text(upper)))
    return None


def _text(word: bytes) -> str:
    return os.fsdecode(_OCTAL.sub(lambda found: bytes([int(found[1], 8) & 0xFF]), word))
