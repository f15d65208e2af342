"""One check, in this process."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from werkzeug.wrappers import Response

from modelward import config, update
from modelward.daemon.attempt import HEARTBEAT, LOCK_PATIENCE, Job, Watch, run
from modelward.errors import Gate, Unavailable
from modelward.install import fsops
from modelward.transfer.pace import Patience
from tests.daemon.site import configure
from tests.simulator.server import Server
from tests.simulator.world import World


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


def job(world: World, server: Server, *, only_check: bool = False) -> Job:
    settings = config.merged(world.device, {}, {"repository": server.url})
    return Job.parse(Job(world.device, settings, only_check).to_line())


def told(
    stop: Callable[[], bool] = lambda: False, clock: Clock | None = None
) -> tuple[Watch, list[Any]]:
    events: list[Any] = []
    clock = clock or Clock()
    return Watch(events.append, stop, clock, clock.sleep), events


def test_a_job_survives_its_line() -> None:
    made = Job(Path("/x"), {"models": ["a"], "run": {"interval": "1s"}}, only_check=True)
    assert Job.parse(made.to_line()) == made
    assert "\n" not in made.to_line()


def test_what_a_busy_server_asks_for_is_handed_on(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(update, "PATIENCE", Patience(tries=1))
    with world.serve() as server:
        world.publish("1.1.0")
        server.lie(
            r"/metadata/timestamp",
            lambda _honest: Response(status=503, headers={"Retry-After": "1800"}),
        )
        result = run(job(world, server), told()[0])
    assert (result["outcome"], result["retry_after"]) == ("unavailable", 1800)


def test_it_stops_before_anything_changes_and_not_after(world: World) -> None:
    with world.serve() as server:
        world.publish("1.1.0")
        for last in (Gate.METADATA, Gate.POLICY, Gate.FETCH):
            events: list[Any] = []

            def stop(last: Gate = last, events: list[Any] = events) -> bool:
                return bool(events) and events[-1].get("gate") == last.label

            result = run(job(world, server), Watch(events.append, stop))
            assert "told to stop" in result["reason"]
            assert world.read_model()[0] == "1.0.0"

        def late() -> bool:
            return bool(events) and events[-1].get("gate_number", 0) >= Gate.INSTALL.number

        events = []
        assert run(job(world, server), Watch(events.append, late))["outcome"] == "updated"


def test_nothing_changes_once_the_window_has_shut_but_by_hand(world: World) -> None:
    configure(world.device, windows='["00:00-00:00"]')  # which was open when the check began
    with world.serve() as server:
        world.publish("1.1.0")
        result = run(job(world, server), told()[0])
        assert (result["outcome"], result["gate"]) == ("unavailable", "install")
        assert 0 <= result["opens_in"] <= 24 * 60 * 60
        assert world.read_model()[0] == "1.0.0"
        done = world.client_here("update", server)
        assert (done.json["outcome"], done.json["fetched"]) == ("updated", 0)


def test_a_download_is_told_of_now_and_then() -> None:
    clock = Clock()
    watch, events = told(clock=clock)
    for received in range(100):
        watch.fetching(received, 100, "http://x")
        clock.sleep(HEARTBEAT / 10)
    assert [event["received"] for event in events] == list(range(0, 100, 10))


def test_it_waits_for_another_updater_but_not_for_ever(world: World) -> None:
    clock = Clock()
    watch, events = told(clock=clock)
    with fsops.lock(world.device / "lock"), world.serve() as server:
        world.publish("1.1.0")
        result = run(job(world, server), watch)
    assert (result["outcome"], result["gate"]) == ("unavailable", "recover")
    assert [event["event"] for event in events] == ["waiting"]
    assert clock.now >= LOCK_PATIENCE


def test_it_does_not_wait_once_it_is_told_to_stop() -> None:
    watch, _ = told(lambda: True)
    assert not watch.keep_waiting("1")
    with pytest.raises(Unavailable, match="told to stop"):
        watch.fetching(1, 2, "http://x")


def test_a_state_directory_that_cannot_be_written_is_told_with_what_to_do(world: World) -> None:
    with world.serve() as server:
        world.publish("1.1.0")
        (world.device / "lock").unlink()
        (world.device / "lock").mkdir()
        result = run(job(world, server), told()[0])
    assert (result["outcome"], result["gate"]) == ("unavailable", "recover")
    assert result["advice"]
