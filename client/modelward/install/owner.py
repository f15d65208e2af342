"""Whose a state directory is. Its owner updates it; everybody else, root too, only reads.

What root wrote there the owner could not read, which is how floors got lost; and `modelward.toml`,
which the owner writes, names a command to run.
"""

import os
import pwd
from pathlib import Path

from modelward.errors import Gate, UsageError


def is_owner(directory: Path) -> bool:
    """Tell whether this process runs as the user who owns a directory."""
    return directory.stat().st_uid == os.geteuid()


def check_owner(directory: Path) -> None:
    """Let only the user who owns a state directory, or a folder of it, go on.

    Raises:
        UsageError: This process runs as somebody else.
        OSError: There is no such directory.
    """
    if is_owner(directory):
        return
    owner, me = owner_of(directory), name_of(os.geteuid())
    raise UsageError(
        f"{directory} belongs to {owner}, and this runs as {me}: only its owner may write there",
        f"run it as {owner}: sudo -u {_quoted(owner)} modelward ...; or, if {me} is to update this "
        f"device from now on, chown -R {me} the state directory",
        Gate.RECOVER,
    )


def owner_of(path: Path) -> str:
    """Return the name of the user who owns a file or directory, or their number."""
    return name_of(path.stat().st_uid)


def name_of(user: int) -> str:
    """Return the name of a user, or the number of one who has none."""
    try:
        return pwd.getpwuid(user).pw_name
    except KeyError:
        return str(user)


def _quoted(user: str) -> str:
    """Return a user as sudo takes it: a number needs a sign before it."""
    return f"'#{user}'" if user.isdecimal() else user
