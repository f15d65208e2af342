"""Whoever holds a device's key, and says with it what they like."""

import hashlib
import http.client
import json
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from modelward.formats import report as reports
from modelward.formats.dsse import Envelope
from modelward.formats.report import PAYLOAD_TYPE, Report
from modelward.install.device_key import DeviceKey, load_or_make
from tests.simulator.world import now

DEVICE = "camera-12"


@dataclass
class Reporter:
    """Makes a chain of reports.

    Attributes:
        key: Whose key.
        device: The id that it claims.
        counter: The counter of its last report.
        previous: The digest of its last report.
    """

    key: DeviceKey
    device: str = DEVICE
    counter: int = 0
    previous: str | None = None

    @classmethod
    def of_seed(cls, name: str, device: str = DEVICE) -> "Reporter":
        """Return one with a key that is the same each time."""
        seed = hashlib.sha256(name.encode()).digest()
        return cls(DeviceKey(Ed25519PrivateKey.from_private_bytes(seed)), device)

    @classmethod
    def of_state(cls, state: Path) -> "Reporter":
        """Return one with a device's own key, that goes on from its newest report."""
        newest = max((state / "reports").glob("[0-9]*.json"))
        envelope, report = reports.read_envelope(newest.read_bytes())
        digest = reports.digest(envelope)
        return cls(load_or_make(state), report.device, report.counter, digest)

    def next(self, time: datetime | None = None, **fields: Any) -> Report:
        """Return the next report of the chain."""
        report = Report(
            device=self.device,
            counter=self.counter + 1,
            previous=self.previous,
            time=time or now(),
            repository=None,
            client="0.1.0",
            channel="stable",
        )
        return replace(report, **fields)

    def sign(self, report: Report) -> bytes:
        """Sign a report, and let the next one follow it."""
        envelope = self.envelope(report)
        self.counter, self.previous = report.counter, reports.digest(envelope)
        return envelope.to_bytes()

    def envelope(self, report: Report) -> Envelope:
        """Sign a report, and nothing else."""
        unsigned = Envelope.unsigned(report.to_dict(), PAYLOAD_TYPE)
        signature = self.key.sign(unsigned.signed_bytes)
        return replace(unsigned, signatures={self.key.public.keyid: signature})


def send(url: str, data: bytes) -> tuple[int, dict[str, Any]]:
    """Post a report; return the status and what was said."""
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=20)
    try:
        connection.request("POST", "/reports", data)
        answer = connection.getresponse()
        body = answer.read()
    finally:
        connection.close()
    return answer.status, json.loads(body) if body.startswith(b"{") else {}
