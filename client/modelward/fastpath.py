"""Gate 3, fast path: is there anything new at all? One small request, and no TUF library loaded.

Most checks find nothing. If the server still has the very timestamp that was verified when this
device last came to rest, and nothing that was verified then has expired, then nothing has changed
and the check is over. A mirror gains nothing from it that it did not have (docs/adr/0008): it
could always serve old metadata until that expires, and no longer.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Protocol

from modelward.config import Config
from modelward.errors import FormatError, ModelwardError
from modelward.formats import strict
from modelward.install import fsops

FILE = "rest.json"
DOCUMENT = "rest.json"
SCHEMA = "modelward/rest/1"
CAP = 4096
TIMESTAMP_CAP = 16_384  # bytes, as TUF's client has it
PROBE_ROOT = timedelta(days=1)  # a new root is looked for at least this often


class Conditional(Protocol):
    """Fetches a document unless it is the one that is already known."""

    def fetch_unless(self, url: str, limit: int, sha256: str) -> bytes | None:
        """Return the body, or None if the server says that its digest is still `sha256`."""
        ...


@dataclass(frozen=True)
class Rest:
    """How things stood when the device last found nothing left to do.

    Attributes:
        timestamp: Digest of the timestamp metadata that was verified.
        settings: Digest of what the device asked for.
        generation: The generation that was installed.
        since: When that was, and a new root was last looked for.
        expires: When the first of all roles that were verified expires.
    """

    timestamp: str
    settings: str
    generation: int
    since: datetime
    expires: datetime

    @classmethod
    def parse(cls, data: bytes) -> "Rest":
        """Parse the file.

        Raises:
            FormatError: It is ill-formed.
        """
        fields = strict.Fields(DOCUMENT, strict.load(DOCUMENT, data, CAP))
        fields.schema(SCHEMA)
        return cls(
            timestamp=fields.sha256("timestamp"),
            settings=fields.sha256("settings"),
            generation=fields.integer("generation"),
            since=fields.time("since"),
            expires=fields.time("expires"),
        )

    def to_bytes(self) -> bytes:
        """Return the file."""
        return strict.dump(
            {
                "schema": SCHEMA,
                "timestamp": self.timestamp,
                "settings": self.settings,
                "generation": self.generation,
                "since": strict.rfc3339(self.since),
                "expires": strict.rfc3339(self.expires),
            }
        )


def remember(state: Path, rest: Rest) -> None:
    """Note how things stand."""
    fsops.write_file(state / FILE, rest.to_bytes())


def forget(state: Path) -> None:
    """Make the next check a full one."""
    fsops.remove(state / FILE)


def settings_digest(config: Config, models: Sequence[str]) -> str:
    """Return the digest of everything on which the answer depends but the repository."""
    asked = [config.repository, config.channel, config.device_id, dict(config.labels)]
    text = json.dumps([*asked, sorted(models or config.models)], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def nothing_new(config: Config, models: Sequence[str], now: datetime, source: Conditional) -> bool:
    """Tell whether the repository is as it was when this device last came to rest.

    False means only that a full check is needed; so does every problem.

    Args:
        config: The device's configuration.
        models: The models that are asked for; empty for those configured.
        now: The time.
        source: Fetches the timestamp.
    """
    rest = _recall(config, models, now)
    if rest is None:
        return False
    url = f"{config.repository}/metadata/timestamp.json"
    try:
        body = source.fetch_unless(url, TIMESTAMP_CAP, rest.timestamp)
    except ModelwardError:
        return False
    return body is None or hashlib.sha256(body).hexdigest() == rest.timestamp


def _recall(config: Config, models: Sequence[str], now: datetime) -> Rest | None:
    """Return how things stood, if that still bears on what is asked now."""
    try:
        rest = Rest.parse((config.state / FILE).read_bytes())
        current = _generation(config.state)
    except (OSError, FormatError):
        return None
    fresh = rest.since <= now < min(rest.expires, rest.since + PROBE_ROOT)
    same = (rest.settings, str(rest.generation)) == (settings_digest(config, models), current)
    return rest if fresh and same else None


def _generation(state: Path) -> str:
    """Return the current generation's number; 0 before anything was installed."""
    current = state / "current"
    return current.readlink().name if current.is_symlink() else "0"
