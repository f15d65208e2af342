"""Somebody who runs the server or a mirror of it, with exactly the keys that they stole.

A thief publishes without asking any gate. Where a key is missing they sign with one of their own,
which nobody trusts. Everything is done to the repository that devices are served from; `restore`
puts it right again.
"""

import copy
import hashlib
import shutil
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

from securesystemslib.signer import CryptoSigner
from tuf.api.metadata import Metadata, Root, Snapshot, Targets, Timestamp

from modelward.formats import channel as channels
from modelward.formats import dsse
from modelward.formats import policy as policies
from modelward.formats import release as releases
from modelward.formats.channel import Channel, Entry
from modelward.formats.policy import format_of
from modelward.formats.release import Blob, Release, ReleaseFile, Requirements
from modelward.formats.ticket import FILE as TICKET_FILE
from modelward.formats.ticket import Ticket
from modelward_repo.publish import versions
from modelward_repo.publish.blobs import blob_path
from modelward_repo.publish.release import GOLDEN
from modelward_repo.publish.staging import Online, Staging
from modelward_repo.roles import metadata as tuf
from modelward_repo.roles.keys import KeyFile
from modelward_repo.roles.policy import CHANNELS, role_name
from modelward_repo.supply_chain.signing import sign
from tests.simulator.chain import HonestChain, Tamper
from tests.simulator.model_files import onnx_file
from tests.simulator.world import MODEL, World, no_passphrase, now, write_plain

SNAPSHOT = "repository/snapshot"
TIMESTAMP = "repository/timestamp"
SERVER = (SNAPSHOT, TIMESTAMP)
RELEASE = f"release-ci/{role_name(MODEL)}"
CHANNEL = f"operator/{CHANNELS}"
PUBLISHER = (*SERVER, RELEASE, CHANNEL)
SECURITY_TEAM = ("alice/targets", "bob/targets")
OWNERS = ("lead-a/layout", "lead-b/layout")
_THREE_DAYS = timedelta(days=3)


class Thief:
    """See the module.

    Args:
        world: The world; its repository is the thief's from now on.
        stolen: Keys by holder and name, such as ``repository/timestamp``.

    Attributes:
        own: A key that nobody trusts.
    """

    def __init__(self, world: World, stolen: Sequence[str]) -> None:
        self.world = world
        self._stolen = {
            key: KeyFile(world.keys / f"{key}.key").signer(no_passphrase) for key in stolen
        }
        self.own = CryptoSigner.generate_ed25519()

    # --- keys

    def signers(self, role: str) -> list[CryptoSigner]:
        """Return the stolen keys of a role, or a key that nobody trusts."""
        found = [signer for key, signer in self._stolen.items() if key.endswith(f"/{role}")]
        return found or [self.own]

    def signer(self, holder: str, name: str = "functionary") -> CryptoSigner:
        """Return a holder's key if it was stolen, or one that nobody trusts."""
        return self._stolen.get(f"{holder}/{name}", self.own)

    def online(self) -> Online:
        """Return what signs snapshot and timestamp."""
        return Online(self.signers("snapshot"), self.signers("timestamp"))

    # --- honest releases

    def files_of(self, version: str, model: str = MODEL) -> dict[str, bytes]:
        """Return the files of a published release."""
        data = self.stage().target(role_name(model), releases.target_path(model, version))
        release = Release.parse(data or b"")
        return {file.path: self.read(blob_path(file.blob)) for file in release.files}

    def evidence_of(self, version: str, model: str = MODEL) -> list[dsse.Envelope]:
        """Return the honest links of a published release."""
        data = self.stage().target(role_name(model), releases.evidence_path(model, version))
        return list(dsse.parse_evidence(data or b""))

    def links(
        self, chain: HonestChain, tamper: Tamper, deceived: Collection[str] = ()
    ) -> list[dsse.Envelope]:
        """Return a run's links, honest people's but for those that `tamper` changes.

        What is changed is signed with stolen keys alone, or by people who were deceived: they
        attest in good faith what the thief gave them.
        """
        found = []
        for honest in chain.evidence:
            link = chain.link(honest.content["name"], _holder(chain, honest))
            before = copy.deepcopy(link.content)
            changed = tamper(link)
            if changed is None:
                continue
            if changed.content == before:
                found.append(honest)
            elif changed.holder in deceived:
                found.append(chain.sign(changed))
            else:
                forged = dsse.Envelope.unsigned(changed.content)
                found.append(sign(forged, self.signer(changed.holder)))
        return found

    # --- roles

    def stage(self) -> Staging:
        """Return the repository, to be changed."""
        return Staging.of(self.world.storage, now())

    def put(self, staging: Staging, role: str, added: Mapping[str, bytes]) -> None:
        """Stage targets of a role."""
        staging.put_targets(role, staging.targets(role), added, self.signers(role))

    def commit(self, staging: Staging) -> None:
        """Sign snapshot and timestamp and serve it all."""
        staging.finish(self.online())
        staging.commit()

    def publish(
        self,
        version: str,
        content: Mapping[str, bytes],
        evidence: Sequence[dsse.Envelope] | bytes,
        *,
        model: str = MODEL,
        document: bytes | None = None,
        requires: Requirements | None = None,
        offer: bool = True,
    ) -> None:
        """Publish whatever is given.

        Args:
            version: The version.
            content: The files, with a ticket; they also go beside a file of checksums.
            evidence: The links, or what to publish in their place.
            model: The model.
            document: What to publish as release.json; None for one that fits the files.
            requires: What the release demands.
            offer: Whether to point the channel at it.
        """
        staging = self.stage()
        for data in content.values():
            self.write(blob_path(_blob(data)), data)
        release = release_of(version, content, requires, model)
        links = (
            evidence
            if isinstance(evidence, bytes)
            else b"".join(link.to_bytes() for link in evidence)
        )
        added = {
            releases.target_path(model, version): document or release.to_bytes(),
            releases.evidence_path(model, version): links,
        }
        self.put(staging, role_name(model), added)
        if offer:
            self._offer(staging, {model: Entry(version)})
        self.commit(staging)
        if model == MODEL:
            write_plain(self.world.repository, content)

    def offer(self, entries: Mapping[str, Entry]) -> None:
        """Point the channel `stable` elsewhere."""
        staging = self.stage()
        self._offer(staging, entries)
        self.commit(staging)

    def replace_layout(
        self, change: Callable[[dict[str, Any]], Any], owners: Sequence[str] = ("lead-a", "lead-b")
    ) -> None:
        """Publish a changed layout, signed by owners whose keys were stolen."""
        staging = self.stage()
        path = policies.layout_path(MODEL)
        old = dsse.Envelope.parse("layout", staging.target(Targets.type, path) or b"")
        content = copy.deepcopy(dict(old.content))
        change(content)
        layout = dsse.Envelope.unsigned(content)
        for owner in owners:
            layout = sign(layout, self.signer(owner, "layout"))
        self.put(staging, Targets.type, {path: layout.to_bytes()})
        self.commit(staging)

    def sign_root(
        self, version: int, signers: Sequence[CryptoSigner], change: Callable[[Root], Any]
    ) -> None:
        """Serve a root."""
        root: Metadata[Root] = copy.deepcopy(self.stage().root)
        change(root.signed)
        data = tuf.sign(root, version, root.signed.expires, signers)
        self.write(f"metadata/{version}.root.json", data)

    def sign_snapshot(self, version: int, change: Callable[[Snapshot], Any]) -> None:
        """Serve a snapshot, and a new timestamp that lists it."""
        staging = self.stage()
        snapshot = staging.snapshot
        change(snapshot.signed)
        data = tuf.sign(snapshot, version, snapshot.signed.expires, self.signers("snapshot"))
        self.write(f"metadata/{version}.snapshot.json", data)
        self.sign_timestamp(self.timestamp.version + 1, tuf.meta_file(version, data))

    def sign_timestamp(self, version: int, snapshot: Any = None) -> None:
        """Serve a timestamp."""
        metadata: Metadata[Timestamp] = Metadata.from_bytes(self.read("metadata/timestamp.json"))
        metadata.signed.snapshot_meta = snapshot or metadata.signed.snapshot_meta
        data = tuf.sign(metadata, version, now() + _THREE_DAYS, self.signers("timestamp"))
        self.write("metadata/timestamp.json", data)

    @property
    def timestamp(self) -> Timestamp:
        """The timestamp that is served."""
        return Metadata[Timestamp].from_bytes(self.read("metadata/timestamp.json")).signed

    # --- files

    def read(self, path: str) -> bytes:
        """Return a file of the repository."""
        return (self.world.repository / path).read_bytes()

    def write(self, path: str, data: bytes) -> None:
        """Write a file of the repository, over what was there."""
        place = self.world.repository / path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(data)

    def replay(self, repository: Path, part: str = "") -> None:
        """Serve the repository, or a part of it, as it was."""
        shutil.rmtree(self.world.repository / part)
        shutil.copytree(repository / part, self.world.repository / part)

    def _offer(self, staging: Staging, entries: Mapping[str, Entry]) -> None:
        path = channels.target_path("stable")
        channel = Channel.parse(staging.target(CHANNELS, path) or b"")
        changed = Channel("stable", {**channel.models, **entries})
        self.put(staging, CHANNELS, {path: changed.to_bytes()})


def restore(world: World, backup: Path) -> None:
    """Put a repository right after a theft, as its operator would.

    The content is that of the backup, signed anew under versions above all that the thief used:
    devices have seen those. (That the stolen keys are replaced, too, is left out.)
    """
    used = versions.last(world.storage)
    timestamp = _timestamp_version(world.repository)
    shutil.rmtree(world.repository)
    shutil.copytree(backup, world.repository)

    staging = Staging.of(world.storage, now())
    assert staging.timestamp
    honest = dict(staging._versions)
    staging._versions = {role: max(honest[role], used.get(role, 0)) for role in honest}
    staging.timestamp.signed.version = max(staging.timestamp.signed.version, timestamp)
    for role in set(honest) - {"root", "snapshot"}:
        if staging._versions[role] > honest[role]:
            staging.sign_again(role, world.signers(role))
    staging.finish(world.online())
    staging.commit()


def release_of(
    version: str,
    content: Mapping[str, bytes],
    requires: Requirements | None = None,
    model: str = MODEL,
) -> Release:
    """Return a release that consists of these files."""
    ticket = Ticket.parse(content[TICKET_FILE])
    return Release(
        model=model,
        version=version,
        counter=ticket.counter,
        released=now(),
        ticket=ticket,
        files=tuple(
            ReleaseFile(path, _blob(data), format_of(path) or "text")
            for path, data in content.items()
        ),
        requires=requires or Requirements(),
        golden=GOLDEN if GOLDEN in content else None,
    )


def renamed(content: Mapping[str, bytes], version: str) -> dict[str, bytes]:
    """Return the same files with a ticket for another version, newer than any honest one."""
    old = Ticket.parse(content[TICKET_FILE])
    return {**content, TICKET_FILE: replace(old, version=version, counter=1000).to_bytes()}


def poison(content: Mapping[str, bytes]) -> dict[str, bytes]:
    """Return the same files with other weights."""
    return {**content, "model.onnx": onnx_file(b"poisoned weights")}


def _timestamp_version(repository: Path) -> int:
    data = (repository / "metadata/timestamp.json").read_bytes()
    return Metadata[Timestamp].from_bytes(data).signed.version


def _blob(data: bytes) -> Blob:
    return Blob(hashlib.sha256(data).hexdigest(), len(data))


def _holder(chain: HonestChain, link: dsse.Envelope) -> str:
    """Return who signed an honest link."""
    (keyid,) = link.signatures
    step = next(step for step in chain.source.steps if step.name == link.content["name"])
    return next(name for name in step.functionaries if chain.people.key(name).keyid == keyid)
