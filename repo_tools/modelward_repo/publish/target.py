"""One target out of a repository, verified as a device would: for CI and for the curious."""

from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.parse import unquote

from modelward.config.address import check_repository
from modelward.errors import NotFound, TooLong, UsageError
from modelward.trust.repository import Repository
from modelward.trust.tuf_client import Fetcher
from modelward_repo.publish.staging import FIRST_ROOT, TIMESTAMP
from modelward_repo.storage import Storage

CAP = 64 << 20  # bytes; blobs, which may be larger, are no targets
_STORED = "stored:///"


@dataclass(frozen=True)
class Source:
    """Where a repository is read from.

    Attributes:
        fetcher: Brings its files.
        url: Its address, with a final slash.
        root: The root to trust.
    """

    fetcher: Fetcher
    url: str
    root: bytes

    @classmethod
    def stored(cls, storage: Storage, root: bytes | None) -> "Source":
        """Return a repository in a storage.

        Args:
            storage: The storage.
            root: The root to trust; None for the first that lies there, which is as good as
                whoever can write there.

        Raises:
            UsageError: There is no repository.
        """
        if not storage.exists(TIMESTAMP):
            raise UsageError("there is no repository here", "name its directory with --repository")
        return cls(_Stored(storage), _STORED, root or storage.read(FIRST_ROOT))

    @classmethod
    def served(cls, fetcher: Fetcher, url: str, root: bytes) -> "Source":
        """Return a repository on a server.

        Raises:
            UsageError: It is not an http or https address.
        """
        return cls(fetcher, f"{check_repository(url)}/", root)


def get_target(source: Source, path: str) -> bytes:
    """Return a target, verified from the root on (TUF 5.3 to 5.7).

    Args:
        source: The repository.
        path: The target's path, such as ``layouts/meter-reader.json``.

    Raises:
        UsageError: No role vouches for the path.
        Refused: Something is not valid, or has expired.
        Unavailable: Something could not be fetched.
    """
    with TemporaryDirectory(prefix="modelward-") as cache:
        repository = Repository(
            cache=Path(cache),
            metadata_url=f"{source.url}metadata/",
            targets_url=f"{source.url}targets/",
            fetcher=source.fetcher,
            root=source.root,
        )
        repository.refresh()
        data = repository.target(path, CAP)
        if data is None:
            known = repository.cache.read("targets").signed.targets
            near = get_close_matches(path, known, n=3) or sorted(known)[:3]
            raise UsageError(
                f"no role vouches for {path!r}",
                f"such paths are {', '.join(near)}" if near else "there are no targets at all",
            )
    return data


class _Stored:
    """Reads the files of a storage as if a server sent them."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage

    def fetch(self, url: str, limit: int) -> bytes:
        """See `modelward.trust.repository.Fetcher`."""
        path = unquote(url.removeprefix(_STORED))
        if ".." in path.split("/") or not self._storage.exists(path):
            raise NotFound(f"there is no {path}")
        if self._storage.size(path) > limit:
            raise TooLong(f"{path} is longer than {limit} bytes")
        return self._storage.read(path)
