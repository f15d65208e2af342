"""Units for systemd: what keeps a repository fresh without anybody thinking of it."""

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from modelward.errors import UsageError
from modelward.install.owner import owner_of
from modelward.systemd import argument, command, fill, is_shared, plain, quoted

SERVICE = "modelward-refresh.service"
TIMER = "modelward-refresh.timer"
CREDENTIAL = "passphrase"


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
    program = command("modelward-repo")
    words = [*program, "refresh", "--due", *place.roles, "--repository", str(repository)]
    line = " ".join(map(argument, (*words, "--keys", str(keys))))
    credential = ""
    if secret:
        # The service's user need not be able to read the file: systemd hands it over.
        line += f" --passphrase-file %d/{CREDENTIAL}"
        credential = f"LoadCredential={CREDENTIAL}:{plain(secret)}\n"
    hidden = any(map(is_shared, (repository, keys, Path(program[0]))))
    values = {
        "user": owner_of(repository),
        "command": line,
        "credential": credential,
        "repository": quoted(repository),
        "keys": quoted(keys),
        "private_tmp": "no" if hidden else "yes",
    }
    return {name: _fill(name, values) for name in (SERVICE, TIMER)}


def _fill(name: str, values: dict[str, str]) -> str:
    return fill((files(__name__) / name).read_text("utf-8"), values)
