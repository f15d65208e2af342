"""Opening an installed release: every file is open, and is what was approved.

Each file is hashed through the descriptor that is handed out, unless nothing can have written to it
since it was last hashed. What that rests on is written down in docs/adr/0017.
"""

import hashlib
import os
import time
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO

from modelward.errors import FormatError
from modelward.formats import release as releases
from modelward.formats.installed import Slot
from modelward.formats.release import Release
from modelward.formats.seal import Look, Seal
from modelward.install import verity
from modelward.install.file_system import make_writes_show
from modelward.install.hashing import digests
from modelward.install.opened import NOT_ALLOWED, Folder, look
from modelward.install.seals import Seals

# Nanoseconds. A file that was changed less long ago could be changed once more, and the kernel's
# coarse clock would note the very same time.
SETTLED = 2_000_000_000


class ChangedError(Exception):
    """What is installed is not what was approved."""


@dataclass(frozen=True)
class OpenFile:
    """An open file that was found intact.

    Attributes:
        file: The file.
        sha256: Its digest.
        look: How it looked when it was found so; None if it could be written to and still look so.
    """

    file: BinaryIO
    sha256: str
    look: Look | None


@dataclass(frozen=True)
class Verifier:
    """Opens releases of one device.

    Attributes:
        state: The state directory.
        seals: What was found intact before, and in which boot.
        strict: Whether to hash every file all the same.
        installed: Digests of all releases that are installed, whose seals are kept.
    """

    state: Path
    seals: Seals
    strict: bool
    installed: Iterable[str]

    def open(self, model: str, slot: Slot) -> dict[str, OpenFile]:
        """Return a slot's files by path, each open and found intact.

        Raises:
            ChangedError: One is not what was approved; none is open.
            OSError: This process may not open them.
        """
        with ExitStack() as opened:
            try:
                files = self._open(f"slots/{model}/{slot.name}", slot, opened)
                files = self._check(slot, files)
            except FormatError as error:
                raise ChangedError(str(error)) from error
            except OSError as error:
                if error.errno in NOT_ALLOWED:
                    raise
                raise ChangedError(str(error)) from error
            opened.pop_all()
        return files

    def _open(self, place: str, slot: Slot, opened: ExitStack) -> dict[str, OpenFile]:
        files = {}
        with Folder(self.state) as folder:
            folder.enter(place)
            document = folder.read("release.json", releases.CAP)
            if hashlib.sha256(document).hexdigest() != slot.sha256:
                raise ChangedError("release.json is not the document that was installed")
            for entry in Release.parse(document).files:
                try:
                    file = os.fdopen(folder.open(f"files/{entry.path}"), "rb")
                except OSError as error:
                    error.filename = entry.path
                    raise
                opened.callback(file.close)
                seen = look(file.fileno())
                if seen.size != entry.blob.length:
                    raise ChangedError(f"{entry.path} is {seen.size} bytes long")
                files[entry.path] = OpenFile(file, entry.blob.sha256, seen)
        return files

    def _check(self, slot: Slot, files: Mapping[str, OpenFile]) -> dict[str, OpenFile]:
        """Hash what nothing vouches for, and note how it looked."""
        started = time.time_ns()
        known = self.seals.load(slot.sha256)
        doubtful = {
            path: entry
            for path, entry in files.items()
            if self.strict or not _is_vouched_for(path, entry, known)
        }
        if not doubtful:
            return dict(files)
        # Before hashing: what is written meanwhile must show afterwards.
        showing = {
            path for path, entry in doubtful.items() if make_writes_show(entry.file.fileno())
        }
        found = digests([entry.file.fileno() for entry in doubtful.values()])
        for (path, entry), digest in zip(doubtful.items(), found, strict=True):
            if digest != entry.sha256:
                raise ChangedError(f"{path} is not the file that was approved")
        settled = {
            path: seen
            for path, entry in doubtful.items()
            if path in showing
            and (seen := look(entry.file.fileno())) == entry.look
            and seen.changed < started - SETTLED
        }
        measured = {
            path: by_kernel
            for path, entry in doubtful.items()
            if (by_kernel := verity.measure(entry.file.fileno())) is not None
        }
        seal = Seal(
            slot.sha256, self.seals.boot, {**known.looks, **settled}, {**known.verity, **measured}
        )
        if seal != known and (seal.boot or seal.verity):
            self.seals.save(seal, self.installed)
        return {
            **files,
            **{path: replace(doubtful[path], look=settled.get(path)) for path in doubtful},
        }


def _is_vouched_for(path: str, entry: OpenFile, known: Seal) -> bool:
    """Tell whether a file is certain to be as it was when it was hashed."""
    if path in known.looks and known.looks[path] == entry.look:
        return True
    return path in known.verity and known.verity[path] == verity.measure(entry.file.fileno())
