"""A device: its configuration, and where everything that it keeps is."""

import importlib.metadata
import os
import platform
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import TypeVar

from modelward.config import Config
from modelward.errors import PUT_ROOT_BACK, Gate, Refused
from modelward.install import memory
from modelward.install.alarms import AlarmStore
from modelward.install.boot import boot_id, uptime
from modelward.install.floors import FloorStore
from modelward.install.log_state import LogStore
from modelward.install.memory import Unreadable
from modelward.install.owner import is_owner
from modelward.install.slots import Slots
from modelward.install.store import Store
from modelward.install.trial import Trials
from modelward.trust.requirements import Facts

Known = TypeVar("Known")


@dataclass(frozen=True)
class Device:
    """A device: its configuration and everything it keeps.

    Attributes:
        config: Its configuration.
        clock: Returns the time, with a time zone.
        facts: What its releases may require of it.
        environment: The environment of the operator's command.
        boot: Returns what tells one boot of the device from another.
        uptime: Returns seconds since that boot.
    """

    config: Config
    clock: Callable[[], datetime] = lambda: datetime.now(UTC)
    facts: Facts = field(default_factory=lambda: Facts(platform.machine(), runtime_version))
    environment: Mapping[str, str] = field(default_factory=lambda: dict(os.environ))
    boot: Callable[[], str] = boot_id
    uptime: Callable[[], int] = uptime

    @property
    def root(self) -> bytes:
        """The provisioned root metadata.

        Raises:
            Refused: It is not there any more.
        """
        path = self.config.state / "root.json"
        root = memory.read(path, Gate.METADATA)
        if not root:
            raise Refused(Gate.METADATA, f"the trusted root {path} is gone", PUT_ROOT_BACK)
        return root

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

    @cached_property
    def trials(self) -> Trials:
        """What takes releases on trial; the same each time: it may remember what it cannot save."""
        return Trials(self.config.state, self.slots, self.floors, self.boot, self.uptime)

    @property
    def alarms(self) -> AlarmStore:
        """What was found changed since it was installed."""
        return AlarmStore(self.config.state, self.environment)

    @property
    def log(self) -> LogStore:
        """What it remembers of the transparency log, and evidence against that."""
        return LogStore(self.config.state)

    def known(self, read: Callable[[], Known]) -> Known | None:
        """Return what the owner of the state directory knows; None to others who may not read it.

        Raises:
            Unavailable: It cannot be read by whoever should be able to.
        """
        try:
            return read()
        except Unreadable as error:
            if isinstance(error.__cause__, PermissionError) and not is_owner(self.config.state):
                return None
            raise


def runtime_version(distribution: str) -> str | None:
    """Return the version of an installed Python distribution, or None."""
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None
