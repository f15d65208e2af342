"""Gate 3, fast path: is there anything new at all? One small request, and no TUF library loaded.

Most checks find nothing. If the server still has the very timestamp that was verified when this
device last came to rest, and nothing that was verified then has expired, then nothing has changed
and the check is over. A mirror gains nothing from it that it did not have (docs/adr/0008): it
could always serve old metadata until that expires, and no longer.

What this module imports is what such a check loads: tests/test_lean.py keeps watch.
"""

import hashlib
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from pathlib import Path
from typing import NamedTuple

from modelward import plain_file
from modelward.errors import FormatError, ModelwardError
from modelward.formats import strict
from modelward.transfer import direct

FILE = "rest.json"
DOCUMENT = "rest.json"
SCHEMA = "modelward/rest/1"
CAP = 1 << 20
TIMESTAMP_CAP = 16_384  # bytes, as TUF's client has it
PROBE_ROOT = timedelta(days=1)  # a new root is looked for at least this often


FetchUnless = Callable[[str, int, str], bytes | None]
"""Returns a document of an address, at most so long, or None if its digest is still the one given.

Raises ModelwardError if it cannot.
"""


class Rest(NamedTuple):
    """How things stood when the device last found nothing left to do.

    Attributes:
        timestamp: Digest of the timestamp metadata that was verified.
        settings: Digest of what the device asked for (`modelward.settings.asked`).
        generation: The generation that was installed.
        since: When that was, and a new root was last looked for.
        expires: When the first of all roles that were verified expires, or sooner, where something
            else is to be done then.
        repository: Address of the repository.
        direct: Whether that is asked without TLS and without a proxy.
        running: The version of every model of that generation.
    """

    timestamp: str
    settings: str
    generation: int
    since: datetime
    expires: datetime
    repository: str
    direct: bool
    running: Mapping[str, str]

    @classmethod
    def parse(cls, data: bytes) -> "Rest":
        """Parse the file.

        Raises:
            FormatError: It is ill-formed.
        """
        fields = strict.Fields(DOCUMENT, strict.load(DOCUMENT, data, CAP))
        fields.schema(SCHEMA)
        running = fields.fields("running")
        return cls(
            timestamp=fields.sha256("timestamp"),
            settings=fields.sha256("settings"),
            generation=fields.integer("generation"),
            since=fields.time("since"),
            expires=fields.time("expires"),
            repository=fields.text("repository"),
            direct=fields.boolean("direct"),
            running={model: running.text(model) for model in running.raw},
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
                "repository": self.repository,
                "direct": self.direct,
                "running": dict(self.running),
            }
        )


def remember(state: Path, rest: Rest) -> None:
    """Note how things stand."""
    from modelward.install import fsops  # noqa: PLC0415 - a check that finds nothing does without

    fsops.write_file(state / FILE, rest.to_bytes())


def forget(state: Path) -> None:
    """Make the next check a full one."""
    from modelward.install import fsops  # noqa: PLC0415

    fsops.remove(state / FILE)


def end_at(state: Path, time: datetime) -> None:
    """Make the first check from a time on a full one, if none before it is."""
    try:
        rest = Rest.parse(plain_file.read(state / FILE, CAP))
    except (OSError, FormatError):
        return
    if time < rest.expires:
        remember(state, rest._replace(expires=time))


def nothing_new(state: Path, asked: str, now: datetime, fetch_unless: FetchUnless) -> Rest | None:
    """Return how things stand, if the repository is as it was when this device came to rest.

    None means only that a full check is needed; so does every problem.

    Args:
        state: The state directory.
        asked: Digest of what is asked for (`modelward.settings.asked`).
        now: The time.
        fetch_unless: Fetches the timestamp, where a plain connection is not enough.
    """
    rest = recall(state, asked, now)
    if rest is None:
        return None
    ask = direct.fetch_unless if rest.direct else fetch_unless
    return rest if still_holds(rest, ask) else None


def recall(state: Path, asked: str, now: datetime) -> Rest | None:
    """Return how things stood, if that still bears on what is asked now.

    Args:
        state: The state directory.
        asked: Digest of what is asked for.
        now: The time.
    """
    try:
        rest = Rest.parse(plain_file.read(state / FILE, CAP))
        current = _generation(state)
    except (OSError, FormatError):
        return None
    fresh = rest.since <= now < min(rest.expires, rest.since + PROBE_ROOT)
    same = (rest.settings, str(rest.generation)) == (asked, current)
    return rest if fresh and same else None


def still_holds(rest: Rest, fetch_unless: FetchUnless) -> bool:
    """Tell whether the repository is as it was when the device came to rest.

    False means only that a full check is needed; so does every problem.

    Args:
        rest: How things stood, from `recall`.
        fetch_unless: Fetches the timestamp.
    """
    url = f"{rest.repository}/metadata/timestamp.json"
    try:
        body = fetch_unless(url, TIMESTAMP_CAP, rest.timestamp)
    except ModelwardError:
        return False
    return body is None or hashlib.sha256(body).hexdigest() == rest.timestamp


def _generation(state: Path) -> str:
    """Return the current generation's number; 0 before anything was installed."""
    current = state / "current"
    return current.readlink().name if current.is_symlink() else "0"
