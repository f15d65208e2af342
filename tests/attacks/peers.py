"""Other ways to update a model, given the same attacks: what they do is measured, not claimed.

Each is written as a careful user of that technique would write it, and no more.
"""

import hashlib
import json
import shutil
from pathlib import Path
from typing import Protocol

import requests
from tuf.api.exceptions import DownloadError, RepositoryError
from tuf.api.metadata import TargetFile
from tuf.ngclient import Updater
from urllib3.exceptions import HTTPError

from tests.simulator.world import MODEL, PLAIN, SUMS, write_files

PATIENCE = 32 << 20  # bytes after which a download counts as one without a limit
REFUSALS = (  # what the peers raise; anything else is a mistake in this file
    RepositoryError,
    DownloadError,
    HTTPError,
    requests.RequestException,
    ValueError,
    LookupError,
)


class NoLimitError(Exception):
    """A download went on and on."""


class Peer(Protocol):
    """Another client."""

    name: str

    def installed(self) -> dict[str, bytes]:
        """Return the files that it runs."""
        ...

    def update(self, url: str) -> None:
        """Bring it up to date, or raise whatever it raises."""
        ...


class PythonTuf:
    """python-tuf's own client: channel and release are targets, files are found by digest.

    Args:
        place: A directory of its own.
        root: The root it trusts.
    """

    name = "python-tuf alone"

    def __init__(self, place: Path, root: Path) -> None:
        self._cache = place / "metadata"
        self._files = place / "files"
        self._downloads = place / "downloads"
        self._root = root.read_bytes()
        self._cache.mkdir(parents=True, exist_ok=True)

    def installed(self) -> dict[str, bytes]:
        return _read(self._files)

    def update(self, url: str) -> None:
        shutil.rmtree(self._downloads, ignore_errors=True)
        self._downloads.mkdir()
        updater = Updater(
            str(self._cache),
            f"{url}/metadata/",
            str(self._downloads),
            f"{url}/targets/",
            bootstrap=self._root,
        )
        updater.refresh()
        channel = self._target(updater, "channels/stable.json")
        version = channel["models"][MODEL]["version"]
        release = self._target(updater, f"models/{MODEL}/{version}/release.json")
        updater.config.prefix_targets_with_hash = False
        found = {}
        for file in release["files"]:
            digest = file["sha256"]
            info = TargetFile(file["length"], {"sha256": digest}, digest)
            base = f"{url}/blobs/sha256/{digest[:2]}/"
            path = updater.download_target(info, str(self._downloads / digest), base)
            found[file["path"]] = Path(path).read_bytes()
        _replace(self._files, found)

    def forget(self) -> None:
        """Leave zeros where a power cut may leave them (../shared/facts: seen in 3 of 12 runs)."""
        for name in ("timestamp.json", "snapshot.json"):
            path = self._cache / name
            path.write_bytes(bytes(path.stat().st_size))

    def _target(self, updater: Updater, path: str) -> dict:
        info = updater.get_targetinfo(path)
        if info is None:
            raise LookupError(path)
        return json.loads(Path(updater.download_target(info)).read_bytes())


class ChecksumFile:
    """Files over HTTP(S), and a file of their checksums beside them.

    Args:
        place: A directory of its own.
    """

    name = "checksum file"

    def __init__(self, place: Path) -> None:
        self._files = place / "files"

    def installed(self) -> dict[str, bytes]:
        return _read(self._files)

    def update(self, url: str) -> None:
        found = {}
        for line in _download(f"{url}/{PLAIN}/{SUMS}").decode().splitlines():
            digest, path = line.split("  ")
            data = _download(f"{url}/{PLAIN}/{path}")
            if hashlib.sha256(data).hexdigest() != digest:
                raise ValueError(f"{path} has another checksum")
            found[path] = data
        _replace(self._files, found)


def _download(url: str) -> bytes:
    data = b""
    with requests.get(url, stream=True, timeout=10) as response:
        response.raise_for_status()
        for block in response.iter_content(1 << 20):
            data += block
            if len(data) > PATIENCE:
                raise NoLimitError(url)
    length = response.headers.get("Content-Length")
    if (
        length is not None
        and len(data) < int(length)
        and "Content-Encoding" not in response.headers
    ):
        raise ValueError(f"{url} was cut short")
    return data


def _read(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def _replace(folder: Path, files: dict[str, bytes]) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    write_files(folder, files)
