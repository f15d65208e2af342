"""What a device's settings are made of, before anybody has made sense of them.

Most checks find nothing new. All they have to know of the settings is that they are those of the
last time: reading the file tells, parsing it would take longer than the request.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from modelward import plain_file

FILE = "modelward.toml"
CAP = 1 << 20  # bytes of it
DEFAULT_STATE = Path("/var/lib/modelward")
STATE_VARIABLE = "MODELWARD_STATE"
_VARIABLES = "MODELWARD_"


def state_directory(flag: str | None, environment: Mapping[str, str]) -> Path:
    """Return the state directory that flag, environment or default name."""
    return Path(flag or environment.get(STATE_VARIABLE) or DEFAULT_STATE)


def read(state: Path) -> bytes:
    """Return what is in the file.

    Raises:
        OSError: It cannot be read, is no regular file, or is too long for one of settings.
    """
    return plain_file.read(state / FILE, CAP)


def fingerprint(
    file: bytes, environment: Mapping[str, str], flags: Mapping[str, str | None]
) -> str:
    """Return a digest that changes whenever any setting may have.

    Args:
        file: Content of `FILE`.
        environment: The process's environment.
        flags: Settings by name that the command line overrides; None where it does not.
    """
    variables = {
        name: value
        for name, value in environment.items()
        if name.startswith(_VARIABLES) and name != STATE_VARIABLE
    }
    given = {name: value for name, value in flags.items() if value is not None}
    return _digest([hashlib.sha256(file).hexdigest(), variables, given])


def asked(fingerprint: str, models: Sequence[str]) -> str:
    """Return a digest of everything on which an answer depends but the repository.

    Args:
        fingerprint: That of the settings.
        models: The models that are asked for; empty for those configured.
    """
    return _digest([fingerprint, sorted(models)])


def _digest(value: object) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
