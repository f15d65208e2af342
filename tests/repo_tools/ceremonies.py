"""Ceremonies as tests hold them: propose, sign with the keys of holders, publish, follow."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from securesystemslib.signer import CryptoSigner, Signer
from tuf.api.metadata import Metadata, MetaFile, Snapshot, Targets, Timestamp
from tuf.api.serialization.json import JSONSerializer

from modelward.errors import NotFound
from modelward.formats import channel as channels
from modelward.formats import release as releases
from modelward.formats.floors import Floors
from modelward.trust.repository import Repository
from modelward_repo.publish.staging import FIRST_ROOT, STAGED, Staging
from modelward_repo.roles import ceremony, enact
from modelward_repo.roles.changes import Change, HeldKey
from modelward_repo.roles.keys import KeyFile, find_signers, from_sslib
from modelward_repo.roles.request import Request
from modelward_repo.roles.state import View, before, model_of
from modelward_repo.storage import Storage
from modelward_repo.storage.local import LocalStorage
from tests.repo_tools.site import Site


def now() -> datetime:
    return datetime.now(UTC).replace(microsecond=0)


def make_key(site: Site, holder: str, name: str, scheme: str = "ed25519") -> HeldKey:
    """Create a holder's key."""
    return HeldKey(KeyFile.of(site.keys, holder, name).create(None, scheme), holder)


def signer(site: Site, holder: str, name: str) -> Signer:
    return KeyFile.of(site.keys, holder, name).signer(lambda _path: b"")


def view(site: Site) -> View:
    return before(ceremony.load(Staging.of(LocalStorage(site.directory), now())))


def keyid(site: Site, holder: str, name: str) -> str:
    return KeyFile.of(site.keys, holder, name).public().keyid


def propose(site: Site, *changes: Change) -> Request:
    return ceremony.propose(LocalStorage(site.directory), ceremony.Wish(changes), now())


def sign(request: Request, site: Site, *names: str) -> Request:
    """Sign with keys named HOLDER/NAME, as their holders would."""
    for name in names:
        request, _ = ceremony.sign(request, signer(site, *name.split("/")))
    return request


def publish(
    site: Site, request: Request, *, leave_out: Sequence[str] = (), storage: Storage | None = None
) -> enact.Enacted:
    """Publish with the online keys in the site's folder."""

    def find(role: str, keyids: Any, threshold: int) -> list[Signer]:
        return find_signers(site.keys, role, keyids, threshold, lambda _path: b"")

    order = enact.Order(find, tuple(leave_out))
    return enact.enact(storage or LocalStorage(site.directory), request, order, now())


def change(
    site: Site, *changes: Change, by: str = "alice bob", roles: str = "root"
) -> enact.Enacted:
    """Hold a whole ceremony: propose, have holders sign with their keys of roles, publish."""
    request = propose(site, *changes)
    names = [
        f"{holder}/{role}"
        for holder in by.split()
        for role in roles.split()
        if role in request.roles_of(keyid(site, holder, role))
    ]
    return publish(site, sign(request, site, *names))


@dataclass
class Over:
    """A repository's files with others laid over them, as a thief with a server would."""

    site: Site
    files: Mapping[str, bytes] = field(default_factory=dict)

    def fetch(self, url: str, limit: int) -> bytes:  # noqa: ARG002
        path = url.removeprefix(STAGED)
        if path in self.files:
            return self.files[path]
        file = self.site.directory / path
        if not file.is_file():
            raise NotFound(path)
        return file.read_bytes()


@dataclass
class Device:
    """A device with its cache and floors, across updates."""

    site: Site
    place: Path
    floors: Floors = field(default_factory=Floors)
    root: bytes = b""

    def __post_init__(self) -> None:
        self.place.mkdir(parents=True)
        self.root = (self.site.directory / FIRST_ROOT).read_bytes()

    def follow(self, files: Mapping[str, bytes] | None = None) -> Repository:
        """Update; read every role. Raises Refused if the repository cannot be followed."""
        repository = Repository(
            cache=self.place,
            metadata_url=f"{STAGED}metadata/",
            targets_url=f"{STAGED}targets/",
            fetcher=Over(self.site, files or {}),
            root=self.root,
            floors=self.floors,
        )
        repository.refresh()
        targets: Targets = repository.cache.read("targets").signed
        assert targets.delegations
        for role in targets.delegations.roles or ():
            path = channels.target_path("any")
            if model := model_of(role):
                path = releases.target_path(model, "0")
            repository.target_info(path)
        self.floors = repository.new_floors()
        return repository

    def version(self, role: str) -> int:
        return Metadata.from_file(str(self.place / f"{role}.json")).signed.version


def fast_forward(
    site: Site,
    thief: Mapping[str, Signer],
    version: int,
    targets: Mapping[str, bytes] | None = None,
) -> dict[str, bytes]:
    """Return what a thief serves: snapshot and timestamp of a huge version, and other roles too.

    Args:
        site: The repository.
        thief: The keys that were stolen, by role.
        version: The version.
        targets: Metadata files of targets roles, by role.
    """
    snapshot: Metadata[Snapshot] = site.metadata("snapshot")
    timestamp: Metadata[Timestamp] = site.metadata("timestamp")
    files = {}
    for role, data in (targets or {}).items():
        number = Metadata.from_bytes(data).signed.version
        snapshot.signed.meta[f"{role}.json"] = MetaFile(number)
        files[f"metadata/{number}.{role}.json"] = data
    snapshot.signed.version = version
    files[f"metadata/{version}.snapshot.json"] = _sign(snapshot, thief["snapshot"])
    timestamp.signed.version = version
    timestamp.signed.snapshot_meta = MetaFile(version)
    files["metadata/timestamp.json"] = _sign(timestamp, thief["timestamp"])
    return files


def forged(site: Site, role: str, version: int, *signers: Signer) -> bytes:
    """Return a role's metadata with another version, signed by stolen keys."""
    metadata = site.metadata(role)
    metadata.signed.version = version
    return _sign(metadata, *signers)


def _sign(metadata: Metadata[Any], *signers: Signer) -> bytes:
    metadata.signatures.clear()
    for one in signers:
        metadata.sign(one, append=True)
    return metadata.to_bytes(JSONSerializer(compact=True))


def held(one: CryptoSigner, holder: str) -> HeldKey:
    return HeldKey(from_sslib(one.public_key), holder)
