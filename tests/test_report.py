"""A device reports what happened, durably and in order, and no update waits for that or fails."""

import errno
import itertools
import json
import socket
import threading
from concurrent.futures import ThreadPoolExecutor, wait
from datetime import timedelta
from typing import Any

import pytest

from modelward import fastpath, report
from modelward.config import load
from modelward.config.transfer import TransferSettings
from modelward.device import Device
from modelward.errors import ExitCode, ModelwardError, Unavailable
from modelward.fastpath import Rest
from modelward.formats import report as reports
from modelward.formats.report import Report
from modelward.install import reports as store_of_reports
from modelward.install.device_key import load_or_make
from modelward.install.floors import COPIES
from modelward.install.reports import MAX_QUEUED, ReportStore
from modelward.report import AGAIN, PATH, Happened, tell
from modelward.transfer.network import Network
from modelward.transfer.post import Answer, post
from modelward.trust.report import is_signed
from modelward_repo.fleet.store import Fleet
from tests.daemon.test_trial import put_on_trial, start_too_often
from tests.install.test_floors import cannot_read
from tests.simulator.server import Endless, Server, instead, status
from tests.simulator.world import MODEL, Done, World, now

PERIOD = timedelta(days=1)


@pytest.fixture
def fleet(world: World) -> Fleet:
    """The fleet, with the device registered."""
    fleet = Fleet(world.place / "repository-fleet")
    fleet.create()
    with fleet.write() as turn:
        turn.add_device(device(world).config.device_id, load_or_make(world.device).public, 0)
    return fleet


def device(world: World, **changes: timedelta) -> Device:
    at = now() + changes.get("later", timedelta())
    return Device(load(world.device, {}), clock=lambda: at)


def stored(fleet: Fleet) -> list[Report]:
    with fleet.read() as turn:
        kept = [item for each in turn.devices() for item in turn.reports(each.device)]
    return [reports.read_envelope(item.envelope)[1] for item in reversed(kept)]


def settings(world: World, text: str) -> None:
    with (world.device / "modelward.toml").open("a") as file:
        file.write(f"\n[reports]\n{text}\n")


def waiting(world: World) -> int:
    return world.client_here("status").json["reports"]["waiting"]


# --- what is reported -----------------------------------------------------------------------------


def test_an_update_is_reported(world, server, fleet):
    world.publish("1.1.0")
    assert world.client_here("update", server).code == ExitCode.DONE
    first, second = stored(fleet)
    assert (first.counter, second.counter, first.previous) == (1, 2, None)
    assert first.ended.outcome == second.ended.outcome == "updated"
    running = second.models[MODEL]
    assert (running.version, running.fallback) == ("1.1.0", "1.0.0")
    assert second.floors.releases == {MODEL: running.counter}
    assert second.decisions == {MODEL: "stable offers 1.1.0 to every device"}
    assert sum(second.received.values()) > 0
    assert waiting(world) == 0


def test_each_names_the_one_before_and_is_signed(world, server, fleet):
    for version in ("1.1.0", "1.2.0"):
        world.publish(version)
        world.client_here("update", server)
    key = load_or_make(world.device).public
    with fleet.read() as turn:
        (registered,) = turn.devices()
        kept = turn.reports(registered.device)
    read = [reports.read_envelope(item.envelope) for item in kept]
    for (envelope, one), (before, _) in itertools.pairwise(read):
        assert is_signed(envelope, key)
        assert one.previous == reports.digest(before)


def test_nothing_new_is_not_reported(world, server, fleet):
    world.client_here("report", server)
    server.posts.clear()
    world.offer("1.0.0")  # a full check, that finds nothing
    assert world.client_here("update", server).json["outcome"] == "unchanged"
    assert world.client_here("update", server).json["outcome"] == "unchanged"
    assert not server.posts


def test_nothing_new_is_reported_once_a_period(world, server, fleet):
    world.client_here("report", server)
    tell(device(world), Happened("unchanged"))
    assert len(stored(fleet)) == 2
    url = f'url = "{server.url}"'
    settings(world, url)
    tell(device(world, later=PERIOD), Happened("unchanged"))
    assert len(stored(fleet)) == 3
    assert report.due(device(world, later=2 * PERIOD))


def test_a_check_reports_nothing(world, server, fleet):
    assert waiting(world) == 1
    world.publish("1.1.0")
    for _ in range(2):
        assert world.client_here("check", server).code == ExitCode.DONE
        assert [each.counter for each in stored(fleet)] == [1]  # it sends what waits
    assert server.posts == ["/reports"]


def test_a_check_that_is_refused_sends_what_waits(world, server, fleet):
    timestamp = world.repository / "metadata/timestamp.json"
    unsigned = timestamp.read_bytes().replace(b'"sig":', b'"sog":')
    server.lie("/metadata/timestamp.json", instead(unsigned))
    assert waiting(world) == 1
    assert world.client_here("check", server).code == ExitCode.REFUSED
    assert (waiting(world), server.posts) == (0, ["/reports"])
    assert [each.counter for each in stored(fleet)] == [1]  # of what was only a check, nothing


@pytest.mark.parametrize("part", ["installed", "floors"])
def test_what_cannot_be_read_is_reported_once(world, server, fleet, monkeypatch, part):
    world.client_here("report", server)
    settings(world, f'url = "{server.url}"')
    if part == "installed":
        (world.device / "current/installed.json").unlink()
    else:
        cannot_read(monkeypatch, errno.EIO, *COPIES)
    assert world.client_here("report", server).code == ExitCode.DONE
    told = stored(fleet)[-1]
    (alarm,) = (alarm for alarm in told.alarms if alarm.name == part)
    assert (alarm.kind, part in alarm.reason) == ("damage", True)
    assert bool(told.models) == (part != "installed")
    tell(device(world), None)
    assert stored(fleet)[-1] == told  # no news


def test_a_refusal_is_reported_once_an_hour_and_remembered(world, server, fleet):
    settings(world, f'url = "{server.url}"')
    refusal = Happened("refused", "log", "it is not in the log")
    tell(device(world), refusal)
    tell(device(world), refusal)
    assert [each.counter for each in stored(fleet)] == [1, 2]
    tell(device(world, later=timedelta(hours=2)), refusal)
    tell(device(world, later=timedelta(hours=2)), Happened("updated"))
    last = stored(fleet)[-1]
    assert (last.counter, last.ended.outcome) == (4, "updated")
    assert (last.refused.outcome, last.refused.gate) == ("refused", "log")
    assert last.refused.reason == "it is not in the log"


@pytest.mark.parametrize("status", [201, 400, 503])
def test_an_answer_that_nests_100_000_deep_is_no_answer(world, server, fleet, monkeypatch, status):
    settings(world, f'url = "{server.url}"')
    monkeypatch.setattr(report, "post", lambda *_: Answer(status, b"[" * 100_000))
    tell(device(world), Happened("refused", "log", "it is not in the log"))
    assert bool(ReportStore(world.device).pending()) == (status == 503)


def test_an_update_that_is_refused_is_reported(world, server, fleet):
    timestamp = world.repository / "metadata/timestamp.json"
    world.publish("1.1.0")
    unsigned = timestamp.read_bytes().replace(b'"sig":', b'"sog":')
    server.lie("/metadata/timestamp.json", instead(unsigned))
    assert world.client_here("update", server).code == ExitCode.REFUSED
    last = stored(fleet)[-1]
    assert (last.ended.outcome, last.ended.gate) == ("refused", "metadata")
    assert last.models[MODEL].version == "1.0.0"


def fail_a_trial(world: World, server: Server | None = None) -> None:
    """Leave a device whose next command finds that 1.1.0 was started too often."""
    put_on_trial(world.device, 'soak = "1h"')
    world.publish("1.1.0")
    assert world.client_here("update", server).code == ExitCode.DONE
    start_too_often(world)


@pytest.mark.parametrize("command", [("check",), ("verify", "--repair")])
def test_what_goes_back_without_an_update_is_reported(world, server, fleet, command):
    fail_a_trial(world, server)
    settings(world, f'url = "{server.url}"')
    name, *options = command
    asks = server if name == "check" else None
    assert world.client_here(name, asks, *options).code == ExitCode.ROLLED_BACK
    last = stored(fleet)[-1]
    assert (last.refused, last.refused.outcome) == (last.ended, "rolled back")
    assert last.models[MODEL].version == "1.0.0"
    assert world.client_here("status").json["last"]["reason"] == last.refused.reason


@pytest.fixture
def connections(monkeypatch) -> list[object]:
    """The addresses that this process has connected to."""
    made: list[object] = []

    def note(name: str) -> None:
        connect = getattr(socket.socket, name)

        def noted(self: socket.socket, address: object) -> object:
            made.append(address)
            return connect(self, address)

        monkeypatch.setattr(socket.socket, name, noted)

    note("connect")
    note("connect_ex")
    return made


def follow(world: World, server: Server) -> None:
    """Let the device's own settings name a server."""
    file = world.device / "modelward.toml"
    lines = file.read_text().splitlines(keepends=True)
    others = [line for line in lines if not line.startswith("repository")]
    file.write_text("".join([f'repository = "{server.url}"\n', *others]))


@pytest.mark.parametrize(
    "command",
    [
        *(("gc",), ("pin",), ("unpin",), ("rollback",), ("confirm",)),
        *(("import", "STICK"), ("import", "STICK", "--dry-run")),
        ("verify", "--repair", "--from", "STICK"),
    ],
)
def test_what_goes_back_without_a_network_is_reported_later(
    world, server, fleet, connections, command
):
    follow(world, server)
    fail_a_trial(world)
    connections.clear()
    name, *options = (str(world.repository) if each == "STICK" else each for each in command)
    done = world.client_here(name, None, *options)
    assert (done.code, connections) == (ExitCode.ROLLED_BACK, [])
    assert waiting(world) == 1
    assert world.client_here("update").json["outcome"] == "unchanged"
    assert stored(fleet)[-1].refused.outcome == "rolled back"
    assert waiting(world) == 0


@pytest.mark.parametrize("following", ["update", "check"])
def test_an_import_is_reported_by_the_next_check_though_it_finds_nothing(
    world, server, fleet, connections, following
):
    follow(world, server)
    world.publish("1.1.0")
    before = waiting(world)
    for outcome in ("updated", "unchanged"):
        done = world.client_here("import", None, str(world.repository))
        assert (done.json["outcome"], connections) == (outcome, [])
        assert waiting(world) == before + 1
    assert world.client_here(following).json["outcome"] == "unchanged"
    assert waiting(world) == 0
    assert stored(fleet)[-1].ended.outcome == "updated"
    assert world.client_here("update").json["outcome"] == "unchanged"
    connections.clear()
    assert world.client_here("update").json["outcome"] == "unchanged"
    assert len(connections) == 1  # at rest


# --- where nobody takes reports -------------------------------------------------------------------


def test_what_cannot_be_sent_waits_and_is_sent_in_order(world, server):
    assert waiting(world) == 1
    world.publish("1.1.0")
    assert world.client_here("update", server).code == ExitCode.DONE
    done = world.client_here("report", server)
    assert (done.code, done.json["waiting"]) == (ExitCode.UNAVAILABLE, 3)
    assert "404" in done.json["problem"]
    fleet = Fleet(world.place / "repository-fleet")
    fleet.create()
    stranger = world.client_here("report", server)
    assert "no such device is registered" in stranger.json["problem"]
    with fleet.write() as turn:
        turn.add_device(device(world).config.device_id, load_or_make(world.device).public, 0)
    assert world.client_here("report", server).json["received"] == 5
    assert [each.counter for each in stored(fleet)] == [1, 2, 3, 4, 5]
    assert waiting(world) == 0


@pytest.mark.parametrize("following", ["update", "check"])
@pytest.mark.parametrize("problem", [status(429), status(503), Endless()])
def test_what_could_not_be_sent_is_sent_by_the_next_check_though_it_finds_nothing(
    world, server, fleet, problem, following
):
    follow(world, server)
    world.publish("1.1.0")
    server.lie(PATH, problem)
    assert world.client_here("update").json["outcome"] == "updated"
    assert world.client_here(following).json["outcome"] == "unchanged"
    assert (waiting(world), server.posts) == (2, [PATH, PATH])  # each check tries once
    server.be_honest()
    assert world.client_here(following).json["outcome"] == "unchanged"
    assert waiting(world) == 0
    assert stored(fleet)[-1].ended.outcome == "updated"


def test_what_cannot_be_sent_for_long_is_tried_once_an_hour(world, server, fleet):
    follow(world, server)
    server.lie(PATH, status(503))
    tell(device(world, later=timedelta(hours=-2)), Happened("refused", "log", "x"))
    ReportStore(world.device).received(1)  # what waits is two hours old
    world.client_here("update")
    rest = Rest.parse((world.device / fastpath.FILE).read_bytes())
    assert AGAIN / 2 < rest.expires - now() <= AGAIN
    for _ in range(2):
        server.requests.clear()
        assert world.client_here("update").json["outcome"] == "unchanged"
        assert len(server.requests) == 1
    fastpath.remember(world.device, rest._replace(expires=now()))
    server.be_honest()
    assert world.client_here("check").json["outcome"] == "unchanged"
    assert waiting(world) == 0


@pytest.mark.parametrize("answer", [403, 404, 501])
def test_a_device_that_nobody_knows_keeps_its_one_request(world, server, fleet, answer):
    follow(world, server)
    server.lie(PATH, status(answer))
    world.publish("1.1.0")
    assert world.client_here("update").json["outcome"] == "updated"
    server.requests.clear()
    assert world.client_here("update").json["outcome"] == "unchanged"
    assert (len(server.requests), waiting(world)) == (1, 2)


def test_the_queue_is_bounded(world):
    for number in range(MAX_QUEUED + 10):
        tell(device(world), Happened("refused", "log", f"reason {number}"))
    store = ReportStore(world.device)
    assert len(store.pending()) == MAX_QUEUED
    assert store.pending()[-1] == MAX_QUEUED + 11


def test_what_the_server_will_never_take_is_dropped(world, server, fleet):
    world.client_here("report", server)
    settings(world, f'url = "{server.url}"')
    with fleet.write() as turn:  # restored from a backup: it knows a later report than this one
        turn._connection.execute("UPDATE devices SET counter = 99, head = 'x'")
    done = world.client_here("report", server)
    assert (done.code, done.json["outcome"]) == (ExitCode.REFUSED, "refused")
    assert "409" in done.json["problem"]
    assert waiting(world) == 0


def test_an_answer_that_got_lost(world, server, fleet):
    world.client_here("report", server)
    (world.device / "reports/sent").write_text("1")  # the power was cut
    assert world.client_here("report", server).code == ExitCode.DONE
    assert [each.counter for each in stored(fleet)] == [1, 2, 3]
    with fleet.read() as turn:
        assert not turn.alarms()


def test_a_folder_that_cannot_be_written_stops_no_update(world, server):
    for path in (world.device / "reports").iterdir():
        path.unlink()
    (world.device / "reports").rmdir()
    (world.device / "reports").write_bytes(b"")
    world.publish("1.1.0")
    assert world.client_here("update", server).json["running"] == {MODEL: "1.1.0"}


@pytest.mark.parametrize("content", [b"", b"no key", b"-----BEGIN PRIVATE KEY-----\n"])
def test_a_damaged_key_stops_no_update(world, server, content):
    (world.device / "device.key").write_bytes(content)
    world.publish("1.1.0")
    assert world.client_here("update", server).json["running"] == {MODEL: "1.1.0"}
    done = world.client_here("report", server)
    assert done.code == ExitCode.ERROR
    assert "is not an Ed25519 private key" in done.json["reason"]


def test_a_damaged_chain_goes_on_with_a_gap(world, server, fleet):
    world.client_here("report", server)
    newest = max((world.device / "reports").glob("*.json"))
    newest.write_bytes(b"damaged")
    assert world.client_here("report", server).json["received"] == 1
    assert [each.counter for each in stored(fleet)] == [1, 2, 4]
    with fleet.read() as turn:
        assert not turn.alarms()


@pytest.mark.parametrize("say", [b"", b"HTTP/1.1 200 OK\r\nX: "], ids=["silent", "drips"])
def test_a_server_that_never_answers_is_left(say):
    with socket.create_server(("127.0.0.1", 0)) as listening:
        over = threading.Event()

        def drip() -> None:
            connection, _ = listening.accept()
            with connection:
                connection.sendall(say)
                while not over.wait(0.05):
                    try:
                        connection.sendall(b"x" if say else b"")
                    except OSError:
                        return

        thread = threading.Thread(target=drip)
        thread.start()
        url = f"http://127.0.0.1:{listening.getsockname()[1]}/reports"
        with pytest.raises(Unavailable):
            post(url, b"{}", seconds=0.3)
        over.set()
        thread.join()


def test_an_answer_that_never_ends_is_cut():
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def pour() -> None:
            connection, _ = listening.accept()
            with connection:
                connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
                try:
                    while True:
                        connection.sendall(bytes(65536))
                except OSError:
                    return

        thread = threading.Thread(target=pour)
        thread.start()
        with pytest.raises(Unavailable, match="more than"):
            post(f"http://127.0.0.1:{listening.getsockname()[1]}/reports", b"{}", seconds=60)
        thread.join()


def test_reports_take_the_proxy_that_updates_take():
    with socket.create_server(("127.0.0.1", 0)) as listening:
        asked: list[bytes] = []

        def forward() -> None:
            connection, _ = listening.accept()
            with connection, connection.makefile("rb") as lines:
                asked.extend(iter(lines.readline, b"\r\n"))
                connection.sendall(b"HTTP/1.1 201 Created\r\nContent-Length: 2\r\n\r\n{}")

        thread = threading.Thread(target=forward)
        thread.start()
        table = {"proxy": f"http://127.0.0.1:{listening.getsockname()[1]}"}
        network = Network.of(TransferSettings.parse(table))
        answer = post("http://models.invalid/reports", b"{}", network, seconds=60)
        thread.join()
    assert (answer.status, answer.body) == (201, b"{}")
    assert asked[0] == b"POST http://models.invalid/reports HTTP/1.1\r\n"


# --- settings and the command ---------------------------------------------------------------------


def test_none_are_made_where_none_are_wanted(world, server, fleet):
    settings(world, "send = false")
    world.publish("1.1.0")
    assert world.client_here("update", server).code == ExitCode.DONE
    assert not server.posts
    assert world.client_here("report", server).code == ExitCode.USAGE


def test_a_dry_run_writes_nothing(world, server):
    before = {path: path.read_bytes() for path in world.device.rglob("*") if path.is_file()}
    shown = Report.parse(json.dumps(world.client_here("report", None, "--dry-run").json).encode())
    assert (shown.counter, shown.models[MODEL].version) == (2, "1.0.0")
    assert before == {path: path.read_bytes() for path in world.device.rglob("*") if path.is_file()}


def test_two_at_once(world, server, fleet):
    with ReportStore(world.device).sending():
        tell(device(world), Happened("refused", "log", "x"))
        done = world.client_here("report", server)
        assert waiting(world) == 2
    assert done.code == ExitCode.UNAVAILABLE
    assert "is sending reports" in done.json["reason"]
    assert not server.posts


@pytest.mark.parametrize("command", ["gc", "update"])
def test_what_goes_back_while_another_sends_is_sent_by_that_one(
    world, server, fleet, monkeypatch, command
):
    follow(world, server)
    fail_a_trial(world)
    meanwhile: list[Done] = []

    def slowly(*arguments: Any) -> Answer:
        if not meanwhile:
            meanwhile.append(world.client_here(command))
        return post(*arguments)

    monkeypatch.setattr(report, "post", slowly)
    sent = world.client_here("report")
    assert [done.code for done in meanwhile] == [ExitCode.ROLLED_BACK]
    assert (sent.json["received"], waiting(world)) == (2, 0)
    assert stored(fleet)[-1].refused.outcome == "rolled back"


def test_what_comes_too_late_for_the_one_that_sends_is_sent_by_the_next_check(world, server, fleet):
    follow(world, server)
    world.client_here("update")
    assert (world.device / "rest.json").exists()
    with ReportStore(world.device).sending():
        tell(device(world), Happened("refused", "log", "x"))
        assert waiting(world) == 1
    assert world.client_here("update").json["outcome"] == "unchanged"
    assert stored(fleet)[-1].refused.reason == "x"


@pytest.mark.parametrize("patience", [0.0, 60.0])
def test_whoever_holds_the_chain_is_waited_for_but_not_for_ever(world, monkeypatch, patience):
    monkeypatch.setattr(store_of_reports, "PATIENCE", patience)
    store = ReportStore(world.device)
    before = store.last()
    with ThreadPoolExecutor() as pool:
        with store.chain():
            told = pool.submit(tell, device(world), Happened("refused", "log", "x"), send=False)
            done, _ = wait([told], timeout=0.5)
            assert (bool(done), store.last()) == (not patience, before)
        told.result()
    assert store.last() == before + bool(patience)


def test_a_receipt_is_noted_while_the_chain_does_not_grow(world, monkeypatch):
    monkeypatch.setattr(store_of_reports, "PATIENCE", 0.0)
    monkeypatch.setattr(report, "post", lambda *_: Answer(201, b"{}"))
    store = ReportStore(world.device)
    with store.chain():
        report.send_waiting(device(world))
        assert store.pending() == (1,)
    report.send_waiting(device(world))
    assert not store.pending()


def test_an_error_says_what_happened():
    told = Happened.of_error(ModelwardError("no"))
    assert (told.outcome, told.gate, told.reason) == ("error", None, "no")
