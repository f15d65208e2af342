"""Using an installed model: its bytes, verified when they are opened."""

import errno
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import BinaryIO, Self

from modelward.errors import Gate, Refused, UsageError
from modelward.formats.names import check_name
from modelward.install.slots import Slots, open_file
from modelward.install.store import Store, sha256_of
from modelward.settings import state_directory


class Model:
    """An installed model whose files are open and were hashed through these very descriptors.

    What is read from it is what was approved, whatever happens to the paths meanwhile; it stays
    readable during and after an update.

    Attributes:
        name: The model's name.
        version: The version that is open.
        files: Open binary files by path inside the release.
    """

    def __init__(self, name: str, version: str, files: Mapping[str, BinaryIO]) -> None:
        self.name = name
        self.version = version
        self.files = files

    def read(self, path: str) -> bytes:
        """Return a file's content.

        Raises:
            KeyError: The release has no such file.
        """
        file = self.files[path]
        file.seek(0)
        return file.read()

    def close(self) -> None:
        """Close all files."""
        for file in self.files.values():
            file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __iter__(self) -> Iterator[str]:
        return iter(self.files)


def open_model(name: str, state: str | os.PathLike[str] | None = None) -> Model:
    """Open the model that is installed under a name.

    Args:
        name: The model's name.
        state: The device's state directory; default $MODELWARD_STATE, then /var/lib/modelward.

    Raises:
        UsageError: No such model is installed.
        Refused: A file is not the one that was approved; nothing of it was handed out.
        OSError: This process may not open as many files as the release has.
    """
    try:
        check_name(name)
    except ValueError as error:
        raise UsageError(str(error)) from error
    root = Path(state) if state is not None else state_directory(None, os.environ)
    slots = Slots(root, Store(root / "store"))
    slot = slots.installed().active.get(name)
    if slot is None:
        raise UsageError(
            f"no model {name!r} is installed in {root}", f"run `modelward update {name}` first"
        )
    release, _ = slots.release(name, slot)
    folder = slots.directory(name, slot) / "files"
    files: dict[str, BinaryIO] = {}
    model = Model(name, slot.version, files)
    try:
        for entry in release.files:
            opened = open_file(folder, entry.path)
            files[entry.path] = opened
            if sha256_of(opened.fileno()) != entry.blob.sha256:
                raise _tampered(name, slot.version, entry.path)
    except OSError as error:
        model.close()
        if error.errno in (errno.EMFILE, errno.ENFILE):
            raise
        raise _tampered(name, slot.version, str(error)) from error
    except Refused:
        model.close()
        raise
    return model


def _tampered(name: str, version: str, what: str) -> Refused:
    return Refused(
        Gate.INSTALL,
        f"{name} {version} was changed after it was installed: {what}",
        "someone or something wrote to the state directory: see `modelward verify`",
    )
