"""A unit for systemd that runs the daemon, confined to what it needs."""

import os
import sys
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path

from modelward.errors import UsageError
from modelward.install.owner import owner_of

SERVICE = "modelward.service"
SHARED = (Path("/tmp"), Path("/var/tmp"))  # noqa: S108 - what PrivateTmp hides


def unit(state: Path) -> str:
    """Return the text of the unit that keeps a device up to date.

    Raises:
        UsageError: The path cannot be written in a unit, or does not exist.
    """
    place = state.resolve()
    if not place.is_dir():
        raise UsageError(f"{place} does not exist", "the unit is made where it will run")
    program = command("modelward")
    line = " ".join(map(argument, (*program, "run", "--state", str(place))))
    hidden = any(is_shared(path) for path in (place, Path(program[0])))
    values = {
        "user": owner_of(place),
        "command": line,
        "state": quoted(place),
        "private_tmp": "no" if hidden else "yes",
    }
    return fill((files(__name__) / SERVICE).read_text("utf-8"), values)


def command(name: str) -> list[str]:
    """Return how the program of that name, which is this one, is started."""
    script = Path(sys.argv[0])
    if script.name == name and os.access(script, os.X_OK):
        return [str(script.absolute())]
    return [sys.executable, "-m", name.replace("-", "_")]


def is_shared(path: Path) -> bool:
    """Tell whether a path is where PrivateTmp would hide it."""
    return any(path.is_relative_to(shared) for shared in SHARED)


def fill(text: str, values: Mapping[str, str]) -> str:
    """Return a unit with values put in for ``@name@``."""
    for field, value in values.items():
        text = text.replace(f"@{field}@", value)
    return text


def plain(path: Path | str) -> str:
    """Return a text with systemd's specifiers escaped.

    Raises:
        UsageError: It has a character that could end the line or the setting.
    """
    text = str(path)
    if not text.isprintable():
        raise UsageError(f"{text!r} cannot stand in a unit file", "choose a path without it")
    return text.replace("%", "%%")


def quoted(path: Path | str) -> str:
    """Return a text in quotes (systemd.syntax(7))."""
    escaped = plain(path).replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def argument(text: str) -> str:
    """Return an argument of a command line (systemd.service(5), COMMAND LINES)."""
    return quoted(text).replace("$", "$$")
