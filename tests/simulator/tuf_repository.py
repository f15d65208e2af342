"""A TUF repository in memory, served over HTTP, in the hands of whoever runs the test.

`TufRepository` is edited through python-tuf's own classes and published role by role, honestly or
not. Whatever was published is in `files` as bytes, to be replaced, cut or removed. `Server` serves
any number of repositories from one thread and notes what each of them is asked for.
"""

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Event, Thread
from typing import Any, cast
from urllib.parse import unquote

from securesystemslib.signer import CryptoSigner
from tuf.api.metadata import (
    DelegatedRole,
    Delegations,
    Metadata,
    MetaFile,
    Root,
    Snapshot,
    TargetFile,
    Targets,
    Timestamp,
)
from tuf.api.serialization.json import JSONSerializer

TOP_LEVEL = (Root.type, Timestamp.type, Snapshot.type, Targets.type)
Answer = Callable[[BaseHTTPRequestHandler], None]


def in_days(days: float) -> datetime:
    """Return the time so many days from now, as metadata writes it."""
    return datetime.now(UTC).replace(microsecond=0) + timedelta(days=days)


class TufRepository:
    """A repository with one Ed25519 key a top-level role, published at version 1.

    Attributes:
        metadata: Each role's metadata, to be edited; it takes effect with `publish`.
        signers: Who signs each role when it is published.
        files: What is served: bytes by path, such as ``metadata/1.root.json``.
        answers: What is done instead for a path, such as breaking off.
        requests: The paths that were asked for, in order, quoted as they came.
        lists_digests: Whether snapshot and timestamp list lengths and digests.
        lists: Whether a published role is entered into what lists it: snapshot, timestamp.
    """

    def __init__(self, *, expires: datetime | None = None, consistent: bool = True) -> None:
        self._expires = expires or in_days(30)
        self.metadata: dict[str, Metadata[Any]] = {
            Root.type: Metadata(Root(expires=self._expires, consistent_snapshot=consistent)),
            Timestamp.type: Metadata(Timestamp(expires=self._expires)),
            Snapshot.type: Metadata(Snapshot(expires=self._expires)),
            Targets.type: Metadata(Targets(expires=self._expires)),
        }
        self.signers: dict[str, list[CryptoSigner]] = {}
        self.files: dict[str, bytes] = {}
        self.answers: dict[str, Answer] = {}
        self.requests: list[str] = []
        self.lists_digests = False
        self.lists = True
        self._published: set[str] = set()
        for role in TOP_LEVEL:
            self.add_key(role)
        self.publish(Targets.type, Snapshot.type, Timestamp.type, Root.type)

    @property
    def root(self) -> Root:
        """The root role, to be edited."""
        return cast("Root", self.metadata[Root.type].signed)

    @property
    def timestamp(self) -> Timestamp:
        """The timestamp role, to be edited."""
        return cast("Timestamp", self.metadata[Timestamp.type].signed)

    @property
    def snapshot(self) -> Snapshot:
        """The snapshot role, to be edited."""
        return cast("Snapshot", self.metadata[Snapshot.type].signed)

    def targets(self, role: str = Targets.type) -> Targets:
        """Return the targets role or a delegated one, to be edited."""
        return cast("Targets", self.metadata[role].signed)

    def add_key(self, role: str, signer: CryptoSigner | None = None) -> CryptoSigner:
        """Give a top-level role one more key, which signs it from now on."""
        signer = signer or CryptoSigner.generate_ed25519()
        self.root.add_key(signer.public_key, role)
        self.signers.setdefault(role, []).append(signer)
        return signer

    def set_keys(
        self, role: str, trusted: Iterable[CryptoSigner], signing: Iterable[CryptoSigner], of: int
    ) -> None:
        """Replace a top-level role's keys and threshold, and who signs it."""
        self.root.roles[role].keyids.clear()
        self.root.roles[role].threshold = of
        for signer in trusted:
            self.root.add_key(signer.public_key, role)
        self.signers[role] = list(signing)

    def rotate(self, role: str) -> None:
        """Replace a top-level role's keys by one new key."""
        signer = CryptoSigner.generate_ed25519()
        self.set_keys(role, [signer], [signer], of=1)

    def publish(self, *roles: str) -> None:
        """Sign each role as its next version and serve it."""
        for role in roles:
            if role in self._published:
                self.metadata[role].signed.version += 1
            self._published.add(role)
            self.publish_as_is(role)

    def publish_all(self) -> None:
        """Publish the next version of every role, in the order a repository would."""
        delegated = [role for role in self.metadata if role not in TOP_LEVEL]
        self.publish(*delegated, Targets.type, Snapshot.type, Timestamp.type, Root.type)

    def publish_as_is(self, role: str) -> None:
        """Sign a role at the version it has and serve it, over what was served there."""
        metadata = self.metadata[role]
        metadata.signatures.clear()
        for signer in self.signers[role]:
            metadata.sign(signer, append=True)
        self.serve(role, metadata.to_bytes(JSONSerializer()))

    def serve(self, role: str, data: bytes) -> None:
        """Serve bytes as a role's current version, and list them where that role is listed."""
        self.files[f"metadata/{self.file_name(role)}"] = data
        version = self.metadata[role].signed.version
        if not self.lists or role in (Root.type, Timestamp.type):
            return
        listed = MetaFile(version)
        if self.lists_digests:
            listed = MetaFile(version, len(data), {"sha256": hashlib.sha256(data).hexdigest()})
        if role == Snapshot.type:
            self.timestamp.snapshot_meta = listed
        else:
            self.snapshot.meta[f"{role}.json"] = listed

    def served(self, role: str) -> bytes:
        """Return a role's current bytes."""
        return self.files[f"metadata/{self.file_name(role)}"]

    def edit_served(self, role: str, edit: Callable[[dict[str, Any]], object]) -> None:
        """Change the served document itself, signatures included, as only an attacker would."""
        document = json.loads(self.served(role))
        edit(document)
        self.files[f"metadata/{self.file_name(role)}"] = json.dumps(document).encode()

    def file_name(self, role: str) -> str:
        """Return the name of the file that a role's current version is served as."""
        versioned = role == Root.type or (self.root.consistent_snapshot and role != Timestamp.type)
        return f"{self.metadata[role].signed.version}.{role}.json" if versioned else f"{role}.json"

    def add_target(
        self,
        path: str,
        data: bytes,
        role: str = Targets.type,
        hashes: Iterable[str] = ("sha256",),
    ) -> str:
        """List a target and serve it, under each of its digests; return the first such path."""
        target = TargetFile.from_data(path, data, list(hashes))
        self.targets(role).targets[path] = target
        served = self.target_files(path, role)
        self.files.update(dict.fromkeys(served, data))
        return served[0]

    def target_files(self, path: str, role: str = Targets.type) -> list[str]:
        """Return the paths that a target is served under."""
        if not self.root.consistent_snapshot:
            return [f"targets/{path}"]
        directory, slash, name = path.rpartition("/")
        hashes = self.targets(role).targets[path].hashes.values()
        return [f"targets/{directory}{slash}{digest}.{name}" for digest in hashes]

    def delegate(
        self,
        name: str,
        paths: Iterable[str] = ("*",),
        *,
        by: str = Targets.type,
        terminating: bool = False,
        threshold: int = 1,
        expires: datetime | None = None,
    ) -> CryptoSigner:
        """Delegate paths to a role, made if there is none; return the key that signs for it."""
        if name not in self.metadata:
            self.metadata[name] = Metadata(Targets(expires=expires or self._expires))
            self.signers[name] = [CryptoSigner.generate_ed25519()]
        delegator = self.targets(by)
        delegator.delegations = delegator.delegations or Delegations({}, {})
        assert delegator.delegations.roles is not None
        delegator.delegations.roles[name] = DelegatedRole(
            name, [], threshold, terminating, list(paths)
        )
        signer = self.signers[name][0]
        delegator.add_key(signer.public_key, name)
        return signer

    def asked(self) -> list[str]:
        """Return what was asked for of the metadata since the last call, and forget all of it."""
        names = [path for path in self.requests if path.startswith("metadata/")]
        self.requests.clear()
        return [name.removeprefix("metadata/").removesuffix(".json") for name in names]


class Server(ThreadingHTTPServer):
    """Serves repositories, each under its own name."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self._mounted: dict[str, TufRepository] = {}

    def mount(self, repository: TufRepository) -> str:
        """Serve a repository; return its address, without a final slash."""
        name = f"repository-{len(self._mounted)}"
        self._mounted[name] = repository
        return f"http://127.0.0.1:{self.server_port}/{name}"

    def find(self, name: str) -> TufRepository:
        """Return the repository of that name."""
        return self._mounted[name]


@contextmanager
def running() -> Iterator[Server]:
    """Run a server for as long as the block lasts."""
    with Server() as server:
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


def break_off(data: bytes, after: int) -> Answer:
    """Return an answer that announces all of `data` and ends after some of its bytes."""

    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(data)))
        handler.end_headers()
        handler.wfile.write(data[:after])

    return answer


def stall(data: bytes, after: int, until: Event) -> Answer:
    """Return an answer that stops after some of `data` and goes on when `until` is set."""

    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(data)))
        handler.end_headers()
        with suppress(OSError):  # the client may be gone
            handler.wfile.write(data[:after])
            until.wait(30)
            handler.wfile.write(data[after:])

    return answer


def refuse(status: int, **headers: str) -> Answer:
    """Return an answer with that status and those headers, `_` for `-`, and no body."""

    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(status)
        for name, value in headers.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.send_header("Content-Length", "0")
        handler.end_headers()

    return answer


def hang_up(handler: BaseHTTPRequestHandler) -> None:
    """Close the connection without an answer."""
    handler.close_connection = True


class _Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        name, _, path = self.path.lstrip("/").partition("/")
        repository = cast("Server", self.server).find(name)
        repository.requests.append(path)
        decoded = unquote(path)
        data = repository.files.get(decoded)
        if decoded in repository.answers:
            repository.answers[decoded](self)
        elif data is None:
            self.send_error(404)
        else:
            self.send_response(200)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        """Stay silent: the tests look at `requests`."""
