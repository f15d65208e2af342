"""How the last update ended, for `modelward status`. Not trusted by anything."""

import json
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from modelward.formats import strict
from modelward.install import fsops
from modelward.install.opened import read_file
from modelward.install.owner import is_owner

FILE = "last.json"
CAP = 16 << 20  # bytes


def write(state: Path, time: datetime, result: Mapping[str, Any]) -> None:
    """Note how an update ended, unless it did because this is not the owner of the directory."""
    if is_owner(state):
        fsops.write_file(state / FILE, strict.dump({"time": strict.rfc3339(time), **result}))


def read(state: Path) -> dict[str, Any] | None:
    """Return how the last update ended, or None."""
    try:
        value = json.loads(read_file(state / FILE, CAP))
    except (OSError, ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) and "time" in value and "outcome" in value else None
