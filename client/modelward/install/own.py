"""Where a user keeps what it may not write into the state directory that it reads."""

import hashlib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

# Variables of the environment, and the folder below what they name; the first that is set counts.
RUNTIME = (
    ("RUNTIME_DIRECTORY", "modelward"),
    ("XDG_RUNTIME_DIR", "modelward"),
    ("XDG_CACHE_HOME", "modelward"),
    ("HOME", ".cache/modelward"),
)
LASTING = (
    ("STATE_DIRECTORY", "modelward"),
    ("XDG_STATE_HOME", "modelward"),
    ("HOME", ".local/state/modelward"),
)


def own_folder(
    state: Path, environment: Mapping[str, str], variables: Sequence[tuple[str, str]]
) -> Path | None:
    """Return this user's own folder for a state directory, or None if it has no home at all.

    Args:
        state: The state directory.
        environment: The process's environment.
        variables: `RUNTIME` for what the next boot need not find again, or `LASTING`.
    """
    name = hashlib.sha256(os.fsencode(state.resolve())).hexdigest()[:16]
    for variable, below in variables:
        value = environment.get(variable, "").partition(":")[0]
        if value.startswith("/"):
            return Path(value, below, name)
    return None
