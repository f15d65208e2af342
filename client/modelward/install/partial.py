r"""A blob that is not whole yet: its file, and a journal of which parts of it are there.

::

    store/.partial/<64 hex>          the bytes, at their places
    store/.partial/<64 hex>.journal  lines: what was written

Lines of the journal:

- ``boot ID``: the machine was started; what follows was written since.
- ``wrote START STOP``: these bytes were handed to the kernel. True while it runs: a process that is
  killed loses nothing.
- ``checked START STOP``: the same, of bytes that matched a chunk index. Only these are handed on to
  neighbours, who would blame this device for what others sent it.
- ``coming START STOP``: whoever opened it last has asked the repository for these bytes.
- ``sharing``, ``alone``: whoever opened it last brings it together with neighbours; no more.
- ``synced``: everything above is on disk. True for ever.

The journal is no proof. Whoever goes on from here hashes what is there, from the start.
"""

import contextlib
import os
import stat
import time
from collections.abc import Callable, Container
from pathlib import Path
from typing import Self

from modelward import plain_file
from modelward.install import fsops, syscalls, writer
from modelward.install.writer import Writer

FOLDER = ".partial"
JOURNAL = ".journal"
MODE = 0o600  # of a file that is being written
SYNC = 10.0  # seconds between two syncs: the most that a power cut makes one fetch again
_CAP = 64 << 20  # bytes: a longer journal is not believed
_RECENT = 8  # parts: one is asked for at a time, and the last ones may have failed
_WRITTEN = frozenset(("wrote", "checked"))
_SHARED = frozenset(("sharing", "alone"))
Parts = list[tuple[int, int]]  # of a file, as (start, stop), in order and apart
_BOOT = Path("/proc/sys/kernel/random/boot_id")


class Partial:
    """One blob that is being brought; a context manager. For one thread at a time but `read`.

    Args:
        folder: The folder of all such blobs.
        destination: Where the blob appears once it is whole.
        length: Bytes it will have.
        boot: Identifies the run of the kernel.
        clock: Monotonic seconds.
        direct: Whether to try to go past the page cache.
    """

    def __init__(  # noqa: PLR0913 - the last three are for tests
        self,
        folder: Path,
        destination: Path,
        length: int,
        *,
        boot: str | None = None,
        clock: Callable[[], float] = time.monotonic,
        direct: bool = True,
    ) -> None:
        self.length = length
        self._path = folder / destination.name
        self._journal_path = folder / f"{destination.name}{JOURNAL}"
        self._destination = destination
        self._boot = _boot_id() if boot is None else boot
        self._clock = clock
        self._direct = direct
        self._dirty = False

    def __enter__(self) -> Self:
        fsops.make_directory(self._path.parent)
        if not self._is_begun():
            # Whatever is there may be of another length, or not a file of ours.
            fsops.remove(self._journal_path)
            fsops.remove(self._path)
        self._writer = Writer(self._path, self.length, direct=self._direct)
        if self._journal_path.exists():
            self._journal = syscalls.reopen(self._journal_path)
            os.lseek(self._journal, 0, os.SEEK_END)
        else:
            self._journal = syscalls.create(self._journal_path, 0o600)
        self._note("", f"boot {self._boot}")  # on a new line, should the last one be torn
        self._synced = self._clock()
        return self

    def _is_begun(self) -> bool:
        """Tell whether there is something to go on from, and see to it that it can be written."""
        try:
            status = self._path.lstat()
        except OSError:
            return False
        if not stat.S_ISREG(status.st_mode) or status.st_size != self.length:
            return False
        if not status.st_mode & stat.S_IWUSR:  # `finish` was cut short
            syscalls.change_mode(self._path, MODE)
        return _is_file(self._journal_path)

    def __exit__(self, *_: object) -> None:
        # What arrived stays for the next time, durable if possible.
        with contextlib.suppress(OSError):
            self.sync()
        self._writer.close()
        os.close(self._journal)

    @property
    def extents(self) -> list[tuple[int, int]]:
        """The parts that are there, as (start, stop), in order and apart."""
        return self._load()

    def buffers(self, count: int, size: int) -> list[memoryview]:
        """Return buffers from which `write` is fast."""
        return writer.buffers(count, size)

    def place(self, buffer: memoryview, offset: int, length: int) -> memoryview:
        """Return the part of a buffer in which bytes have to lie that are written at `offset`."""
        return writer.place(buffer, offset, length)

    def write(self, offset: int, data: memoryview, *, checked: bool = False) -> None:
        """Write bytes at their place, and note that they are there.

        Args:
            offset: Their place.
            data: They.
            checked: Whether they are whole chunks of the file's index.
        """
        self._writer.write(offset, data)
        self._note(f"{'checked' if checked else 'wrote'} {offset} {offset + len(data)}")
        self._dirty = True
        if self._clock() - self._synced >= SYNC:
            self.sync()

    def coming(self, start: int, stop: int) -> None:
        """Note that bytes were asked for: neighbours need not ask for them, too."""
        self._note(f"coming {start} {stop}")

    def share(self, *, begins: bool) -> None:
        """Note that it is brought together with neighbours from now on, or no more."""
        self._note("sharing" if begins else "alone")

    def read(self, offset: int, buffer: memoryview) -> bool:
        """Fill a buffer with what was written at an offset; tell whether it can still be read."""
        try:
            self._writer.read(offset, buffer)
        except OSError:
            return False
        return True

    def sync(self) -> None:
        """Make everything durable that was written."""
        if self._dirty:
            self._writer.sync()
            self._note("synced")
            self._dirty = False
        self._synced = self._clock()

    def restart(self) -> None:
        """Forget everything that is there: it is not what it should be."""
        syscalls.truncate(self._journal, 0)
        os.lseek(self._journal, 0, os.SEEK_SET)
        syscalls.sync(self._journal)
        self._note(f"boot {self._boot}")
        self._dirty = False

    def finish(self) -> None:
        """Let the blob appear, whole and durable. Its digest must have been verified."""
        syscalls.change_mode(self._path, 0o444)
        self._writer.sync()
        fsops.make_directory(self._destination.parent)
        fsops.rename(self._path, self._destination)
        fsops.remove(self._journal_path)
        self._dirty = False

    def _note(self, *lines: str) -> None:
        text = "".join(f"{line}\n" for line in lines).encode()
        syscalls.write(self._journal, memoryview(text))

    def _load(self) -> list[tuple[int, int]]:
        return believed(_text(self._journal_path), self._boot, self.length)


def journal_of(path: Path) -> Path:
    """Return where the journal of a file is that is being brought."""
    return path.with_name(f"{path.name}{JOURNAL}")


def there(path: Path, length: int) -> tuple[bool, Parts, Parts]:
    """Tell what another process has of a file that it brings.

    Args:
        path: The file.
        length: Its length.

    Returns:
        Whether it is brought together with neighbours; which parts were checked, and are coming.
    """
    text, boot = _text(journal_of(path)), _boot_id()
    here = believed(text, boot, length, frozenset(("checked",)))
    return _is_shared(text, boot), here, asked_for(text, boot, length, here)


def _text(journal: Path) -> str:
    try:
        return plain_file.read(journal, _CAP).decode("ascii", "replace")
    except OSError:
        return ""


def _is_file(path: Path) -> bool:
    with contextlib.suppress(OSError):
        return stat.S_ISREG(path.lstat().st_mode)
    return False


def asked_for(journal: str, boot: str, length: int, here: Parts) -> Parts:
    """Return which parts of a file whoever opened it last asked for, and has not got.

    Args:
        journal: The journal's text.
        boot: Identifies this run of the kernel.
        length: The file's length.
        here: The parts that are there.
    """
    asked = [line for line in _since(journal, boot) if line.startswith("coming ")]
    found: set[tuple[int, int]] = set()
    for line in asked[-_RECENT:]:
        match line.split(" "):
            case [_, first_text, last_text] if first_text.isdecimal() and last_text.isdecimal():
                found.add((int(first_text), int(last_text)))
    coming: Parts = []
    for first, last in sorted(found):
        is_here = any(start <= first and last <= stop for start, stop in here)
        if (coming[-1][1] if coming else 0) <= first < last <= length and not is_here:
            coming.append((first, last))
    return coming


def _is_shared(journal: str, boot: str) -> bool:
    return [word for word in _since(journal, boot) if word in _SHARED][-1:] == ["sharing"]


def _since(journal: str, boot: str) -> list[str]:
    """Return the lines of whoever opened a file last, in this run of the kernel."""
    _, begun, since = journal.rpartition(f"boot {boot}\n")
    return since.split("\n")[:-1] if begun else []


def believed(
    journal: str, boot: str, length: int, words: Container[str] = _WRITTEN
) -> list[tuple[int, int]]:
    """Return which parts of a file are there, as (start, stop), in order and apart.

    Args:
        journal: The journal's text.
        boot: Identifies this run of the kernel.
        length: The file's length.
        words: What the lines that count begin with.
    """
    sure: list[tuple[int, int]] = []
    fresh: list[tuple[int, int]] = []
    running = ""
    lines = journal.split("\n")[:-1]  # what is not ended by a line feed was cut off
    for line in lines:
        match line.split(" "):
            case ["boot", name]:
                # What was not synced before the machine stopped may be lost.
                fresh = fresh if name == running else []
                running = name
            case ["synced"]:
                sure, fresh = sure + fresh, []
            case [word, first_text, last_text] if (
                word in words and first_text.isdecimal() and last_text.isdecimal()
            ):
                first, last = int(first_text), int(last_text)
                if first < last <= length:
                    fresh.append((first, last))
    if running != boot:
        fresh = []
    merged: list[tuple[int, int]] = []
    for start, stop in sorted(sure + fresh):
        if merged and start <= merged[-1][1]:
            merged[-1] = merged[-1][0], max(stop, merged[-1][1])
        else:
            merged.append((start, stop))
    return merged


def _boot_id() -> str:
    try:
        return _BOOT.read_text("ascii").strip()
    except OSError:
        return "unknown-" + os.urandom(8).hex()  # nothing unsynced is believed
