"""What tests look at in this process, and how they wait for what happens beside them."""

import time
from collections.abc import Callable
from pathlib import Path

PATIENCE = 60.0  # seconds: only a test that fails waits as long


def until(holds: Callable[[], bool]) -> bool:
    """Wait until something holds; tell whether it does."""
    deadline = time.monotonic() + PATIENCE
    while not holds():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


def open_files() -> int:
    """Return how many descriptors this process has open, and one for the looking."""
    return len(list(Path("/proc/self/fd").iterdir()))
