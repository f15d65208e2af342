"""Slots and generations: what is installed, and the one switch that makes it so.

::

    slots/<model>/<first 16 digits of release.json's digest>/   files of one release, read-only
    generations/<n>/installed.json                              what generation n consists of
    generations/<n>/<model> -> ../../slots/<model>/<slot>
    current -> generations/<n>                                  the only thing that is switched

All models of a device switch together or not at all: a generation is made aside and becomes
current in one rename. Slots of the previous release of every model are kept.
"""

import hashlib
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from modelward.errors import FormatError, Gate, Refused
from modelward.formats import strict
from modelward.formats.names import check_name, check_version
from modelward.formats.release import Release
from modelward.install import fsops
from modelward.install.store import Store, sha256_of

DOCUMENT = "installed.json"
SCHEMA = "modelward/installed/1"
CAP = 16 << 20
SLOT_DIGITS = 16


@dataclass(frozen=True)
class Slot:
    """One installed release.

    Attributes:
        version: Its version.
        counter: Its counter.
        sha256: Digest of its release.json, which names every file by digest.
    """

    version: str
    counter: int
    sha256: str

    @property
    def name(self) -> str:
        """The slot's directory name."""
        return self.sha256[:SLOT_DIGITS]


@dataclass(frozen=True)
class Installed:
    """What a generation consists of.

    Attributes:
        number: The generation; 0 before anything was installed.
        active: Per model, the slot in use.
        previous: Per model, the slot to fall back to, where there is one.
    """

    number: int = 0
    active: Mapping[str, Slot] = field(default_factory=dict)
    previous: Mapping[str, Slot] = field(default_factory=dict)

    @classmethod
    def parse(cls, data: bytes) -> "Installed":
        """Parse installed.json.

        Raises:
            FormatError: It is ill-formed.
        """
        fields = strict.Fields(DOCUMENT, strict.load(DOCUMENT, data, CAP))
        fields.schema(SCHEMA)
        return cls(
            number=fields.integer("generation"),
            active=_slots(fields.fields("active")),
            previous=_slots(fields.fields("previous")),
        )

    def to_bytes(self) -> bytes:
        """Return the document."""
        return strict.dump(
            {
                "schema": SCHEMA,
                "generation": self.number,
                "active": {model: _slot_dict(slot) for model, slot in self.active.items()},
                "previous": {model: _slot_dict(slot) for model, slot in self.previous.items()},
            }
        )

    def with_releases(self, releases: Mapping[str, Slot]) -> "Installed":
        """Return the next generation, in which these models run these slots."""
        active = dict(self.active)
        previous = dict(self.previous)
        for model, slot in releases.items():
            if model in active and active[model] != slot:
                previous[model] = active[model]
            active[model] = slot
        return Installed(self.number + 1, active, previous)


class Slots:
    """The installed releases of one device.

    Args:
        root: The state directory.
        store: The blobs.
    """

    def __init__(self, root: Path, store: Store) -> None:
        self._root = root
        self._store = store

    def installed(self) -> Installed:
        """Return the current generation.

        Raises:
            Refused: It cannot be read: the state directory was tampered with.
        """
        path = self._root / "current" / DOCUMENT
        try:
            return Installed.parse(path.read_bytes())
        except FileNotFoundError:
            if (self._root / "current").is_symlink():
                raise _damaged(path, "is missing") from None
            return Installed()
        except (OSError, FormatError) as error:
            raise _damaged(path, str(error)) from error

    def directory(self, model: str, slot: Slot) -> Path:
        """Return a slot's directory."""
        return self._root / "slots" / model / slot.name

    def release(self, model: str, slot: Slot) -> tuple[Release, bytes]:
        """Return the release of a slot and its document, checked against the slot's digest.

        Raises:
            Refused: The document is missing or was tampered with.
        """
        path = self.directory(model, slot) / "release.json"
        try:
            data = path.read_bytes()
            if hashlib.sha256(data).hexdigest() != slot.sha256:
                raise _damaged(path, "is not the document that was installed")
            return Release.parse(data), data
        except (OSError, FormatError) as error:
            raise _damaged(path, str(error)) from error

    def stage(self, release: Release, document: bytes, evidence: Mapping[str, bytes]) -> Slot:
        """Make the slot of a release whose blobs are all in the store.

        Args:
            release: The release.
            document: Its release.json as signed.
            evidence: Small documents to keep beside it, by file name, for `explain`.
        """
        slot = Slot(release.version, release.counter, hashlib.sha256(document).hexdigest())
        place = self.directory(release.model, slot)
        if place.is_dir():
            return slot
        fsops.make_directory(place.parent)
        aside = place.with_name(f".tmp-{slot.name}")
        fsops.remove(aside)
        folders = {aside, aside / "files"}
        fsops.make_directory(aside / "files")
        for file in release.files:
            target = aside / "files" / file.path
            for parent in reversed(target.relative_to(aside).parents[:-1]):
                folders.add(aside / parent)
            fsops.make_directory(target.parent)
            fsops.link(self._store.path(file.blob.sha256), target)
        for name, data in {"release.json": document, **evidence}.items():
            fsops.write_file(aside / name, data, 0o444)
        for folder in sorted(folders, reverse=True):
            fsops.sync_directory(folder)
        fsops.rename(aside, place)
        return slot

    def problems(self, model: str, slot: Slot) -> Iterator[tuple[str, str]]:
        """Hash every file of a slot; yield the path and problem of each that is not as it was.

        Raises:
            Refused: The slot's own document is damaged.
        """
        release, _ = self.release(model, slot)
        folder = self.directory(model, slot) / "files"
        for file in release.files:
            try:
                with open_file(folder, file.path) as opened:
                    if sha256_of(opened.fileno()) != file.blob.sha256:
                        yield file.path, "is not the file that was approved"
            except OSError as error:
                yield file.path, f"cannot be read: {error.strerror}"
        known = {file.path for file in release.files}
        for path in sorted(folder.rglob("*")):
            name = str(path.relative_to(folder))
            if (path.is_symlink() or not path.is_dir()) and name not in known:
                yield name, "does not belong to the release"

    def discard(self, model: str, slot: Slot) -> None:
        """Remove a staged slot and its blobs that are not intact, so that they are fetched anew."""
        release, _ = self.release(model, slot)
        fsops.remove(self.directory(model, slot))
        for file in release.files:
            if not self._store.is_intact(file.blob):
                self._store.remove(file.blob.sha256)

    def switch(self, releases: Mapping[str, Slot]) -> Installed:
        """Make these slots the running ones, all at once."""
        following = self.installed().with_releases(releases)
        place = self._root / "generations" / str(following.number)
        fsops.make_directory(place.parent)
        fsops.remove(place)  # of an update that was cut short before it switched
        fsops.make_directory(place)
        for model, slot in following.active.items():
            fsops.symlink(place / model, f"../../slots/{model}/{slot.name}/files")
        fsops.write_file(place / DOCUMENT, following.to_bytes(), 0o444)
        fsops.switch(self._root / "current", f"generations/{following.number}")
        return following

    def collect(self, keep_blobs: Sequence[str] = ()) -> None:
        """Remove slots, generations and blobs that neither run nor are to fall back to."""
        installed = self.installed()
        kept = [(model, slot) for kind in (installed.active, installed.previous)
                for model, slot in kind.items()]  # fmt: skip
        names = {f"{model}/{slot.name}" for model, slot in kept}
        for path in sorted((self._root / "slots").glob("*/*")):
            if f"{path.parent.name}/{path.name}" not in names:
                fsops.remove(path)
        for path in (self._root / "generations").glob("*"):
            if path.name != str(installed.number):
                fsops.remove(path)
        wanted = set(keep_blobs)
        try:
            for model, slot in kept:
                wanted.update(file.blob.sha256 for file in self.release(model, slot)[0].files)
        except Refused:
            # Which blobs a damaged slot needs is not known: keep them all. Its damage must not
            # make an update fail that has already switched.
            return
        for digest in tuple(self._store.digests()):
            if digest not in wanted:
                self._store.remove(digest)

    def sweep(self) -> None:
        """Remove what an interrupted update left behind.

        Raises:
            Refused: What is installed cannot be read; see `installed`.
        """
        self._store.sweep()
        fsops.sweep(self._root)
        for path in (self._root / "slots").glob("*/.tmp-*"):
            fsops.remove(path)
        number = self.installed().number
        for path in (self._root / "generations").glob("*"):
            if path.name.isdecimal() and int(path.name) > number:
                fsops.remove(path)


def open_file(folder: Path, path: str) -> BinaryIO:
    """Open a file of a slot for reading; a symbolic link anywhere in its path is not followed."""
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC
    *parents, name = path.split("/")
    descriptor = os.open(folder, flags | os.O_DIRECTORY)
    try:
        for part in parents:
            inner = os.open(part, flags | os.O_DIRECTORY, dir_fd=descriptor)
            os.close(descriptor)
            descriptor = inner
        opened = os.open(name, flags | os.O_NONBLOCK, dir_fd=descriptor)
        try:
            return os.fdopen(opened, "rb")
        except OSError:  # a directory
            os.close(opened)
            raise
    finally:
        os.close(descriptor)


def _damaged(path: Path, problem: str) -> Refused:
    return Refused(
        Gate.INSTALL,
        f"the state directory is damaged: {path}: {problem}",
        "run `modelward verify`; if it cannot be mended, set the device up again",
    )


def _slots(fields: strict.Fields) -> dict[str, Slot]:
    found = {}
    for model in fields.raw:
        slot = fields.fields(model)
        try:
            check_name(model)  # it becomes a directory
        except ValueError as error:
            raise fields.wrong(model, str(error)) from error
        found[model] = Slot(
            slot.checked("version", check_version), slot.integer("counter"), slot.sha256("release")
        )
    return found


def _slot_dict(slot: Slot) -> dict[str, object]:
    return {"version": slot.version, "counter": slot.counter, "release": slot.sha256}
