"""Using an installed model: its bytes, verified when they are opened."""

import hashlib
import logging
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO, Self

from modelward import follow
from modelward.errors import Gate, Refused, UsageError
from modelward.formats.installed import Installed, Slot
from modelward.formats.tampering import Tampering
from modelward.install import seals
from modelward.install.alarms import AlarmStore
from modelward.install.boot import boot_id
from modelward.install.opened import content, look
from modelward.install.seals import Seals
from modelward.install.slots import Slots
from modelward.install.store import Store
from modelward.install.verified import ChangedError, OpenFile, Verifier
from modelward.tensors import Tensors


class Model:
    """An installed model whose files are open, and whose bytes are those that were approved.

    They were hashed through these very descriptors, or shown to be unchanged since they were;
    whatever happens to the paths meanwhile does not matter. It stays readable during and after an
    update.

    Attributes:
        name: The model's name.
        version: The version that is open.
        fallback: Whether this is the version before, because the current one was tampered with, or
            is parted from one that was.
        files: Open binary files by path inside the release. Threads and forked processes share
            where one stands: for several at once there is `read`, or `os.pread`.
    """

    def __init__(
        self, origin: "Installation", slot: Slot, files: Mapping[str, OpenFile], *, fallback: bool
    ) -> None:
        self.name = origin.name
        self.version = slot.version
        self.fallback = fallback
        self.files: Mapping[str, BinaryIO] = {path: entry.file for path, entry in files.items()}
        self._origin = origin
        self._slot = slot
        self._entries = files

    def read(self, path: str) -> bytes:
        """Return a file's content.

        If the file has changed since it was opened, or was opened with ``strict``, the very bytes
        that are returned are hashed. Threads, and processes forked since it was opened, may read
        at the same time.

        Raises:
            KeyError: The release has no such file.
            Refused: Somebody wrote to the file while it was open.
        """
        entry = self._entries[path]
        data = content(entry.file.fileno())
        now = look(entry.file.fileno())  # fails if it was closed, and its number another file's
        suspicious = self._origin.strict or now != entry.look or len(data) != now.size
        if suspicious and hashlib.sha256(data).hexdigest() != entry.sha256:
            raise self._origin.alarm(self._slot, f"{path} was written to while it was open")
        return data

    def tensors(self, path: str) -> Tensors:
        """Return the tensors of a safetensors file, by name, mapped into memory and not read yet.

        Raises:
            KeyError: The release has no such file.
            FormatError: It is no safetensors file.
        """
        return Tensors(path, self._entries[path].file.fileno())

    def wait_for_update(self, timeout: float | None = None) -> bool:
        """Wait until another version than this is current, or the one that was tampered with again.

        Args:
            timeout: Most seconds to wait; None for as long as it takes.

        Returns:
            Whether there is something to open anew.
        """
        return follow.wait(self._origin.state, {self.name: self._origin.seen}, timeout)

    def close(self) -> None:
        """Close all files. Tensors that were taken from them stay readable."""
        for file in self.files.values():
            file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __iter__(self) -> Iterator[str]:
        return iter(self.files)


@dataclass(frozen=True)
class Installation:
    """How one model is installed at one moment.

    Attributes:
        state: The state directory.
        name: The model's name.
        installed: What is installed.
        seen: Which folder ran just before that was read.
        strict: Whether to hash everything.
    """

    state: Path
    name: str
    installed: Installed
    seen: follow.Place
    strict: bool

    @classmethod
    def of(cls, state: Path, names: Iterable[str], *, strict: bool) -> dict[str, Self]:
        """Look once at what is installed, for several models.

        Raises:
            UsageError: One of them is not.
            Refused: That cannot be read.
        """
        seen = {name: follow.place(state, name) for name in names}
        installed = Slots(state, Store(state / "store")).installed()
        for name in seen:
            if name not in installed.active:
                raise UsageError(
                    f"no model {name!r} is installed in {state}",
                    f"run `modelward update {name}` first",
                )
        return {name: cls(state, name, installed, place, strict) for name, place in seen.items()}

    @property
    def active(self) -> Slot:
        """What runs."""
        return self.installed.active[self.name]

    @property
    def before(self) -> Slot | None:
        """What is kept to fall back to."""
        return self.installed.previous.get(self.name)

    def components(self, slot: Slot) -> tuple[tuple[str, str], ...]:
        """Return names and versions of the models that one of its releases was approved with.

        Raises:
            Refused: The release's document was tampered with.
        """
        slots = Slots(self.state, Store(self.state / "store"))
        return slots.release(self.name, slot)[0].requires.components

    def open(self) -> Model:
        """Open what runs.

        Raises:
            ChangedError: It is not what was approved.
        """
        slot = self.installed.active[self.name]
        files = self._verifier.open(self.name, slot)
        AlarmStore(self.state, os.environ).settle(self._is_over)
        return Model(self, slot, files, fallback=False)

    def open_before(self, before: Slot) -> Model:
        """Open what is kept to fall back to.

        Raises:
            ChangedError: It is not what was approved either.
        """
        return Model(self, before, self._verifier.open(self.name, before), fallback=True)

    def alarm(self, slot: Slot, problem: str, *, served: str | None = None) -> Refused:
        """Raise the alarm, durably if this process may write anywhere; return the refusal."""
        now = datetime.now(UTC).replace(microsecond=0)
        alarm = Tampering(self.name, slot.version, slot.sha256, problem, now, served)
        AlarmStore(self.state, os.environ).keep(alarm)
        logging.getLogger("modelward").critical("%s", alarm.to_text())
        return Refused(
            Gate.INSTALL,
            f"{self.name} {slot.version} was changed after it was installed: {problem}",
            "something or someone wrote to the state directory: run `modelward verify --repair`",
        )

    def _is_over(self, model: str, release: str) -> bool:
        """Tell whether an alarm is about what is not kept, or is intact (again)."""
        kept = [
            slot for name, slot in self.installed.slots() if (name, slot.sha256) == (model, release)
        ]
        if not kept or (model, release) == (self.name, self.installed.active[self.name].sha256):
            return True
        try:
            files = self._verifier.open(model, kept[0])
        except (ChangedError, OSError):
            return False
        for entry in files.values():
            entry.file.close()
        return True

    @property
    def _verifier(self) -> Verifier:
        known = Seals(seals.places(self.state, os.environ, os.geteuid()), boot_id())
        releases = tuple(slot.sha256 for _, slot in self.installed.slots())
        return Verifier(self.state, known, self.strict, releases)
