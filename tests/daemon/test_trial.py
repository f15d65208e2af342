"""New releases on trial, where the daemon has to see to it that the trial ends."""

import signal
from dataclasses import replace
from pathlib import Path
from textwrap import dedent

from modelward.config import load
from modelward.device import Device
from modelward.install.trial import MAX_STARTS
from tests.daemon.site import Running, reports
from tests.simulator.world import MODEL, World


def put_on_trial(device: Path, health: str, run: str = 'interval = "1h"\njitter = 0') -> None:
    """Configure how new releases are tried, and when the daemon looks."""
    file = device / "modelward.toml"
    text = file.read_text("utf-8").partition("\n[run]")[0]
    file.write_text(f"{text}\n[run]\n{run}\n[health]\n{health}\n", "utf-8")


def confirmed(world: World) -> int:
    """Return the counter below which nothing is accepted any more."""
    return int(world.client_here("status").json["floors"]["releases"]["meter-reader"])


def start_too_often(world: World) -> None:
    """Let the device have been started so often during a trial that the next start ends it."""
    journals = Device(load(world.device, {})).trials._journals
    journal = journals.load()
    assert journal.trial
    trial = replace(journal.trial, boot="before", starts=MAX_STARTS, seen=False)
    journals.save(replace(journal, trial=trial))


def test_a_trial_is_confirmed_when_it_is_over_not_an_hour_later(world: World) -> None:
    put_on_trial(world.device, 'soak = "1s"')
    before = confirmed(world)
    with world.serve() as server:
        world.publish("1.1.0")
        with Running(world, server) as daemon:
            updated = daemon.wait_for("checked", outcome="updated")
            assert updated["trial_until"]
            assert confirmed(world) == before
            assert "the trial is over" in daemon.wait_for("gate", gate="commit")["detail"]
            assert daemon.wait_for("checked")["trial_until"] is None
            assert confirmed(world) == before + 1


def test_one_that_fails_goes_back_outside_of_windows_too(world: World, tmp_path: Path) -> None:
    works = tmp_path / "works"
    works.touch()
    health = f'soak = "1h"\ncommand = ["test", "-e", "{works}"]'
    put_on_trial(world.device, health)
    with world.serve() as server:
        world.publish("1.1.0")
        with Running(world, server) as daemon:
            daemon.wait_for("checked", outcome="updated")
            put_on_trial(world.device, health, 'jitter = 0\nwindows = ["00:00-00:00"]')
            daemon.signal(signal.SIGHUP)
            daemon.wait_for("reloaded")
            daemon.wait_for("checked", outcome="unchanged")  # new settings are tried soon
            works.unlink()
            daemon.signal(signal.SIGUSR1)
            ended = daemon.wait_for("checked")
            assert ended["exit_code"] == 5
            assert (ended["level"], ended["gate"]) == ("error", "health")
            assert world.read_model()[0] == "1.0.0"
            told = reports(world)[-1]
            assert (told.ended, told.refused.outcome) == (told.refused, "rolled back")
            assert told.models[MODEL].version == "1.0.0"
            noted = world.client_here("status").json["last"]
            assert (noted["outcome"], noted["reason"]) == ("rolled back", ended["reason"])
            daemon.signal(signal.SIGUSR1)
            assert daemon.wait_for("checked")["outcome"] == "unchanged"  # not tried again at once


def test_a_trial_is_judged_at_once_after_a_start(world: World, tmp_path: Path) -> None:
    works = tmp_path / "works"
    works.touch()
    put_on_trial(
        world.device,
        f'soak = "1h"\ncommand = ["test", "-e", "{works}"]',
        'interval = "1h"\njitter = "1h"',
    )
    with world.serve() as server:
        world.publish("1.1.0")
        assert world.client_here("update", server).json["outcome"] == "updated"
        works.unlink()
        with Running(world, server) as daemon:  # whose first check would be due within the hour
            assert daemon.wait_for("checked")["exit_code"] == 5
        assert world.read_model()[0] == "1.0.0"


def test_hashing_what_is_on_trial_is_no_standstill(world: World, tmp_path: Path) -> None:
    """However slow the disk and large the model: what moves is not stuck."""
    (tmp_path / "sitecustomize.py").write_text(
        dedent("""\
            import os, time

            preadv = os.preadv

            def slow(*arguments):
                time.sleep(0.6)
                return preadv(*arguments)

            os.preadv = slow
            """)
    )
    put_on_trial(world.device, 'soak = "1s"')
    with world.serve() as server:
        world.publish("1.1.0")
        assert world.client_here("update", server).json["outcome"] == "updated"
        before = confirmed(world)
        often = 'interval = "1h"\njitter = 0\nstuck = "3s"'
        put_on_trial(world.device, 'soak = "1s"\ntimeout = "1s"', often)
        with Running(world, server, PYTHONPATH=str(tmp_path)) as daemon:
            daemon.wait_for("checked")
            while confirmed(world) == before:  # a machine under load may be slow to start it
                daemon.signal(signal.SIGUSR1)
                daemon.wait_for("checked")
            assert sum(line["event"] == "hashing" for line in daemon.seen) > 1
