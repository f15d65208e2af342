"""What a thief did to the repository before somebody reached for a runbook."""

from datetime import UTC, datetime
from pathlib import Path

from securesystemslib.signer import Signer

from modelward.formats.channel import Channel, Entry
from modelward.formats.channel import target_path as channel_path
from modelward.formats.strict import MAX_INT
from modelward_repo.publish.staging import Online, Staging
from modelward_repo.roles.keys import KeyFile
from modelward_repo.storage.local import LocalStorage
from tests.runbooks.fleet import MODEL, PASSPHRASE, Fleet


class Loot:
    """Keys that were on the repository's machine when a thief came by.

    Args:
        fleet: The fleet.
    """

    def __init__(self, fleet: Fleet) -> None:
        self._repository = fleet.repository
        self._signers = {
            path.stem: KeyFile(path).signer(lambda _what: PASSPHRASE.encode())
            for path in fleet.keys.glob("*/*.key")
            if path.stem in ("snapshot", "timestamp", "channels", f"model-{MODEL}")
        }

    def stage(self) -> Staging:
        return Staging.of(LocalStorage(self._repository), datetime.now(UTC).replace(microsecond=0))

    def sign(self, role: str) -> list[Signer]:
        return [self._signers[role]]

    def commit(self, staging: Staging) -> None:
        staging.finish(Online(self.sign("snapshot"), self.sign("timestamp")))
        staging.commit()

    def fast_forward(self) -> None:
        """Sign snapshot and timestamp at the highest version there is."""
        staging = self.stage()
        for role in ("snapshot", "timestamp"):
            staging.number(role, MAX_INT)
        self.commit(staging)

    def add_release(self) -> None:
        """List a release that nobody made."""
        staging = self.stage()
        role = f"model-{MODEL}"
        files = {
            f"models/{MODEL}/6.6.6/{name}": b"{}" for name in ("release.json", "evidence.jsonl")
        }
        staging.put_targets(role, staging.targets(role), files, self.sign(role))
        self.commit(staging)

    def point_back(self) -> None:
        """Offer an older release."""
        staging = self.stage()
        path = channel_path("stable")
        channel = Channel("stable", {MODEL: Entry("1.0.0")})
        staging.put_targets(
            "channels",
            staging.targets("channels"),
            {path: channel.to_bytes()},
            self.sign("channels"),
        )
        self.commit(staging)


def keyid(folder: Path, name: str) -> str:
    """Return the id of a key of a folder of holders."""
    holder, _, key = name.partition("/")
    return KeyFile.of(folder, holder, key).public().keyid
