"""What was tampered with is mended by the daemon itself (attack row 29)."""

import signal
from collections.abc import Iterator

import pytest

import modelward
from modelward.daemon.log import Level
from modelward.daemon.words import of_event
from modelward.errors import ExitCode, Refused
from tests.crash.owner import as_owner
from tests.daemon.site import Running, configure, flip, is_whole, opens, reports
from tests.daemon.test_trial import put_on_trial, start_too_often
from tests.simulator import server as servers
from tests.simulator.server import Server
from tests.simulator.world import MODEL, World

BLOBS = r"/blobs/"


@pytest.fixture
def server(world: World) -> Iterator[Server]:
    """A server of the repository; the device runs 1.1.0 and keeps 1.0.0."""
    world.publish("1.1.0")
    with world.serve() as server:
        assert world.client_here("update", server).code == ExitCode.DONE
        yield server


@pytest.mark.attack(29)
def test_the_daemon_mends_what_was_found_changed_on_opening(world: World, server: Server) -> None:
    with Running(world, server) as daemon:
        daemon.wait_for("checked")
        flip(world)
        opens(world, "1.0.0", fallback=True)
        assert world.client_here("status").code == ExitCode.REFUSED
        with modelward.open_model(MODEL, world.device) as opened:
            daemon.signal(signal.SIGUSR1)
            told = daemon.wait_for("repairing")
            assert (told["level"], len(told["alarms"])) == ("error", 1)
            assert "1.1.0 was changed after it was installed" in told["message"]
            done = daemon.wait_for("repaired")
            assert {item["path"] for item in done["mended"]} >= {"model.onnx"}
            assert done["fetched"] > 0
            assert opened.wait_for_update(timeout=30)  # there is something to open anew
            assert opened.read("model.onnx")
        assert daemon.wait_for("checked")["outcome"] == "unchanged"
        is_whole(world)
        daemon.signal(signal.SIGUSR1)
        daemon.wait_for("checked")
        assert [line["event"] for line in daemon.seen].count("repairing") == 1
    # The operator hears of it, and that it is over.
    assert [len(report.alarms) for report in reports(world)][-2:] == [1, 0]


def test_it_mends_what_verify_found_outside_of_windows_too(world: World, server: Server) -> None:
    slot = (world.device / "current" / MODEL).resolve().parent
    (slot / "layout.json").unlink()
    assert world.client_here("verify").code == ExitCode.REFUSED
    (alarm,) = world.client_here("status").json["alarms"]
    assert (alarm["version"], alarm["served"]) == ("1.1.0", "1.0.0")
    configure(world.device, windows='["00:00-00:00"]', interval='"1h"', jitter="0")
    with Running(world, server) as daemon:
        daemon.wait_for("repaired")
        daemon.wait_for("checked")
        is_whole(world)


@pytest.mark.parametrize(
    "damage", [lambda note: note.unlink(), lambda note: note.write_bytes(b"{")]
)
def test_it_finds_out_again_what_is_installed(world: World, server: Server, damage) -> None:
    """Nobody can raise an alarm about it: a program finds nothing to open."""
    note = (world.device / "current/installed.json").resolve()
    note.chmod(0o644)
    damage(note)
    with pytest.raises(Refused):
        modelward.open_model(MODEL, world.device)
    with Running(world, server) as daemon:
        assert "installed.json" in daemon.wait_for("repairing")["message"]
        daemon.wait_for("repaired")
        assert daemon.wait_for("checked")["outcome"] == "unchanged"
        is_whole(world)


def test_a_pointer_that_is_lost_costs_no_release(world: World, server: Server) -> None:
    """Nobody answers, and then a release comes that does not work here: what ran runs on."""
    assert world.client_here("pin").code == ExitCode.DONE
    (world.device / "current").unlink()
    with pytest.raises(Refused):
        modelward.open_model(MODEL, world.device)
    server.lie(r"/", servers.status(503))
    with Running(world, server) as daemon:
        assert "current: is missing" in daemon.wait_for("repairing")["message"]
        assert daemon.wait_for("repaired")["fetched"] == 0
        assert daemon.wait_for("checked")["outcome"] == "unavailable"
    opens(world, "1.1.0", fallback=False)
    assert world.client_here("status").json["models"][MODEL]["pinned"]
    server.be_honest()
    assert world.client_here("unpin").code == ExitCode.DONE
    toml = world.device / "modelward.toml"
    honest = toml.read_text("utf-8")
    toml.write_text(honest + '\n[health]\ncommand = ["false"]\n', "utf-8")
    world.publish("2.0.0")
    (world.device / "current").unlink()
    assert world.client_here("update", server).code == ExitCode.ROLLED_BACK
    assert world.client_here("status").json["models"][MODEL]["previous"] == "1.0.0"
    toml.write_text(honest, "utf-8")
    opens(world, "1.1.0", fallback=False)


def test_it_mends_both_versions(world: World, server: Server) -> None:
    flip(world)
    slot = (world.device / "current" / MODEL).resolve().parent
    (before,) = (each for each in slot.parent.iterdir() if each != slot)
    (before / "files/model.onnx").chmod(0o644)
    (before / "files/model.onnx").write_bytes(b"nor this")
    with pytest.raises(Refused):
        modelward.open_model(MODEL, world.device)
    with Running(world, server) as daemon:
        assert len(daemon.wait_for("repairing")["alarms"]) == 2
        daemon.wait_for("repaired")
        is_whole(world)


def test_who_may_not_read_everything_raises_no_alarm(world: World) -> None:
    slot = (world.device / "current" / MODEL).resolve().parent
    (slot / "layout.json").chmod(0)
    world.device.chmod(0o555)
    with as_owner():
        assert world.client_here("verify").code == ExitCode.REFUSED
    world.device.chmod(0o755)
    assert world.client_here("status").json["alarms"] == []


def test_what_cannot_be_mended_is_tried_ever_more_seldom(world: World, server: Server) -> None:
    server.lie(BLOBS, servers.status(404))
    flip(world)
    opens(world, "1.0.0", fallback=True)
    with Running(world, server) as daemon:
        told = daemon.wait_for("repair-failed")
        assert told["level"] == "error"
        assert "model.onnx" in {item["path"] for item in told["problems"]}
        assert "404" in told["message"]
        for _ in range(2):
            assert daemon.wait_for("checked")["outcome"] == "unchanged"
            daemon.signal(signal.SIGUSR1)  # not even then: it was tried just now
        daemon.wait_for("checked")
        assert [line["event"] for line in daemon.seen].count("repairing") == 1
        opens(world, "1.0.0", fallback=True)
        assert world.client_here("status").code == ExitCode.REFUSED
        assert daemon.stop() == ExitCode.DONE
    server.be_honest()
    configure(world.device, interval='"1s"', jitter="0")
    with Running(world, server) as daemon:
        daemon.wait_for("repaired")
        is_whole(world)


def test_it_mends_from_what_is_here_while_nobody_answers(world: World, server: Server) -> None:
    file = world.device / "current" / MODEL / "model.onnx"
    data = file.read_bytes()
    file.unlink()  # the blob is another name of it
    file.write_bytes(data[:-1] + b"!")
    opens(world, "1.0.0", fallback=True)
    server.lie(r"/", servers.status(503))
    with Running(world, server) as daemon:
        assert daemon.wait_for("repaired")["fetched"] == 0
        assert daemon.wait_for("checked")["outcome"] == "unavailable"
        is_whole(world)


def test_a_trial_that_it_finds_given_up_is_reported_once(world: World) -> None:
    put_on_trial(world.device, 'soak = "1h"')
    world.publish("1.1.0")
    with world.serve() as server:
        assert world.client_here("update", server).code == ExitCode.DONE
        flip(world)
        opens(world, "1.0.0", fallback=True)
        start_too_often(world)
        with Running(world, server) as daemon:
            failed = daemon.wait_for("repair-failed")
            assert failed["exit_code"] == ExitCode.ROLLED_BACK
            daemon.wait_for("checked")
    told = [report for report in reports(world) if report.ended.outcome == "rolled back"]
    assert {report.models[MODEL].version for report in told} == {"1.0.0"}
    assert {report.ended for report in told} == {reports(world)[-1].refused}


def test_update_by_hand_names_the_alarm(world: World, server: Server) -> None:
    assert "alarms" not in world.client_here("update", server).json
    flip(world)
    opens(world, "1.0.0", fallback=True)
    told = world.client_here("update", server)
    assert told.code == ExitCode.DONE
    (alarm,) = told.json["alarms"]
    assert (alarm["model"], alarm["version"], alarm["served"]) == (MODEL, "1.1.0", "1.0.0")
    for command in ("update", "check"):
        said = world.client_here(command, server, as_json=False).err
        assert "ALARM: meter-reader 1.1.0 was changed after it was installed" in said
        assert "what to do: run `modelward verify --repair`" in said


def test_an_alarm_about_what_is_whole_just_ends(world: World, server: Server) -> None:
    flip(world)
    opens(world, "1.0.0", fallback=True)
    flip(world)
    with Running(world, server) as daemon:
        done = daemon.wait_for("repaired")
        assert (done["mended"], done["fetched"]) == ([], 0)
        is_whole(world)


def test_words() -> None:
    failed = {"event": "repair-failed", "reason": "no", "exit_code": int(ExitCode.UNAVAILABLE)}
    assert of_event(failed) == (Level.WARNING, "NOT repaired, tried again later: no")
    assert of_event({"event": "repairing"}) is None  # of another version
