"""Taking reports in: who may, what goes on from what, and what gives alarm (attack row 34).

Devices chain their reports: each has a counter and the digest of the one before. What does not go
on from the newest that is known is not stored. A copy of the newest itself is no alarm, since an
answer can get lost; everything else that looks backwards is.
"""

from dataclasses import dataclass
from http import HTTPStatus

from modelward.errors import FormatError
from modelward.formats import report as reports
from modelward.formats.dsse import Envelope
from modelward.formats.report import CAP, Report
from modelward.trust.report import is_signed
from modelward_repo.fleet.gossip import Ledger
from modelward_repo.fleet.store import Device, Fleet, Stored, Turn

HOUR = 3600  # seconds
MOST_PER_HOUR = 60  # reports of one device
COUNTED = 60  # seconds: what comes more often from somebody without a key is counted once
NOBODY = ""
STORED, KNOWN = "stored", "known"
ACCEPTED = (STORED, KNOWN)


@dataclass(frozen=True)
class Answer:
    """What to tell whoever sent a report.

    Attributes:
        status: The HTTP status.
        outcome: One word.
        reason: One sentence; empty where all is well.
        retry_after: Seconds to wait before another try, or None.
    """

    status: HTTPStatus
    outcome: str
    reason: str = ""
    retry_after: int | None = None


class Intake:
    """Takes reports for one repository.

    Args:
        fleet: The devices, and where reports go.
        ledger: The log that the repository serves, to compare with what devices saw.
    """

    def __init__(self, fleet: Fleet, ledger: Ledger) -> None:
        self._fleet = fleet
        self._ledger = ledger

    def take(self, data: bytes, now: int) -> Answer:
        """Judge a report and, if it is the next of its device, store it.

        Args:
            data: What was sent, at most one byte longer than may be.
            now: POSIX seconds.
        """
        if len(data) > CAP:
            return Answer(
                HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "too long", f"at most {CAP} bytes are taken"
            )
        try:
            envelope, report = reports.read_envelope(data)
        except FormatError as error:
            return Answer(HTTPStatus.BAD_REQUEST, "malformed", error.reason)
        rejected = self._reject(envelope, report, now)
        if rejected is not None:
            return rejected
        with self._fleet.write() as turn:
            answer = _follow(turn, envelope, report, data, now)
            if answer.outcome == STORED:
                self._alarm(turn, report, now)
        return answer

    def _reject(self, envelope: Envelope, report: Report, now: int) -> Answer | None:
        """Return why a report is nobody's who may report here, or None if it is somebody's."""
        device = self._signer(envelope)
        if device is None:
            return self._forged(report, now)
        if device.revoked is not None:
            self._count("revoked", device.device, "a report signed with a revoked key came in", now)
            return Answer(HTTPStatus.FORBIDDEN, "revoked", "this device's key was revoked")
        if report.device != device.device:
            reason = f"the key of {device.device!r} signed a report in the name of another device"
            self._count("forged", device.device, reason, now)
            return Answer(HTTPStatus.FORBIDDEN, "forged", "the key is registered for another id")
        if report.repository not in (None, self._ledger.repository_id()):
            reason = f"{device.device!r} follows another repository"
            return Answer(HTTPStatus.BAD_REQUEST, "elsewhere", reason)  # attack row 28
        return None

    def _signer(self, envelope: Envelope) -> Device | None:
        """Return whose key made the signature."""
        for keyid in list(envelope.signatures)[:1]:
            with self._fleet.read() as turn:
                device = turn.device_by_key(keyid)
            if device is not None and is_signed(envelope, device.key):
                return device
        return None

    def _forged(self, report: Report, now: int) -> Answer:
        """Nobody's signature: count it, without letting strangers fill the disk."""
        with self._fleet.read() as turn:
            known = turn.device(report.device)
        if known is None:
            self._count("unknown", NOBODY, "reports come in from devices not registered here", now)
            return Answer(
                HTTPStatus.FORBIDDEN,
                "unknown",
                "no such device is registered: ask the operator for `modelward-repo device add`",
            )
        reason = "a report in its name is not signed with its key"
        self._count("forged", known.device, reason, now)
        return Answer(HTTPStatus.FORBIDDEN, "forged", "not signed with this device's key")

    def _count(self, kind: str, device: str, reason: str, now: int) -> None:
        with self._fleet.read() as turn:
            last = turn.alarm_at(kind, device, "")
        if last is None or not 0 <= now - last < COUNTED:
            with self._fleet.write() as turn:
                turn.raise_alarm(kind, device, "", reason, now)

    def _alarm(self, turn: Turn, report: Report, now: int) -> None:
        """Raise what the report gives alarm about, and what its checkpoint shows."""
        for alarm in report.alarms:
            turn.raise_alarm(f"device: {alarm.kind}", report.device, alarm.name, alarm.reason, now)
        for found in self._ledger.compare(turn, report):
            turn.raise_alarm(
                found.kind, report.device, found.subject, found.reason, now, found.document
            )


def _follow(turn: Turn, envelope: Envelope, report: Report, data: bytes, now: int) -> Answer:
    """Store a report if it goes on from the newest one of its device."""
    device = turn.device(report.device)
    if device is None or device.revoked is not None:
        return Answer(HTTPStatus.FORBIDDEN, "revoked", "this device's key was revoked")
    sha256 = reports.digest(envelope)
    if report.counter <= device.counter:
        return _look_back(turn, device, report, sha256, data, now)
    if report.counter == device.counter + 1 and report.previous != device.head:
        return _fork(turn, report, data, now, "it does not follow the report before")
    if turn.reports_since(report.device, now - HOUR) >= MOST_PER_HOUR:
        reason = f"it sends more than {MOST_PER_HOUR} reports an hour"
        if turn.alarm_at("flood", report.device, "") is None:
            turn.raise_alarm("flood", report.device, "", reason, now)
        return Answer(HTTPStatus.TOO_MANY_REQUESTS, "too many", reason, HOUR // MOST_PER_HOUR)
    missing = report.counter - device.counter - 1
    turn.add_report(Stored(report.device, report.counter, sha256, now, missing, data))
    return Answer(HTTPStatus.CREATED, STORED)


def _look_back(  # noqa: PLR0913, PLR0917 - one call site, above
    turn: Turn, device: Device, report: Report, sha256: str, data: bytes, now: int
) -> Answer:
    """Tell an answer that got lost from a replay, and that from a fork."""
    if sha256 == device.head:
        return Answer(HTTPStatus.OK, KNOWN)
    if sha256 in {stored.sha256 for stored in turn.reports(report.device)}:
        reason = f"its report {report.counter} was sent again, after report {device.counter}"
        turn.raise_alarm("replay", report.device, "", reason, now)
        return Answer(HTTPStatus.CONFLICT, "replay", "this report came in long ago")
    return _fork(turn, report, data, now, f"report {device.counter} is known already")


def _fork(turn: Turn, report: Report, data: bytes, now: int, why: str) -> Answer:
    """Two reports cannot both be the next: two devices have one key, or one was set back."""
    reason = (
        f"its report {report.counter} contradicts another one ({why}): two devices share its key, "
        "or it was restored from a backup"
    )
    turn.raise_alarm("fork", report.device, "", reason, now, data)
    return Answer(HTTPStatus.CONFLICT, "fork", why)
