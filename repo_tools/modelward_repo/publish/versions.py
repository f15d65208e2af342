"""Which versions of metadata were ever written: none is used twice for other content."""

import re
from collections.abc import Mapping

from modelward_repo.storage import Storage

_VERSIONED = re.compile(r"metadata/([1-9][0-9]*)\.(.+)\.json")


def last(storage: Storage) -> dict[str, int]:
    """Return the highest version of each role that was ever written."""
    return {role: max(versions) for role, versions in _written(storage).items()}


def last_taken(storage: Storage, listed: Mapping[str, int]) -> dict[str, int]:
    """Return per role the version before the next free one.

    A killed publisher may have left a file of the next version, and a cache may have seen it. But
    those far above, which a thief may have signed before the keys were replaced, do not make later
    ones impossible.

    Args:
        storage: The repository.
        listed: The version of each role that is in force.
    """
    taken = {}
    for role, versions in _written(storage).items():
        version = listed.get(role, 0)
        while version + 1 in versions:
            version += 1
        taken[role] = version
    return taken


def _written(storage: Storage) -> dict[str, set[int]]:
    versions: dict[str, set[int]] = {}
    for path in storage.list("metadata"):
        if match := _VERSIONED.fullmatch(path):
            versions.setdefault(match[2], set()).add(int(match[1]))
    return versions
