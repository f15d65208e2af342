"""The same footing for every program that is measured: the disk at rest, memory in use or idle.

What one program leaves behind is work in the next one's time: pages to be written, blocks to be
discarded. And a virtual machine may hand memory that is not in use back to its host (free page
reporting): until it has got it again, whoever writes through the page cache takes up to five times
as long. A device that is a machine of its own has its memory, most of it full of files.
"""

import os
import random
import time
from pathlib import Path

LEFT = 768 << 20  # bytes of memory that may be free
BLOCK = 1 << 20
NOTHING = 1 << 43  # bytes of a file that has none on disk
REST = 0.5  # seconds without any input or output
LONGEST = 20.0  # seconds to wait for that
IDLE = 8.0  # seconds in which the host of a virtual machine takes back what is not in use


def take(place: Path) -> None:
    """Fill free memory with what may be dropped, and let the disk of a folder come to rest."""
    _fill(place / "nothing")  # at once: what was just freed is still here
    os.sync()
    _rest(place)


def leave(place: Path) -> None:
    """Free the memory that was taken, and leave the machine idle for a while."""
    (place / "nothing").unlink(missing_ok=True)
    os.sync()
    _rest(place)
    time.sleep(IDLE)


def _rest(place: Path) -> None:
    device = place.stat().st_dev
    path = Path(f"/sys/dev/block/{os.major(device)}:{os.minor(device)}/stat")
    until, before = time.monotonic() + LONGEST, ""
    while path.exists() and before != (now := path.read_text("ascii")):
        if time.monotonic() > until:
            print("  the disk does not come to rest: something else uses it", flush=True)
            return
        before = now
        time.sleep(REST)


def _fill(nothing: Path) -> None:
    """Read a file of holes into the page cache, at a place that is not likely to be there yet."""
    descriptor = os.open(nothing, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        os.truncate(descriptor, NOTHING)
        start, buffer = random.randrange(NOTHING // 2), bytearray(BLOCK)
        for number in range(max(0, _free() - LEFT) // BLOCK):
            os.preadv(descriptor, [buffer], start + number * BLOCK)
    finally:
        os.close(descriptor)


def _free() -> int:
    lines = Path("/proc/meminfo").read_text("ascii").splitlines()
    return int(dict(line.split(":") for line in lines)["MemFree"].split()[0]) << 10
