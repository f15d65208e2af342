"""A device: its configuration, and where everything that it keeps is."""

import importlib.metadata
import platform
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from modelward.config import Config
from modelward.install.floors import FloorStore
from modelward.install.log_state import LogStore
from modelward.install.slots import Slots
from modelward.install.store import Store
from modelward.trust.requirements import Facts


@dataclass(frozen=True)
class Device:
    """A device: its configuration and everything it keeps.

    Attributes:
        config: Its configuration.
        clock: Returns the time, with a time zone.
        facts: What its releases may require of it.
    """

    config: Config
    clock: Callable[[], datetime] = lambda: datetime.now(UTC)
    facts: Facts = field(default_factory=lambda: Facts(platform.machine(), runtime_version))

    @property
    def root(self) -> bytes:
        """The provisioned root metadata."""
        return (self.config.state / "root.json").read_bytes()

    @property
    def cache(self) -> Path:
        """TUF's cached metadata."""
        return self.config.state / "tuf"

    @property
    def store(self) -> Store:
        """The blobs."""
        return Store(self.config.state / "store")

    @property
    def slots(self) -> Slots:
        """The installed releases."""
        return Slots(self.config.state, self.store)

    @property
    def floors(self) -> FloorStore:
        """What may only rise."""
        return FloorStore(self.config.state)

    @property
    def log(self) -> LogStore:
        """What it remembers of the transparency log, and evidence against that."""
        return LogStore(self.config.state)


def runtime_version(distribution: str) -> str | None:
    """Return the version of an installed Python distribution, or None."""
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None
