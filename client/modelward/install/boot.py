"""Which boot of the machine this is."""

from pathlib import Path

_ID = Path("/proc/sys/kernel/random/boot_id")


def boot_id() -> str:
    """Return what tells this boot of the machine from any other; empty if nothing does."""
    try:
        return _ID.read_text("ascii").strip()
    except OSError:
        return ""
