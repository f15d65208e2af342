"""Reports: somebody speaks in a device's name, or speaks without end (row 34).

It is the repository's server that refuses here. Nothing that a report says changes what a device
installs: each case ends as every other, with the next honest update, and with an honest report.
"""

import http.client
from dataclasses import replace
from urllib.parse import quote, urlsplit

import pytest

from modelward.errors import ExitCode
from modelward.formats.dsse import Envelope
from modelward.formats.report import CAP, PAYLOAD_TYPE
from modelward_repo.fleet.intake import MOST_PER_HOUR
from modelward_repo.fleet.store import KEPT_BYTES, KEPT_REPORTS, Fleet
from tests.attacks.scene import NOT_APPLICABLE, Scene
from tests.repo_tools.site import Done, run
from tests.simulator.reporter import Reporter, send

pytestmark = pytest.mark.attack(34)
SCRIPT = "<script>alert(1)</script>"


class Desk:
    """Where a device of the scene is registered, and who reports there."""

    def __init__(self, scene: Scene) -> None:
        self.scene = scene
        self.fleet = Fleet(scene.world.place / "repository-fleet")
        self.fleet.create()
        status = scene.world.client_here("status").json
        self.device = status["device_id"]
        registered = self.operator("device", "add", self.device, status["reports"]["device_key"])
        assert registered.code == 0, registered
        assert self.report().code == ExitCode.DONE
        self.honest = Reporter.of_state(scene.world.device)

    def operator(self, *arguments: str) -> Done:
        return run(*arguments, "--repository", self.scene.world.repository)

    def report(self) -> Done:
        done = self.scene.world.client_here("report", self.scene.server)
        return Done(done.code, done.out, done.err)

    def send(self, data: bytes) -> tuple[int, str]:
        status, said = send(self.scene.server.url, data)
        return status, said.get("outcome", "")

    def refused(self, *kinds: str) -> None:
        """Require that nothing was stored, and which alarms there are; then the honest go on."""
        with self.fleet.read() as turn:
            assert turn.reports(self.device)[0].sha256 == self.honest.previous
            assert [alarm.kind for alarm in turn.alarms()] == list(kinds)
        told = self.operator("reports", "alarms")
        assert told.code == (ExitCode.REFUSED if kinds else ExitCode.DONE)
        assert all(kind in told.out for kind in kinds)
        self.conclude()

    def conclude(self) -> None:
        """The page of the server is unharmed, a report is taken, and so is an update."""
        assert self.report().json["received"] == 1
        self.scene._verdicts = (NOT_APPLICABLE, NOT_APPLICABLE)
        before = self.scene.world.read_model()
        self.scene._conclude("refused", "the repository's server")
        assert self.scene.world.read_model() != before
        with self.fleet.read() as turn:
            assert turn.reports(self.device)[0].counter == self.honest.counter + 2


@pytest.fixture
def desk(scene: Scene) -> Desk:
    return Desk(scene)


def test_forged_report(desk):
    """A report in a device's name, signed with another key"""
    thief = replace(Reporter.of_seed("thief"), device=desk.device)
    assert desk.send(thief.sign(thief.next())) == (403, "forged")
    stolen = replace(desk.honest).envelope(replace(desk.honest).next(labels={"site": "here"}))
    forged = replace(stolen, payload=stolen.payload.replace(b"here", b"away"))
    assert desk.send(forged.to_bytes()) == (403, "forged")
    desk.refused("forged")


def test_report_of_another_device(desk):
    """A registered device reports in the name of another"""
    other = Reporter.of_seed("other", "camera-13")
    assert desk.operator("device", "add", other.device, other.key.public.public).code == 0
    assert desk.send(other.sign(other.next(device=desk.device))) == (403, "forged")
    desk.refused("forged")


def test_replayed_report(desk):
    """An old report is sent again"""
    old = max((desk.scene.world.device / "reports").glob("0*.json")).read_bytes()
    assert desk.report().code == ExitCode.DONE
    desk.honest = Reporter.of_state(desk.scene.world.device)
    assert desk.send(old) == (409, "replay")
    desk.refused("replay")


def test_forked_report(desk):
    """A copy of the device goes on from the same report"""
    twin = replace(desk.honest)
    assert desk.report().code == ExitCode.DONE
    desk.honest = Reporter.of_state(desk.scene.world.device)
    assert desk.send(twin.sign(twin.next(labels={"site": "elsewhere"}))) == (409, "fork")
    desk.refused("fork")


def test_revoked_key(desk):
    """The key of a stolen device, after it was revoked"""
    other = Reporter.of_seed("stolen", "camera-13")
    desk.operator("device", "add", other.device, other.key.public.public)
    assert desk.operator("device", "revoke", other.device).code == 0
    assert desk.send(other.sign(other.next())) == (403, "revoked")
    desk.refused("revoked")


def test_report_to_another_repository(desk):
    """A report that was made for another repository"""
    elsewhere = desk.honest.envelope(desk.honest.next(repository="ab" * 32))
    assert desk.send(elsewhere.to_bytes()) == (400, "elsewhere")
    desk.refused()


def test_flood(desk):
    """Reports of a registered device without end"""
    other = Reporter.of_seed("noisy", "camera-13")
    desk.operator("device", "add", other.device, other.key.public.public)
    answers = [desk.send(other.sign(other.next())) for _ in range(MOST_PER_HOUR + 3)]
    assert set(answers[:MOST_PER_HOUR]) == {(201, "stored")}
    assert set(answers[MOST_PER_HOUR:]) == {(429, "too many")}
    with desk.fleet.read() as turn:
        kept = turn.reports(other.device)
    assert len(kept) <= KEPT_REPORTS
    assert sum(len(item.envelope) for item in kept) <= KEPT_BYTES
    desk.refused("flood")


def test_oversize_report(desk):
    """A report over its cap"""
    status, _ = desk.send(b"[" + b" " * CAP)
    assert status == 413
    desk.refused()


@pytest.mark.parametrize(
    "data", [b"", b"{}", b"[" * 5000, b"\xff" * 99], ids=["nothing", "{}", "deep", "bytes"]
)
def test_no_report(desk, data):
    """Something that is no report"""
    assert desk.send(data) == (400, "malformed")
    desk.refused()


def test_script_in_a_label(desk):
    """A script where people read: in a label, a reason, a device's id"""
    other = Reporter.of_seed("funny", SCRIPT)
    assert desk.operator("device", "add", SCRIPT, other.key.public.public).code == 0
    assert desk.send(other.sign(other.next(labels={SCRIPT: SCRIPT}))) == (201, "stored")
    evil = other.next().to_dict() | {"labels": {"a": "\x1b[2J"}}
    assert desk.send(_raw(other, evil)) == (400, "malformed")
    # Nothing that devices say is served: not the page, not the answers, not by any address.
    for path in ("/", "/reports", f"/reports/{other.device}", "/repository-fleet/fleet.sqlite"):
        status, body = _get(desk.scene.server.url, path)
        assert SCRIPT.encode() not in body
        assert (status, path == "/") in ((200, True), (404, False))
    listed = desk.operator("reports", "list")
    assert listed.code == 0
    assert "\x1b" not in listed.out
    shown = desk.operator("reports", "show", SCRIPT, "--json").json
    assert shown["report"]["labels"] == {SCRIPT: SCRIPT}
    desk.refused()


def _raw(reporter: Reporter, content: dict[str, object]) -> bytes:
    envelope = Envelope.unsigned(content, PAYLOAD_TYPE)
    signature = reporter.key.sign(envelope.signed_bytes)
    return replace(envelope, signatures={reporter.key.public.keyid: signature}).to_bytes()


def _get(url: str, path: str) -> tuple[int, bytes]:
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=20)
    try:
        connection.request("GET", quote(path))
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()
