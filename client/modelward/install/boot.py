"""Which boot of the machine this is, and for how long it has lasted."""

import time
from pathlib import Path

_ID = Path("/proc/sys/kernel/random/boot_id")


def boot_id() -> str:
    """Return what tells this boot of the machine from any other; empty if nothing does."""
    try:
        return _ID.read_text("ascii").strip()
    except OSError:
        return ""


def uptime() -> int:
    """Return seconds since boot, which nobody can set; those while suspended count."""
    return int(time.clock_gettime(time.CLOCK_BOOTTIME))
