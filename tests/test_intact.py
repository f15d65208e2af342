"""What is on trial and was changed since: neither tried nor confirmed, but mended or replaced."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from modelward.config import load
from modelward.device import Device
from modelward.errors import ExitCode
from modelward.install import health
from tests.simulator.server import Server
from tests.simulator.world import MODEL, World

SETTINGS = '\n[run]\nverify = "never"\n[health]\nsoak = "1h"\n'
ADVICE = "run `modelward verify --repair`"


@pytest.fixture
def server(world: World) -> Iterator[Server]:
    """A server of the repository; 1.1.0 is on trial, 1.0.0 is what it would go back to."""
    file = world.device / "modelward.toml"
    file.write_text(file.read_text("utf-8") + SETTINGS, "utf-8")
    world.publish("1.1.0")
    with world.serve() as server:
        assert world.client_here("update", server).json["running"] == {MODEL: "1.1.0"}
        yield server


@pytest.fixture
def slot(world: World, server: Server) -> Path:
    """The slot that is on trial."""
    return (world.device / "current" / MODEL).resolve().parent


def flip(file: Path) -> None:
    file.chmod(0o644)
    data = file.read_bytes()
    file.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))


def reboot(world: World, later: timedelta = timedelta(0)) -> None:
    """Let the device have been started since, or so much time have passed."""
    journals = Device(load(world.device, {})).trials._journals
    journal = journals.load()
    assert journal.trial
    trial = replace(journal.trial, boot="before", soaked=int(later.total_seconds()))
    journals.save(replace(journal, trial=trial))


def floor(world: World) -> int:
    return int(world.client_here("status").json["floors"]["releases"][MODEL])


@pytest.mark.attack(29)
def test_it_is_neither_tried_nor_confirmed_until_it_is_mended(
    world: World, server: Server, slot: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = floor(world)
    flip(slot / "files/model.onnx")
    reboot(world)
    with monkeypatch.context() as patch:
        patch.delattr(health, "probe")  # no parser may see it
        for later in (0, 2):
            reboot(world, timedelta(hours=later))
            done = world.client_here("update", server)
            assert done.code == ExitCode.DONE
            assert "model.onnx: is not the file that was approved" in done.err + done.out
            (alarm,) = done.json["alarms"]
            assert (alarm["version"], alarm["served"]) == ("1.1.0", "1.0.0")
            assert (floor(world), world.read_model()[0]) == (before, "1.0.0")
    confirmed = world.client_here("confirm")
    assert (confirmed.code, confirmed.json["gate"]) == (ExitCode.REFUSED, "install")
    assert confirmed.json["advice"] == ADVICE
    mended = world.client("verify", None, "--repair", MODELWARD_REPOSITORY=server.url)
    assert mended.code == ExitCode.DONE
    assert world.client_here("update", server).code == ExitCode.DONE
    assert (floor(world), world.read_model()[0]) == (before + 1, "1.1.0")


def test_a_newer_release_takes_its_place(world: World, server: Server, slot: Path) -> None:
    """It may be that nobody has any more what would mend it."""
    flip(slot / "files/model.onnx")
    world.publish("1.2.0")
    reboot(world, timedelta(hours=2))
    before = floor(world)
    assert world.client_here("update", server).json["running"] == {MODEL: "1.2.0"}
    assert floor(world) == before
    reboot(world, timedelta(hours=2))
    world.client_here("update", server)
    assert floor(world) == before + 2
    assert world.client_here("verify").code == ExitCode.DONE


@pytest.mark.parametrize(
    "damage", [lambda file: file.unlink(), lambda file: file.write_bytes(b"\0")]
)
def test_so_with_the_policy_that_was_kept(world: World, server: Server, slot: Path, damage) -> None:
    (slot / "policy.json").chmod(0o644)
    damage(slot / "policy.json")
    reboot(world)
    said = world.client_here("update", server, as_json=False)
    assert said.code == ExitCode.DONE
    assert "gate 1 (recover): meter-reader 1.1.0 was changed after it was installed" in said.out
    assert "policy.json cannot be read" in said.err
    assert f"what to do: {ADVICE}" in said.err
    done = world.client("run", server, "--once")
    assert '"event": "repaired"' in done.out
    assert world.client_here("status").json["alarms"] == []
    assert world.client_here("update", server).code == ExitCode.DONE
    assert world.client_here("verify").code == ExitCode.DONE


def test_while_it_goes_well_it_is_not_hashed_again(
    world: World, server: Server, slot: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr("modelward.intact.changed")
    assert world.client_here("update", server).code == ExitCode.DONE
