"""A repository as tests use it: run commands on it, serve it, read it with independent eyes."""

import contextlib
import io
import os
import secrets
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from unittest import mock
from urllib.parse import unquote, urlsplit

from tuf.api.exceptions import DownloadHTTPError
from tuf.api.metadata import Metadata, Targets
from tuf.ngclient import FetcherInterface, Updater

from modelward.formats.dsse import Envelope
from modelward.formats.ticket import Ticket
from modelward_repo import cli
from modelward_repo.publish.folder import Terms
from modelward_repo.publish.release import next_counter, released
from modelward_repo.publish.staging import Staging
from modelward_repo.roles.keys import KeyFile
from modelward_repo.storage.local import LocalStorage
from modelward_repo.supply_chain.attest import attest
from tests.simulator.model_files import onnx_file
from tests.simulator.world import Done

ROOT = Path(__file__).parents[2]
MINIMAL = ROOT / "metadata/minimal.toml"
MODELS = ("alpha", "beta")


@dataclass(frozen=True)
class Site:
    """A repository, and the keys of everybody in it."""

    directory: Path
    keys: Path

    def run(self, *args: object) -> Done:
        """Run a command here, in this process."""
        return run(*args, env=self.env)

    def start(self, *args: object, **options: Any) -> "subprocess.Popen[str]":
        """Start a command here, in another process."""
        return start(*args, env=self.env, **options)

    @property
    def env(self) -> dict[str, str]:
        return {"MODELWARD_REPOSITORY": str(self.directory), "MODELWARD_KEYS": str(self.keys)}

    def copy(self, to: Path) -> "Site":
        """Return a copy of it all."""
        shutil.copytree(self.directory, to / "repo")
        shutil.copytree(self.keys, to / "keys")
        return Site(to / "repo", to / "keys")

    def release(self, model: str, version: str, folder: Path) -> Done:
        """Release a folder; it must succeed."""
        done = self.run("release", model, version, folder)
        assert done.code == 0, done
        return done

    def metadata(self, role: str) -> Any:
        """Return a role's current metadata."""
        timestamp = Metadata.from_file(str(self.directory / "metadata/timestamp.json"))
        if role == "timestamp":
            return timestamp
        version = timestamp.signed.snapshot_meta.version
        snapshot = Metadata.from_file(str(self.directory / f"metadata/{version}.snapshot.json"))
        if role == "snapshot":
            return snapshot
        version = snapshot.signed.meta[f"{role}.json"].version
        return Metadata.from_file(str(self.directory / f"metadata/{version}.{role}.json"))


def run(*args: object, env: dict[str, str] | None = None) -> Done:
    """Run a command in this process."""
    out, err = io.StringIO(), io.StringIO()
    with (
        mock.patch.dict(os.environ, env or {}),
        mock.patch("sys.stdin", io.StringIO()),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        code = cli.run([str(arg) for arg in args])
    return Done(int(code), out.getvalue(), err.getvalue())


def start(*args: object, env: dict[str, str], **options: Any) -> "subprocess.Popen[str]":
    """Start a command in another process."""
    return subprocess.Popen(
        [sys.executable, "-m", "modelward_repo", *map(str, args)],
        env={**os.environ, **env},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **options,
    )


def make_folder(place: Path, weights: bytes) -> Path:
    (place / "vocab").mkdir(parents=True)
    (place / "model.onnx").write_bytes(onnx_file(weights))
    (place / "vocab/words.txt").write_text("zero one two\n")
    return place


class DirectoryFetcher(FetcherInterface):  # type: ignore[misc]
    """Reads a repository's files where they lie, for tests that look at very many of them."""

    def _fetch(self, url: str) -> Iterator[bytes]:
        path = Path(unquote(urlsplit(url).path))
        if not path.is_file():
            raise DownloadHTTPError("no such file", 404)
        yield path.read_bytes()


def read_with_plain_tuf(url: str, root: bytes, cache: Path) -> dict[str, bytes]:
    """Read every target of a repository with python-tuf's own client, as anybody would.

    Args:
        url: Of a server, or ``file://`` of a directory.
        root: The root to trust.
        cache: An empty directory.
    """
    cache.mkdir(parents=True)
    (cache / "targets").mkdir()
    updater = Updater(
        str(cache),
        f"{url}/metadata/",
        str(cache / "targets"),
        f"{url}/targets/",
        fetcher=DirectoryFetcher() if url.startswith("file:") else None,
        bootstrap=root,
    )
    updater.refresh()
    top = Metadata[Targets].from_file(str(cache / "targets.json")).signed
    assert top.delegations
    for name in top.delegations.roles or ():
        # Looking for a path under the role's pattern loads and verifies the role.
        pattern = (top.delegations.roles or {})[name].paths or []
        updater.get_targetinfo(pattern[0].replace("*", "x"))
    found = {}
    for file in sorted(cache.glob("*.json")):
        metadata = Metadata.from_file(str(file))
        if isinstance(metadata.signed, Targets):
            for path in metadata.signed.targets:
                info = updater.get_targetinfo(path)
                assert info, path
                found[path] = Path(updater.download_target(info)).read_bytes()
    return found


PlainTuf = Callable[[Path | str], dict[str, bytes]]


def files_of(directory: Path) -> dict[str, bytes]:
    """Return all files that a server hands out."""
    return {
        str(path.relative_to(directory)): path.read_bytes()
        for top in ("metadata", "targets", "blobs")
        for path in (directory / top).rglob("*")
        if path.is_file()
    }


@contextlib.contextmanager
def serving(directory: Path, *args: object) -> Iterator[str]:
    """Serve a repository with the real server, in processes of its own."""
    process = start("serve", directory, "--port", 0, *args, env={})
    try:
        assert process.stdout
        line = process.stdout.readline()
        assert line.startswith("serving "), (line, process.stderr and process.stderr.read())
        yield line.split()[-1]
    finally:
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=20)
    assert process.returncode == 0


@dataclass(frozen=True)
class Packed:
    """A bundle and the evidence of how it was made."""

    bundle: Path
    links: Path


def pack(site: Site, model: str, version: str, folder: Path, to: Path) -> Packed:
    """Package and approve a folder, as two machines would."""
    staging = Staging.of(LocalStorage(site.directory), datetime.now(UTC))
    terms = Terms.of(staging, model)
    shutil.copytree(folder, to / "bundle")
    counter = next_counter(released(staging, model))
    ticket = Ticket(model, version, counter, secrets.token_hex(8))
    (to / "bundle/ticket.json").write_bytes(ticket.to_bytes())
    packed = Packed(to / "bundle", to / "links")
    packed.links.mkdir()
    links: list[Envelope] = []
    for step, holder in (("package", "packager"), ("approve", "approver")):
        link = attest(
            step,
            workspace=to,
            materials=[] if step == "package" else ["bundle"],
            products=["bundle"],
            manifests=[],
            command=[],
            signer=KeyFile.of(site.keys, holder, "functionary").signer(lambda _path: b""),
            layout=terms.layout,
            policy=terms.policy,
            links=links,
            now=datetime.now(UTC),
        )
        links.append(link)
        (packed.links / f"{step}.link").write_bytes(link.to_bytes())
    return packed
