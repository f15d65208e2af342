"""Is everything on this device as it was approved? Everything is read again; nothing is changed."""

import contextlib
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

from tuf.api.exceptions import RepositoryError
from tuf.api.metadata import Metadata

from modelward import proof
from modelward.device import Device
from modelward.errors import FormatError, Gate, Refused, UsageError
from modelward.formats.floors import Floors
from modelward.formats.installed import Installed, Slot
from modelward.formats.journal import Journal
from modelward.formats.log_state import LogState
from modelward.install import floors, hashing, journal, log_state
from modelward.install.hashing import Progress
from modelward.install.opened import Folder, files_below, look, problem_of
from modelward.install.owner import is_owner
from modelward.trust.repository import check_root


class Part(StrEnum):
    """What a device keeps."""

    GENERATION = "generation"
    SLOT = "slot"
    BLOB = "blob"
    FLOORS = "floors"
    LOG = "log"
    JOURNAL = "journal"
    METADATA = "metadata"
    ROOT = "root"


@dataclass(frozen=True)
class Damage:
    """One thing that is not as it was.

    Attributes:
        part: What it is a part of.
        path: Where: inside the release if it is one of a slot, else inside the state directory.
        problem: What is wrong with it.
        model: The model of a slot, else None.
        slot: The slot, else None.
    """

    part: Part
    path: str
    problem: str
    model: str | None = None
    slot: Slot | None = None

    def to_dict(self) -> dict[str, str | None]:
        """Return it as a JSON object."""
        return {
            "part": self.part.value,
            "model": self.model,
            "version": self.slot.version if self.slot else None,
            "path": self.path,
            "problem": self.problem,
        }


@dataclass(frozen=True)
class Scanned:
    """What a scan found.

    Attributes:
        slots: Every slot that was examined, with its model.
        damage: All that is not as it was.
        intact: Where an intact copy of each blob is.
    """

    slots: tuple[tuple[str, Slot], ...]
    damage: tuple[Damage, ...]
    intact: Mapping[str, Path] = field(default_factory=dict)

    def is_intact(self, model: str, slot: Slot) -> bool:
        """Tell whether nothing of a slot is damaged."""
        return not any((found.model, found.slot) == (model, slot) for found in self.damage)

    def to_dict(self) -> dict[str, Any]:
        """Return it as a JSON object."""
        return {
            "outcome": "damaged" if self.damage else "intact",
            "checked": [
                {"model": model, "version": slot.version, "intact": self.is_intact(model, slot)}
                for model, slot in self.slots
            ],
            "problems": [damage.to_dict() for damage in self.damage],
        }


def scan(device: Device, models: Sequence[str], progress: Progress) -> Scanned:
    """Read again everything that a device keeps.

    Args:
        device: The device.
        models: The models to examine; empty for all of them, and everything else that is kept.
        progress: Told of the bytes that are hashed.

    Raises:
        UsageError: A model is not installed.
        Refused: What is installed cannot be read.
    """
    while True:
        installed = installed_on(device)
        for model in models:
            if model not in installed.active:
                raise UsageError(f"no model {model!r} is installed", "see `modelward status`")
        kept = kept_slots(device, installed)
        found = _scan(device, installed, kept, models, progress)
        # An update that came between, or the end of a trial, moved things and damaged nothing.
        if not found.damage:
            return found
        now = installed_on(device)
        if (now, kept_slots(device, now)) == (installed, kept):
            return found


def _scan(
    device: Device,
    installed: Installed,
    kept: Sequence[tuple[str, Slot]],
    models: Sequence[str],
    progress: Progress,
) -> Scanned:
    slots = tuple((model, slot) for model, slot in kept if not models or model in models)
    reader = _Reader(device.config.state, progress)
    if not models:
        reader.expect(device.store.path(digest) for digest in device.store.digests())
    reader.expect(
        path
        for model, slot in slots
        for path in files_below(device.slots.directory(model, slot) / "files")
    )
    damage = [found for model, slot in slots for found in _slot_damage(device, model, slot, reader)]
    if not models:
        damage += _blob_damage(device, slots, reader)
        damage += _generation_damage(device, installed)
        damage += _file_damage(device)
    return Scanned(slots, tuple(damage), reader.intact)


def installed_on(device: Device) -> Installed:
    """Return what is installed.

    Raises:
        Refused: It cannot be read; or nothing is, though the floors know that something was.
    """
    installed = device.trials.installed()
    if not installed.number and device.floors.load().releases:
        raise Refused(
            Gate.INSTALL,
            "the state directory is damaged: nothing is left of the releases that were installed",
            "run `modelward update`: it installs anew what is not older",
        )
    return installed


def kept_slots(device: Device, installed: Installed) -> tuple[tuple[str, Slot], ...]:
    """Return every slot that runs, or is kept to go back to, the running ones first."""
    found = dict.fromkeys(installed.slots())
    trial = device.trials.journal.trial
    if trial is not None and trial.good != installed.number:
        with contextlib.suppress(Refused):  # what it fell back to is kept by the current one, too
            found |= dict.fromkeys(device.slots.generation(trial.good).slots())
    return tuple(found)


class _Reader:
    """Hashes files below a folder, each once, however many names it has."""

    def __init__(self, root: Path, progress: Progress) -> None:
        self._root = root
        self._progress = progress
        self._digests: dict[tuple[int, int], str] = {}
        self._expected: set[tuple[int, int]] = set()
        self._total = 0
        self._done = 0
        self.intact: dict[str, Path] = {}

    def expect(self, paths: Iterable[Path]) -> None:
        """Count files that are going to be hashed, so that there is an end to progress."""
        for path in paths:
            with contextlib.suppress(OSError):
                status = path.lstat()
                key = status.st_dev, status.st_ino
                if key not in self._expected:
                    self._expected.add(key)
                    self._total += status.st_size

    def digest(self, path: str) -> str:
        """Return the digest of a file.

        Raises:
            OSError: It cannot be read, or is no regular file.
        """
        with Folder(self._root) as folder:
            descriptor = folder.open(path)
        try:
            key = look(descriptor)[:2]
            if key not in self._digests:
                self._digests[key] = hashing.sha256_of(descriptor, self._hashed)
        finally:
            os.close(descriptor)
        return self._digests[key]

    def found(self, digest: str, path: str) -> None:
        """Note where an intact copy is."""
        self.intact.setdefault(digest, self._root / path)

    def _hashed(self, count: int) -> None:
        self._done += count
        self._progress(self._done, self._total)


def _slot_damage(device: Device, model: str, slot: Slot, reader: _Reader) -> Iterable[Damage]:
    def damaged(path: str, problem: str) -> Damage:
        return Damage(Part.SLOT, path, problem, model, slot)

    try:
        release, _ = device.slots.release(model, slot)
        proof.of(device, model, slot)
    except Refused as error:
        if isinstance(error.__cause__, OSError):
            problem_of(error.__cause__)
        yield damaged("proof", error.reason)
        return
    place = f"slots/{model}/{slot.name}/files"
    for file in release.files:
        path = f"{place}/{file.path}"
        try:
            if reader.digest(path) == file.blob.sha256:
                reader.found(file.blob.sha256, path)
            else:
                yield damaged(file.path, "is not the file that was approved")
        except OSError as error:
            yield damaged(file.path, problem_of(error))
    folder = device.config.state / place
    known = {file.path for file in release.files}
    unread: list[OSError] = []
    for found in sorted(files_below(folder, unread.append)):
        name = str(found.relative_to(folder))
        if name not in known:
            yield damaged(name, "does not belong to the release")
    for each in unread:
        yield damaged(os.path.relpath(each.filename, folder), problem_of(each))


def _blob_damage(
    device: Device, slots: Iterable[tuple[str, Slot]], reader: _Reader
) -> Iterable[Damage]:
    here = set()
    for digest in device.store.digests():
        path = str(device.store.path(digest).relative_to(device.config.state))
        here.add(digest)
        try:
            if reader.digest(path) == digest:
                reader.found(digest, path)
                continue
            problem = "is not what its name says"
        except FileNotFoundError:  # nothing needed it any more; or it is found missing below
            here.remove(digest)
            continue
        except OSError as error:
            problem = problem_of(error)
        yield Damage(Part.BLOB, path, problem)
    for model, slot in slots:
        try:
            release, _ = device.slots.release(model, slot)
        except Refused:
            continue  # the slot is reported as damaged
        for file in release.files:
            if file.blob.sha256 not in here:
                here.add(file.blob.sha256)
                place = device.store.path(file.blob.sha256)
                name = str(place.relative_to(device.config.state))
                yield Damage(Part.BLOB, name, "is missing")


def _generation_damage(device: Device, installed: Installed) -> Iterable[Damage]:
    """Check the links that programs use now, and those that they would if a trial failed."""
    yield from _link_damage(device, installed)
    trial = device.trials.journal.trial
    if trial is None or trial.good == installed.number:
        return
    try:
        yield from _link_damage(device, device.slots.generation(trial.good))
    except Refused as error:
        yield Damage(Part.GENERATION, f"generations/{trial.good}", error.reason)


def _link_damage(device: Device, installed: Installed) -> Iterable[Damage]:
    place = device.config.state / "generations" / str(installed.number)
    for model, slot in installed.active.items():
        link = place / model
        target = f"../../slots/{model}/{slot.name}/files"
        if not link.is_symlink() or str(link.readlink()) != target:
            name = str(link.relative_to(device.config.state))
            yield Damage(Part.GENERATION, name, f"does not lead to {model} {slot.version}")


def _file_damage(device: Device) -> Iterable[Damage]:
    """Check the small files, each by its own parser."""
    state = device.config.state
    some = bool(device.slots.installed().number)
    groups: tuple[tuple[Part, Sequence[str], Callable[[bytes], object], bool], ...] = (
        (Part.FLOORS, floors.COPIES, Floors.parse, some),
        (Part.LOG, log_state.COPIES, LogState.parse, False),
        (Part.JOURNAL, (journal.FILE,), Journal.parse, False),
        (Part.ROOT, ("root.json",), check_root, True),
        (Part.METADATA, _metadata(state), Metadata.from_bytes, True),
    )
    for part, names, parse, required in groups:
        is_kept = required or any(os.path.lexists(state / name) for name in names)
        for name in names if is_kept else ():
            if part is Part.METADATA and not os.path.lexists(state / name):
                continue  # an update removed it since it was listed
            problem = _problem(state, name, parse)
            if problem:
                yield Damage(part, name, problem)


def _metadata(state: Path) -> list[str]:
    found = (*(state / "tuf").glob("*.json"), *(state / "tuf/root_history").glob("*.json"))
    return sorted(str(path.relative_to(state)) for path in found)


def _problem(state: Path, name: str, parse: Callable[[bytes], object]) -> str | None:
    """Return what is wrong with a small file, or None."""
    path = state / name
    try:
        with Folder(path.resolve().parent) as folder:
            parse(folder.read(path.resolve().name, _CAP))
    except FormatError as error:
        return error.reason
    except Refused as error:
        return error.reason
    except PermissionError as error:
        # Some are the owner's alone to read: what others cannot judge is no damage.
        return f"cannot be read: {error}" if is_owner(state) else None
    except OSError as error:
        return problem_of(error)
    except (ValueError, RuntimeError, RepositoryError) as error:  # links in a circle, too
        return f"cannot be read: {error}"
    return None


_CAP = 16 << 20  # bytes; all of these files are smaller
