"""Slots and generations: what is installed, and the one switch that makes it so.

::

    slots/<model>/<first 16 digits of release.json's digest>/   files of one release, read-only
    generations/<n>/installed.json                              what generation n consists of
    generations/<n>/<model> -> ../../slots/<model>/<slot>
    generations/<n>/.current -> generations/<n>                 to go back with, on a full disk
    current -> generations/<n>                                  the only thing that is switched

All models of a device switch together or not at all: a generation is made aside and becomes
current in one rename. Slots of the previous release of every model are kept.
"""

import contextlib
import hashlib
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from modelward.errors import FormatError, Gate, Refused
from modelward.formats import release as releases
from modelward.formats.installed import CAP, DOCUMENT, Installed, Slot
from modelward.formats.journal import Phase
from modelward.formats.names import check_name
from modelward.formats.release import Release
from modelward.formats.seal import Look
from modelward.install import alarms, fsops, seals
from modelward.install.hashing import Progress
from modelward.install.journal import JournalStore
from modelward.install.opened import NOT_ALLOWED, Folder, files_below, problem_of, same_content
from modelward.install.store import Store

SPARE = ".current"  # no model is named so
STALE = 3600.0  # seconds after which nobody is still writing a small file


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
            Refused: It cannot be read, or nothing says any more which one it is: the state
                directory was tampered with.
        """
        current = self._root / "current"
        try:
            return self._read("current")
        except Refused:
            if os.path.lexists(current):
                raise
        if not self.last():
            return Installed()
        if os.path.lexists(current):  # an update came between
            return self._read("current")
        raise _lost(current)

    def generation(self, number: int) -> Installed:
        """Return a generation that is kept.

        Args:
            number: Which; 0 for that before anything was installed.

        Raises:
            Refused: It cannot be read: the state directory was tampered with.
        """
        return self._read(f"generations/{number}") if number else Installed()

    def generations(self) -> list[int]:
        """Return the numbers of all generations that are here, the newest first."""
        names = (path.name for path in (self._root / "generations").glob("*"))
        return sorted((int(name) for name in names if name.isdecimal()), reverse=True)

    def last(self) -> tuple[int, ...]:
        """Return which generations may have been current last, the likeliest first.

        None if nothing has ever run, or was only on trial: what a first installation leaves when
        the power goes is no less a generation, but the journal knows how far it came.
        """
        here = self.generations()  # before the journal, which is written before each step
        readable = {}
        for number in here:
            with contextlib.suppress(Refused):
                readable[number] = self.generation(number)
        journal = JournalStore(self._root).load()
        trial = journal.trial
        if trial is not None:
            likeliest = trial.good if trial.phase is Phase.RETURNING else trial.generation
            return (likeliest,) if trial.good else ()
        untried = {slot.sha256 for slot in journal.probing.values()} | set(journal.failed)
        return tuple(
            number
            for number, installed in readable.items()
            if installed.active and untried.isdisjoint(s.sha256 for s in installed.active.values())
        )

    def here(self) -> Iterator[tuple[str, Slot]]:
        """Yield every slot that is here, in use or not, as its own document names it."""
        for path in sorted((self._root / "slots").glob("*/*")):
            with contextlib.suppress(OSError, FormatError, ValueError):
                model = check_name(path.parent.name)
                with Folder(path) as folder:
                    document = folder.read("release.json", releases.CAP)
                release = Release.parse(document)
                digest = hashlib.sha256(document).hexdigest()
                slot = Slot(release.version, release.counter, digest)
                if (release.model, slot.name) == (model, path.name):
                    yield model, slot

    def check_none_confirmed(self, counters: Mapping[str, int]) -> None:
        """Require, where nothing seems to be installed, that no slot here was confirmed once.

        Args:
            counters: Of the newest release of each model that was confirmed.

        Raises:
            Refused: One was: nothing says any more what is installed.
        """
        if any(slot.counter <= counters.get(model, -1) for model, slot in self.here()):
            raise _lost(self._root / "current")

    def _read(self, place: str) -> Installed:
        path = self._root / place / DOCUMENT
        try:
            with Folder(path.parent) as folder:
                return Installed.parse(folder.read(DOCUMENT, CAP))
        except FileNotFoundError:
            raise _damaged(path, "is missing") from None
        except FormatError as error:
            raise _damaged(path, error.reason) from error
        except OSError as error:
            raise _damaged(path, error.strerror or str(error)) from error

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
            with self._open(model, slot) as folder:
                data = folder.read(path.name, releases.CAP)
            if hashlib.sha256(data).hexdigest() != slot.sha256:
                raise _damaged(path, "is not the document that was installed")
            return Release.parse(data), data
        except FormatError as error:
            raise _damaged(path, error.reason) from error
        except OSError as error:
            raise _damaged(path, error.strerror or str(error)) from error

    def agree(self, installed: Installed) -> bool:
        """Tell whether all that runs was approved with the very releases that run beside it."""
        try:
            return all(
                installed.active.get(component, slot).version == needed
                or component not in installed.active
                for model, slot in installed.active.items()
                for component, needed in self.release(model, slot)[0].requires.components
            )
        except Refused:  # what is damaged says nothing of it
            return False

    def stage(self, release: Release, document: bytes, evidence: Mapping[str, bytes]) -> Slot:
        """Make the slot of a release whose blobs are all in the store.

        Args:
            release: The release.
            document: Its release.json as signed.
            evidence: Small documents to keep beside it, by file name, for `explain` and gate 12.
                They take the place of older ones, all at once, if the release ran here before.
        """
        slot = Slot(release.version, release.counter, hashlib.sha256(document).hexdigest())
        place = self.directory(release.model, slot)
        if not (place / "release.json").is_file():
            fsops.remove(place)  # what is left of one where directories cannot be renamed
            fsops.rename(self._aside(place, release, document, evidence), place)
        elif not _holds(place, evidence):  # a policy of then may allow what that of today forbids
            fsops.exchange(self._aside(place, release, document, evidence), place)
        return slot

    def rebuild(self, release: Release, document: bytes, evidence: Mapping[str, bytes]) -> None:
        """Make a slot anew, and let it take the place of the damaged one in one step."""
        slot = Slot(release.version, release.counter, hashlib.sha256(document).hexdigest())
        place = self.directory(release.model, slot)
        folder = place.parent
        if folder.is_symlink() or fsops.lost(folder) or not folder.is_dir():
            fsops.remove(folder)  # no folder, or a lost one: none of its slots can be opened
        fsops.exchange(self._aside(place, release, document, evidence), place)

    def _aside(
        self, place: Path, release: Release, document: bytes, evidence: Mapping[str, bytes]
    ) -> Path:
        """Make a slot beside its place, whole and durable."""
        fsops.make_directory(place.parent)
        aside = fsops.new_name(place)
        below = [Path("files", file.path) for file in release.files]
        inner = {aside / folder for path in below for folder in path.parents}
        folders = sorted({aside, aside / "files", *inner})
        for folder in folders:
            fsops.make_aside(folder)
        for file, path in zip(release.files, below, strict=True):
            fsops.link(self._store.path(file.blob.sha256), aside / path)
            fsops.enable_verity(aside / path)
        for name, data in {"release.json": document, **evidence}.items():
            fsops.write_aside(aside / name, data, 0o444)
        for folder in reversed(folders):
            fsops.sync_directory(folder)
        return aside

    def problems(
        self,
        model: str,
        slot: Slot,
        proven: Mapping[str, Look] | None = None,
        progress: Progress | None = None,
    ) -> Iterator[tuple[str, str]]:
        """Hash every file of a slot; yield the path and problem of each that is not as it was.

        Args:
            model: The model.
            slot: The slot.
            proven: How files looked, by digest, when this process had hashed them: those
                that still do are not hashed again.
            progress: Told of the bytes that are hashed, of those of the slot.

        Raises:
            Refused: The slot's own document is damaged.
        """
        release, _ = self.release(model, slot)
        known_good = proven or {}
        total, done = sum(file.blob.length for file in release.files), 0

        def hashed(count: int) -> None:
            nonlocal done
            done += count
            if progress:
                progress(done, total)

        with self._open(model, slot) as opened:
            for file in release.files:
                try:
                    look = known_good.get(file.blob.sha256)
                    if look and same_content(opened.look(f"files/{file.path}"), look):
                        continue
                    if opened.digest(f"files/{file.path}", hashed) != file.blob.sha256:
                        yield file.path, "is not the file that was approved"
                except OSError as error:
                    yield file.path, problem_of(error)
        folder = self.directory(model, slot) / "files"
        known = {file.path for file in release.files}
        unread: list[OSError] = []
        for path in sorted(files_below(folder, unread.append)):
            name = str(path.relative_to(folder))
            if name not in known:
                yield name, "does not belong to the release"
        for each in unread:
            yield os.path.relpath(each.filename, folder), problem_of(each)

    def _open(self, model: str, slot: Slot) -> Folder:
        folder = Folder(self._root)
        try:
            folder.enter(f"slots/{model}/{slot.name}")
        except OSError:
            folder.close()
            raise
        return folder

    def discard(self, model: str, slot: Slot) -> None:
        """Remove a staged slot and its blobs that are not intact, so that they are fetched anew."""
        release, _ = self.release(model, slot)
        fsops.remove(self.directory(model, slot))
        for file in release.files:
            if not self._store.is_intact(file.blob):
                self._store.remove(file.blob.sha256)

    def prepare(self, following: Installed) -> None:
        """Make a generation aside, whole and durable, for `switch`."""
        place = self._place(following)
        fsops.make_directory(place.parent)
        fsops.remove(place)  # of an update that was cut short before it switched
        self._make(place, following)
        fsops.sync_directory(place.parent)

    def renew(self, installed: Installed) -> None:
        """Make a generation anew, and let it take the place of the damaged one in one step."""
        place = self._place(installed)
        fsops.make_directory(place.parent)
        aside = fsops.new_name(place)
        self._make(aside, installed)
        fsops.exchange(aside, place)

    def _place(self, installed: Installed) -> Path:
        return self._root / "generations" / str(installed.number)

    def _make(self, place: Path, following: Installed) -> None:
        fsops.make_aside(place)
        for model, slot in following.active.items():
            fsops.symlink(place / model, f"../../slots/{model}/{slot.name}/files")
        fsops.symlink(place / SPARE, _target(following.number))
        fsops.write_aside(place / DOCUMENT, following.to_bytes(), 0o444)
        fsops.sync_directory(place)

    def ready(self, number: int) -> None:
        """See to it that a generation can be gone back to on a full disk: that uses up its link."""
        place = self._root / _target(number)
        if number and not os.path.lexists(place / SPARE):
            fsops.symlink(place / SPARE, _target(number))
            fsops.sync_directory(place)

    def switch(self, number: int) -> None:
        """Make a generation the current one, in one rename; 0 for that nothing runs.

        A new link takes an inode and, on XFS, room for more. Where others have left neither, the
        generation's own link serves: what does not work must not run on because a disk is full.
        """
        current = self._root / "current"
        if not number:
            fsops.remove(current)
        elif current.is_dir() and not current.is_symlink():  # which no rename can replace
            aside = fsops.new_name(current)
            fsops.symlink(aside, _target(number))
            fsops.exchange(aside, current)
        else:
            try:
                fsops.switch(current, _target(number))
            except OSError as error:
                spare = self._root / _target(number) / SPARE
                if error.errno not in fsops.FULL or not spare.is_symlink():
                    raise
                fsops.rename(spare, current)

    def garbage(self, kept: Iterable[Installed], blobs: Iterable[str] = ()) -> list[Path]:
        """Return the slots, generations and blobs that are not needed.

        Args:
            kept: The generations to keep: what runs in them, and what they fall back to.
            blobs: Digests of further blobs to keep.
        """
        kept = tuple(kept)
        wanted = set(blobs)
        spare = [path for digest, path in self.spare(kept) if digest not in wanted]
        return [*self._slots_but(kept), *self._generations_but(kept), *spare]

    def spare(self, kept: Iterable[Installed]) -> list[tuple[str, Path]]:
        """Return the digest and path of each blob, whole or not, that no kept slot needs."""
        try:
            needed = self._blobs_of(kept)
        except Refused:
            # Which blobs a damaged slot needs is not known: keep them all. Its damage must not
            # make an update fail that has already switched.
            return []
        try:
            whole = [(digest, self._store.path(digest)) for digest in self._store.digests()]
            found = [*self._store.partials(), *whole]
        except OSError as error:
            if error.errno not in fsops.LOST:
                raise
            return []  # the store's disk is gone: nothing there keeps anybody from going back
        return [(digest, path) for digest, path in found if digest not in needed]

    def _slots_but(self, kept: Iterable[Installed]) -> list[Path]:
        names = {f"{model}/{slot.name}" for installed in kept for model, slot in installed.slots()}
        models = (self._root / "slots").glob("*")
        found = sorted(
            path for model in models if not fsops.lost(model) for path in model.glob("*")
        )
        return [path for path in found if f"{path.parent.name}/{path.name}" not in names]

    def _generations_but(self, kept: Iterable[Installed]) -> list[Path]:
        numbers = {str(installed.number) for installed in kept}
        found = sorted((self._root / "generations").glob("*"))
        return [path for path in found if path.name not in numbers]

    def _blobs_of(self, kept: Iterable[Installed]) -> set[str]:
        slots = {(model, slot) for installed in kept for model, slot in installed.slots()}
        return {
            digest for model, slot in slots for digest in _digests(self.release(model, slot)[0])
        }

    def retire(self, kept: Iterable[Installed]) -> None:
        """Remove slots and generations that are not needed, and the blobs that only they had.

        Other blobs stay, whole or not: only who knows what is offered can tell that nobody wants
        what has been fetched of a release that is not installed yet.
        """
        kept = tuple(kept)
        slots = self._slots_but(kept)
        theirs = {digest for place in slots for digest in _digests_in(place)}
        blobs = [path for digest, path in self.spare(kept) if digest in theirs]
        # The slots last: if this is cut short, they still tell which blobs they had.
        fsops.remove(*blobs)
        fsops.remove(*slots, *self._generations_but(kept))

    def collect(self, kept: Iterable[Installed], blobs: Iterable[str] = ()) -> None:
        """Remove what is not needed; see `garbage`."""
        fsops.remove(*self.garbage(kept, blobs))

    def sweep(self) -> None:
        """Remove what an interrupted update left behind.

        Raises:
            Refused: What is installed cannot be read; see `installed`.
        """
        self._store.sweep()
        for folder in (
            self._root,
            self._root / "generations",
            *(self._root / "slots").glob("*/"),
            self._root / "tuf",
            self._root / "tuf/root_history",
            self._root / seals.FOLDER,  # programs that open models hold no lock, and may be killed
        ):
            fsops.sweep(folder)
        fsops.sweep(self._root / alarms.FOLDER, STALE)  # so do they who raise alarms: none is lost
        self.drop_prepared()

    def drop_prepared(self) -> None:
        """Remove what was made aside, whole or not, to follow what is installed.

        Raises:
            Refused: What is installed cannot be read; see `installed`.
        """
        newest = self.installed().number
        fsops.remove(
            *(
                self._root / "generations" / str(number)
                for number in self.generations()
                if number > newest
            )
        )


def of_this_process(error: Refused) -> OSError | None:
    """Return what this process may not do, if a refusal is about nothing else: nothing is damaged.

    Args:
        error: What a method of `Slots` raised.
    """
    cause = error.__cause__
    return cause if isinstance(cause, OSError) and cause.errno in NOT_ALLOWED else None


def _target(number: int) -> str:
    """Return what `current` leads to while a generation is the current one."""
    return f"generations/{number}"


def _holds(place: Path, documents: Mapping[str, bytes]) -> bool:
    """Tell whether documents lie in a folder as they are here."""
    with contextlib.suppress(OSError), Folder(place) as folder:
        return all(folder.read(name, len(data)) == data for name, data in documents.items())
    return False


def _digests(release: Release) -> Iterator[str]:
    """Yield the digests of the blobs that an installed release needs."""
    for file in release.files:
        yield file.blob.sha256
        if file.chunks:
            yield file.chunks.sha256


def _digests_in(place: Path) -> Iterator[str]:
    """Yield the digests that the release in a slot names, if it can be read."""
    with contextlib.suppress(OSError, FormatError), Folder(place) as folder:
        yield from _digests(Release.parse(folder.read("release.json", releases.CAP)))


def _damaged(path: Path, problem: str) -> Refused:
    return Refused(
        Gate.INSTALL,
        f"the state directory is damaged: {path}: {problem}",
        "run `modelward verify --repair`; if it cannot be mended, remove `current`, "
        "`slots` and `generations`, and run `modelward update`",
    )


def _lost(current: Path) -> Refused:
    return _damaged(current, "is missing, though releases were installed")
