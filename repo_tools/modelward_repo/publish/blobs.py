"""The blobs of a repository: where they lie, and how they get there, each content once."""

from collections.abc import Iterable
from pathlib import Path

from modelward.formats.release import Blob
from modelward_repo.publish.cache import Cache
from modelward_repo.storage import Storage
from modelward_repo.supply_chain.hasher import Progress


def blob_path(blob: Blob) -> str:
    """Return where a blob lies in a repository."""
    return f"blobs/sha256/{blob.sha256[:2]}/{blob.sha256}"


def store(
    storage: Storage,
    contents: Iterable[tuple[Blob, Path]],
    progress: Progress,
    cache: Cache | None = None,
) -> None:
    """Copy blobs into a repository, unless they are there: then only compare them.

    Args:
        storage: The repository.
        contents: The blobs, and where each lies that is not in the repository yet.
        progress: Told how many bytes are done, and how many there are in all.
        cache: Knows which blobs were seen to be there, and intact; None to read them again.

    Raises:
        StorageError: Something could not be written, or is not what it should be.
    """
    contents = tuple(contents)
    total = sum(blob.length for blob, _ in contents)
    done = 0

    def advance(count: int) -> None:
        nonlocal done
        done += count
        progress(done, total)

    for blob, source in contents:
        path = blob_path(blob)
        if cache is not None and _is_known(storage, blob, cache):
            advance(blob.length)
            continue
        # What was made for an earlier release is in the repository, and nowhere else any more.
        is_stored = storage.exists(path)
        with storage.open(path) if is_stored else source.open("rb") as file:
            storage.copy_new(path, file, blob, advance)
        place = storage.place(path)
        if cache is not None and place is not None:
            cache.learn(place.stat(), blob.sha256, ours=True)


def _is_known(storage: Storage, blob: Blob, cache: Cache) -> bool:
    place = storage.place(blob_path(blob))
    return place is not None and cache.digest(place.stat()) == blob.sha256
