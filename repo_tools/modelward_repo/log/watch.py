"""A monitor with a memory and a voice: what one look finds is told, kept, and posted."""

import http.client
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from modelward.errors import FormatError, Refused, Unavailable, UsageError
from modelward.trust.split_view import SplitView
from modelward_repo.log.monitor import Event, Memory, look
from modelward_repo.publish.target import Source
from modelward_repo.supply_chain.files import replace_file

SECONDS = 10.0  # most that a webhook is waited for


@dataclass(frozen=True)
class Monitor:
    """Watches one log.

    Attributes:
        memory: The file that remembers.
        webhook: Where to post what is new; None for nowhere.
        tell: Told each event.
    """

    memory: Path
    webhook: str | None
    tell: Callable[[Event], None]

    def look(self, source: Source) -> bool:
        """Look once; return whether somebody should look into it.

        Raises:
            Unavailable: Something could not be fetched.
            UsageError: The memory is damaged.
        """
        before = self._recall()
        try:
            done = look(source, before)
        except SplitView as error:
            kept = self.memory.with_suffix(".evidence.json")
            replace_file(kept, error.evidence.to_bytes())
            self._say([Event(0, f"{error.reason}; the evidence is {kept}", alarm=True)])
            return True
        except Refused as error:
            self._say([Event(0, error.reason, alarm=True)])
            return True
        # What was there when the monitor began is not news; it is listed once.
        events = [
            Event(event.index, event.text, event.alarm and before is not None)
            for event in done.events
        ]
        self._say(events)
        replace_file(self.memory, done.memory.to_bytes())
        return any(event.alarm for event in events)

    def _recall(self) -> Memory | None:
        try:
            return Memory.parse(self.memory.read_bytes())
        except FileNotFoundError:
            return None
        except FormatError as error:
            raise UsageError(
                f"{self.memory} is damaged: {error.reason}",
                "move it away: the next look reads the log from its first leaf",
            ) from error

    def _say(self, events: list[Event]) -> None:
        for event in events:
            self.tell(event)
        if events and self.webhook:
            _post(self.webhook, {"events": [event.to_dict() for event in events]})


def _post(url: str, body: dict[str, object]) -> None:
    try:
        parts = urlsplit(url)
        secure = parts.scheme == "https"
        kind = http.client.HTTPSConnection if secure else http.client.HTTPConnection
        connection = kind(parts.hostname or "", parts.port, timeout=SECONDS)
        try:
            path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
            headers = {"Content-Type": "application/json", "User-Agent": "modelward-repo"}
            connection.request("POST", path, json.dumps(body), headers)
            status = connection.getresponse().status
        finally:
            connection.close()
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise Unavailable(f"the webhook {url} does not answer: {error}") from error
    if not 200 <= status < 300:  # noqa: PLR2004 - success
        raise Unavailable(f"the webhook {url} answers {status}")
