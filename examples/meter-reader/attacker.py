"""What an attacker can do with which stolen keys: never more than those keys allow.

Publishes without asking any gate, as somebody with the server and some keys in hand would.
"""

import hashlib
import json
import shutil
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import NoReturn

from securesystemslib.signer import CryptoSigner, Signer

from modelward.errors import UsageError
from modelward.formats import channel as channels
from modelward.formats import dsse
from modelward.formats import release as releases
from modelward.formats.channel import Channel
from modelward.formats.policy import format_of
from modelward.formats.release import Blob, Release, ReleaseFile
from modelward.formats.ticket import Ticket
from modelward_repo.publish.staging import Online, Staging
from modelward_repo.roles.keys import KeyFile
from modelward_repo.storage.local import LocalStorage
from modelward_repo.supply_chain.signing import sign

MODEL = "meter-reader"


def _no_passphrase(path: Path) -> NoReturn:
    raise UsageError(f"{path} is encrypted: the thief is out of luck")


class Attacker:
    """Somebody who controls a mirror and may hold stolen keys.

    Args:
        mirror: The directory that the mirror serves; theirs to change.
        keys: Where the honest keys lie, to steal from.
        model: The model they are after.
    """

    def __init__(self, mirror: Path, keys: Path, model: str = MODEL) -> None:
        self.mirror = mirror
        self.model = model
        self._role = f"model-{model}"
        self._keys = keys
        self._storage = LocalStorage(mirror)

    def steal(self, holder: str, name: str) -> CryptoSigner:
        """Take a private key."""
        return KeyFile.of(self._keys, holder, name).signer(_no_passphrase)

    def forge_key(self) -> CryptoSigner:
        """Make a key that nobody knows."""
        return CryptoSigner.generate_ed25519()

    def online(self) -> Online:
        """Take the keys of snapshot and timestamp: they lie on the server."""
        return Online(
            [self.steal("repository", "snapshot")], [self.steal("repository", "timestamp")]
        )

    def read_bundle(self, version: str) -> dict[str, bytes]:
        """Return the files of an honest release."""
        release, _ = self._honest(version)
        return {file.path: self._blob(file.blob.sha256).read_bytes() for file in release.files}

    def read_evidence(self, version: str) -> list[dsse.Envelope]:
        """Return the links of an honest release."""
        return list(dsse.parse_evidence(self._honest(version)[1]))

    def publish(
        self,
        version: str,
        bundle: Mapping[str, bytes],
        evidence: Sequence[dsse.Envelope],
        release_keys: Sequence[Signer],
        online: Online | None = None,
    ) -> None:
        """Publish whatever is given, on the channel too, with the operator's stolen key."""
        staging = Staging.of(self._storage, datetime.now(UTC))
        files = []
        for path, data in bundle.items():
            digest = hashlib.sha256(data).hexdigest()
            self._blob(digest).parent.mkdir(parents=True, exist_ok=True)
            self._blob(digest).write_bytes(data)
            files.append(ReleaseFile(path, Blob(digest, len(data)), format_of(path) or "text"))
        ticket = Ticket.parse(bundle["ticket.json"])
        release = Release(
            model=self.model,
            version=version,
            counter=ticket.counter,
            released=datetime.now(UTC),
            ticket=ticket,
            files=tuple(files),
        )
        added = {
            release.target_path: release.to_bytes(),
            releases.evidence_path(self.model, version): b"".join(
                link.to_bytes() for link in evidence
            ),
        }
        staging.put_targets(self._role, staging.targets(self._role), added, release_keys)
        self._point_channel(staging, version)
        staging.finish(online or self.online())
        staging.commit()

    def forge_link(
        self, link: dsse.Envelope, products: Mapping[str, bytes], signer: CryptoSigner
    ) -> dsse.Envelope:
        """Sign a link again that claims other products."""
        content = json.loads(link.payload)
        content["products"] |= {
            path: {"sha256": hashlib.sha256(data).hexdigest()} for path, data in products.items()
        }
        return sign(dsse.Envelope.unsigned(content), signer)

    def swap_file(self, version: str, name: str, new: bytes) -> None:
        """Serve other bytes for a file of a release, by whatever way a device comes by it."""
        release, _ = self._honest(version)
        file = release.file(name)
        if file is None:
            raise SystemExit(f"{version} has no {name}")
        ways = [patch.blob for patch in release.patches if patch.to == file.blob.sha256]
        for blob in (file.blob, *ways):
            path = self._blob(blob.sha256)
            path.chmod(0o644)
            path.write_bytes(new)

    def replay(self, old_repository: Path) -> None:
        """Serve the repository as it was."""
        shutil.rmtree(self.mirror)
        shutil.copytree(old_repository, self.mirror)

    def _point_channel(self, staging: Staging, version: str) -> None:
        path = channels.target_path("stable")
        channel = Channel.parse(staging.target("channels", path) or b"")
        models = {**channel.models, self.model: channels.Entry(version)}
        staging.put_targets(
            "channels",
            staging.targets("channels"),
            {path: Channel("stable", models).to_bytes()},
            [self.steal("operator", "channels")],
        )

    def _honest(self, version: str) -> tuple[Release, bytes]:
        staging = Staging.of(self._storage, datetime.now(UTC))
        release = staging.target(self._role, releases.target_path(self.model, version)) or b""
        evidence = staging.target(self._role, releases.evidence_path(self.model, version)) or b""
        return Release.parse(release), evidence

    def _blob(self, digest: str) -> Path:
        return self.mirror / "blobs" / "sha256" / digest[:2] / digest
