"""When the daemon last read everything again. Not trusted by anything but its own patience."""

import json
from pathlib import Path

from modelward.formats import strict
from modelward.install import fsops
from modelward.install.opened import read_file

FILE = "scanned.json"
_CAP = 4096  # bytes


def write(state: Path, boot: str, at: float) -> None:
    """Note that everything was read.

    Args:
        state: The state directory.
        boot: What tells this boot of the device from another.
        at: Seconds since then.
    """
    fsops.write_file(state / FILE, strict.dump({"boot": boot, "at": at}))


def age(state: Path, boot: str, now: float) -> float:
    """Return how many seconds ago everything was read in this boot; endless if it was not.

    Args:
        state: The state directory.
        boot: What tells this boot of the device from another.
        now: Seconds since then.
    """
    try:
        noted = json.loads(read_file(state / FILE, _CAP))
        passed = now - float(noted["at"])
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return float("inf")
    return passed if noted["boot"] == boot and passed >= 0 else float("inf")
