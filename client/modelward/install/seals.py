"""Seals on disk: where they are kept, and whose are believed.

A seal is believed if it was written by whoever might have written the model itself: the owner of
the state directory, root, or this very user. Whoever can forge one could have done worse.
"""

import contextlib
import os
import stat
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from modelward.errors import FormatError
from modelward.formats.seal import CAP, Seal
from modelward.install import fsops
from modelward.install.opened import Folder
from modelward.install.own import RUNTIME, own_folder

FOLDER = "seals"
_OTHERS = stat.S_IWGRP | stat.S_IWOTH


@dataclass(frozen=True)
class Place:
    """A folder of seals.

    Attributes:
        folder: Where.
        owners: User ids whose seals there are believed.
        mode: With which this process makes it, to keep its own there; None if it must not.
    """

    folder: Path
    owners: frozenset[int]
    mode: int | None


def places(state: Path, environment: Mapping[str, str], user: int) -> tuple[Place, ...]:
    """Return the places of seals: the state directory's and, for another user, their own.

    Args:
        state: The state directory.
        environment: The process's environment.
        user: Id of the user it runs as.
    """
    owner = state.stat().st_uid
    shared = Place(state / FOLDER, frozenset((owner, 0)), 0o755 if user == owner else None)
    own = own_folder(state, environment, RUNTIME)
    if user == owner or own is None:
        return (shared,)
    return (shared, Place(own / FOLDER, frozenset((user,)), 0o700))


@dataclass(frozen=True)
class Seals:
    """The seals of one device, as one process sees them.

    Attributes:
        places: Where they are.
        boot: Which boot this is; empty to believe none of the looks.
    """

    places: tuple[Place, ...]
    boot: str

    def load(self, release: str) -> Seal:
        """Return what is known of a slot; an empty seal if nothing is.

        Args:
            release: Digest of the slot's release.json.
        """
        for place in self.places:
            with contextlib.suppress(OSError, FormatError, ValueError):
                seal = Seal.parse(_read(place, f"{release}.json"))
                if seal.release == release:
                    return seal if seal.boot == self.boot else seal._replace(looks={})
        return Seal(release, self.boot, {}, {})

    def save(self, seal: Seal, installed: Iterable[str]) -> None:
        """Keep what is known of a slot, if there is anywhere to keep it.

        Args:
            seal: What is known.
            installed: Digests of all releases that are installed: other seals are dropped.
        """
        kept = {f"{release}.json" for release in installed}
        for place in self.places:
            if place.mode is None:
                continue
            with contextlib.suppress(OSError):
                fsops.make_directory(place.folder, place.mode)
                fsops.write_file(place.folder / f"{seal.release}.json", seal.to_bytes())
                for path in place.folder.glob("*.json"):
                    if path.name not in kept:
                        fsops.remove(path)


def _read(place: Place, name: str) -> bytes:
    """Return a seal that only somebody who is believed can have written.

    Raises:
        OSError: There is none.
        ValueError: Others might have written it.
    """
    folder = place.folder.lstat()
    if folder.st_uid not in place.owners or folder.st_mode & _OTHERS:
        raise ValueError("others may write there")
    with Folder(place.folder) as opened:
        descriptor = opened.open(name)
        with os.fdopen(descriptor, "rb") as file:
            status = os.fstat(descriptor)
            if status.st_uid not in place.owners or status.st_mode & _OTHERS:
                raise ValueError("others may have written it")
            return file.read(CAP + 1)
