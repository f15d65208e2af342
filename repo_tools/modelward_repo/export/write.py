"""A bundle written to where it is carried from: a directory such as a stick, or one tar file."""

import hashlib
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from modelward.errors import FormatError, UsageError
from modelward.formats import archive, bundle
from modelward.formats.bundle import Bundle, BundleFile
from modelward.formats.release import Blob
from modelward_repo.publish.staging import TIMESTAMP
from modelward_repo.storage import Advance, Storage, quietly
from modelward_repo.storage.local import (
    PARTIAL,
    LocalStorage,
    StorageError,
    pour,
    sync_directory,
)

RESERVE = 1 << 20  # bytes for directories


@dataclass(frozen=True)
class Written:
    """What was done.

    Attributes:
        copied: Files that were written, and their bytes.
        kept: Files that were there already, whole.
        removed: Files of an older bundle that nobody needs any more.
    """

    copied: int
    length: int
    kept: int = 0
    removed: int = 0


def write_folder(
    storage: Storage, made: Bundle, folder: Path, advance: Advance = quietly
) -> Written:
    """Write a bundle into a directory; begun again, it goes on where it was cut short.

    What is there already is hashed, and kept if it is right. `timestamp.json` and then
    `bundle.json` are written last: until then the stick is what it was. Then files of an older
    bundle that are not in this one are removed, and none that an older bundle does not list.

    Args:
        storage: The repository.
        made: The bundle.
        folder: Where to.
        advance: Told how many more bytes are done.

    Raises:
        UsageError: There is not enough room.
        StorageError: Something cannot be read or written.
    """
    place = LocalStorage(folder)
    older = _older(place)
    kept = [file for file in made.files if _is_there(folder, file, advance)]
    missing = [file for file in made.files if file not in kept]
    _check_room(folder, sum(file.blob.length for file in missing))
    for file in missing:
        if file.path == TIMESTAMP:
            continue
        _remove(folder / file.path)  # damaged, or cut short
        with storage.open(file.path) as source:
            place.copy_new(file.path, source, file.blob, advance)
    place.replace(TIMESTAMP, _timestamp(storage, made))
    place.replace(bundle.FILE, made.to_bytes())
    stale = older - {file.path for file in made.files}
    for path in stale:
        with suppress(OSError):
            (folder / path).unlink()
            (folder / path).parent.rmdir()  # if that was the last in it
    with suppress(OSError):
        (folder / PARTIAL).rmdir()
    sync_directory(folder)
    length = sum(file.blob.length for file in missing)
    return Written(len(missing), length, len(kept), len(stale))


def write_archive(
    storage: Storage, made: Bundle, target: Path, advance: Advance = quietly
) -> Written:
    """Write a bundle into an uncompressed tar archive, which appears when it is whole.

    Args:
        storage: The repository.
        made: The bundle.
        target: Where to.
        advance: Told how many more bytes are done.

    Raises:
        StorageError: Something cannot be read or written.
    """
    index = made.to_bytes()
    with _appearing(target) as descriptor, os.fdopen(descriptor, "wb") as out:
        for file in made.files:
            out.write(archive.header(file.path, file.blob.length))
            with storage.open(file.path) as source:
                _require(file, pour(source, out, advance))
            out.write(bytes(archive.padding(file.blob.length)))
        out.write(archive.header(bundle.FILE, len(index)) + index)
        out.write(bytes(archive.padding(len(index))) + archive.END)
        out.flush()
        os.fsync(out.fileno())
    return Written(len(made.files), made.length)


def _timestamp(storage: Storage, made: Bundle) -> bytes:
    """Return the timestamp that the bundle was chosen by: a publisher may have replaced it."""
    data = storage.read(TIMESTAMP)
    (file,) = (file for file in made.files if file.path == TIMESTAMP)
    _require(file, Blob(hashlib.sha256(data).hexdigest(), len(data)))
    return data


def _require(file: BundleFile, blob: Blob) -> None:
    if blob != file.blob:
        raise StorageError(
            f"{file.path} changed in the repository while it was being exported",
            "somebody published meanwhile: run the same command again, it goes on from here",
        )


def _older(place: LocalStorage) -> frozenset[str]:
    """Return the files of the bundle that is there already."""
    with suppress(StorageError, FormatError):
        return frozenset(file.path for file in Bundle.parse(place.read(bundle.FILE)).files)
    return frozenset()


def _is_there(folder: Path, file: BundleFile, advance: Advance) -> bool:
    path = folder / file.path
    try:
        if path.is_symlink() or path.stat().st_size != file.blob.length:
            return False
        with path.open("rb") as opened:
            return pour(opened, None, advance) == file.blob
    except OSError:
        return False


def _remove(path: Path) -> None:
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise StorageError(
            f"{path} cannot be written: {error.strerror}",
            "name a directory, such as one on a stick that can be written, or FILE.tar",
        ) from error


def _check_room(folder: Path, needed: int) -> None:
    nearest = next(path for path in (folder, *folder.absolute().parents) if path.is_dir())
    status = os.statvfs(nearest)
    free = status.f_bavail * status.f_frsize
    if needed + RESERVE > free:
        raise UsageError(
            f"{needed + RESERVE} bytes are needed in {folder}, but only {free} are free",
            "take a larger stick, or say what devices have with --have",
        )


@contextmanager
def _appearing(target: Path) -> Iterator[int]:
    """Open a file for writing that gets its name when the block ends well."""
    partial = target.with_name(f".{target.name}.{secrets.token_hex(8)}")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise StorageError(f"{target} cannot be written: {error.strerror}") from error
    try:
        yield descriptor
        partial.replace(target)
        sync_directory(target.parent)
    except OSError as error:
        raise StorageError(f"{target} cannot be written: {error.strerror}") from error
    finally:
        partial.unlink(missing_ok=True)
