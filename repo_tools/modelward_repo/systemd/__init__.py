"""Units for systemd: what keeps a repository fresh without anybody thinking of it."""

import os
import pwd
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from modelward.errors import UsageError

SERVICE = "modelward-refresh.service"
TIMER = "modelward-refresh.timer"
CREDENTIAL = "passphrase"
_SHARED = (Path("/tmp"), Path("/var/tmp"))  # noqa: S108 - what PrivateTmp hides


@dataclass(frozen=True)
class Place:
    """What the units are made for.

    Attributes:
        repository: The repository.
        keys: Folder of holders with the keys that are online.
        passphrase_file: Where the keys' passphrase lies, readable by root only; or None.
        roles: Roles to renew beside snapshot and timestamp.
    """

    repository: Path
    keys: Path
    passphrase_file: Path | None = None
    roles: Sequence[str] = ()


def units(place: Place) -> dict[str, str]:
    """Return the units' texts by file name.

    Raises:
        UsageError: A path cannot be written in a unit, or does not exist.
    """
    repository, keys = place.repository.resolve(), place.keys.resolve()
    secret = place.passphrase_file.resolve() if place.passphrase_file else None
    for path in (repository, keys, *([secret] if secret else [])):
        if not path.exists():
            raise UsageError(f"{path} does not exist", "the units are made where they will run")
    command = [*program(), "refresh", "--due", *place.roles, "--repository", str(repository)]
    line = " ".join(map(_argument, (*command, "--keys", str(keys))))
    credential = ""
    if secret:
        # The service's user need not be able to read the file: systemd hands it over.
        line += f" --passphrase-file %d/{CREDENTIAL}"
        credential = f"LoadCredential={CREDENTIAL}:{_plain(secret)}\n"
    needed = (repository, keys, Path(program()[0]))
    hidden = any(path.is_relative_to(shared) for shared in _SHARED for path in needed)
    values = {
        "user": _owner(repository),
        "command": line,
        "credential": credential,
        "repository": _quoted(repository),
        "keys": _quoted(keys),
        "private_tmp": "no" if hidden else "yes",
    }
    return {name: _fill(name, values) for name in (SERVICE, TIMER)}


def program() -> list[str]:
    """Return how this program is started."""
    script = Path(sys.argv[0])
    if script.name == "modelward-repo" and os.access(script, os.X_OK):
        return [str(script.absolute())]
    return [sys.executable, "-m", "modelward_repo"]


def _fill(name: str, values: dict[str, str]) -> str:
    text = (files(__name__) / name).read_text("utf-8")
    for field, value in values.items():
        text = text.replace(f"@{field}@", value)
    return text


def _owner(path: Path) -> str:
    """Return the user who owns a repository: only they can write there."""
    uid = path.stat().st_uid
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def _plain(path: Path | str) -> str:
    """Return a text with systemd's specifiers escaped.

    Raises:
        UsageError: It has a character that could end the line or the setting.
    """
    text = str(path)
    if not text.isprintable():
        raise UsageError(f"{text!r} cannot stand in a unit file", "choose a path without it")
    return text.replace("%", "%%")


def _quoted(path: Path | str) -> str:
    """Return a text in quotes (systemd.syntax(7))."""
    escaped = _plain(path).replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def _argument(text: str) -> str:
    """Return an argument of a command line (systemd.service(5), COMMAND LINES)."""
    return _quoted(text).replace("$", "$$")
