"""TUF's cached metadata: who signed what, and until when, as the last refresh verified it."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, cast
from urllib.parse import quote

from tuf.api import exceptions as tuf_errors
from tuf.api.metadata import Metadata, Root, Snapshot, Targets, Timestamp

from modelward import plain_file
from modelward.errors import Unavailable
from modelward.trust.tuf_client import sentence

CAP = 64 << 20  # bytes: more than any metadata has
TOP_LEVEL = (Root.type, Timestamp.type, Snapshot.type, Targets.type)


@dataclass(frozen=True)
class RoleState:
    """One role of the repository, as verified.

    Attributes:
        name: The role's name.
        version: Its metadata's version.
        expires: When that expires.
        threshold: How many keys must sign.
        signers: Key ids whose signatures are valid and count.
        keys: All key ids that may sign.
    """

    name: str
    version: int
    expires: datetime
    threshold: int
    signers: tuple[str, ...]
    keys: tuple[str, ...]


class Cache:
    """TUF's cached metadata: what the last refresh verified, byte for byte as it was served.

    Args:
        directory: Where it is: `root.json`, `timestamp.json` ...
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def file(self, role: str) -> Path:
        """Return the metadata file of a role."""
        return self._directory / f"{quote(role, '')}.json"

    def read(self, role: str) -> Metadata[Any]:
        """Return the metadata of a role.

        Raises:
            OSError: It cannot be read.
            RepositoryError: It is damaged.
        """
        # Metadata.from_file has an error of its own for what cannot be read.
        return Metadata[Any].from_bytes(self.content(role))

    def digest(self, role: str) -> str:
        """Return the SHA-256 digest of the metadata file of a role."""
        return hashlib.sha256(self.content(role)).hexdigest()

    def content(self, role: str) -> bytes:
        """Return the metadata of a role, byte for byte.

        Raises:
            OSError: It cannot be read.
        """
        return plain_file.read(self.file(role), CAP)

    def root(self) -> Root:
        """Return the newest root."""
        return cast("Root", self.read(Root.type).signed)

    def snapshot(self) -> Snapshot:
        """Return the newest snapshot."""
        return cast("Snapshot", self.read(Snapshot.type).signed)

    def roles(self) -> Iterator[RoleState]:
        """Yield the state of every role seen so far, top-level roles first.

        Raises:
            Unavailable: The cache is damaged; the next refresh mends it.
        """
        try:
            root = self.root()
            for name in TOP_LEVEL:
                yield state_of(name, self.read(name), root)
            targets = cast("Targets", self.read(Targets.type).signed)
            delegated = targets.delegations.roles if targets.delegations else None
            for name in delegated or ():
                if self.file(name).exists():
                    yield state_of(name, self.read(name), targets)
        except (OSError, tuf_errors.RepositoryError, ValueError, AttributeError) as error:
            raise Unavailable(
                f"the metadata of the last update cannot be read: {sentence(error)}",
                "run `modelward update`",
            ) from error


def state_of(
    name: str,
    metadata: Metadata[Any],
    delegator: Root | Targets,
) -> RoleState:
    """Return the state of a role, as whoever delegates to it judges its signatures."""
    result = delegator.get_verification_result(name, metadata.signed_bytes, metadata.signatures)
    return RoleState(
        name=name,
        version=metadata.signed.version,
        expires=metadata.signed.expires,
        threshold=result.threshold,
        signers=tuple(sorted(result.signed)),
        keys=tuple(sorted({**result.signed, **result.unsigned})),
    )
