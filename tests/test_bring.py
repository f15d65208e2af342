"""What an interrupted fetch brought: kept while a release wants it, and no longer."""

import os
from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Any

import pytest

from modelward import config
from modelward.daemon.attempt import Watch
from modelward.device import Device
from modelward.errors import ExitCode, Gate, NotNow
from modelward.formats.channel import MILLION, Entry, Rollout, Stage
from modelward.transfer.plan import RESERVE
from modelward.update import update
from tests.simulator import server as answers
from tests.simulator.chain import digest
from tests.simulator.model_files import onnx_file
from tests.simulator.server import Server
from tests.simulator.thief import CHANNEL, SERVER, Thief
from tests.simulator.world import MODEL, TOKENIZER, Client, World, bundle_of, now

SIZE = 1 << 20  # bytes of weights


def here(world: World) -> set[str]:
    """Return the digests of all blobs in the store, whole or not."""
    found = (world.device / "store").rglob("*")
    return {path.name.removesuffix(".journal") for path in found if path.is_file()}


@pytest.fixture
def begun(world: World, client: Client, server: Server) -> Callable[[], bool]:
    """A device that has half of 1.1.0; tells whether it still has all of that."""
    before = here(world)
    bundle = {
        "float/metrics.json": b'{"accuracy": 0.99}',
        "model.onnx": onnx_file(os.urandom(SIZE)),
    }
    world.publish("1.1.0", bundle=bundle_of("1.1.0") | bundle)
    weights = digest(world.offered["model.onnx"])
    server.lie(f"/blobs/sha256/{weights[:2]}/{weights}", answers.cut)
    assert client("update").code == ExitCode.UNAVAILABLE
    server.be_honest()
    brought = here(world) - before
    assert weights in brought
    assert len(brought) > 1  # a small file, whole
    return lambda: brought <= here(world)


def test_it_is_kept_while_the_release_waits(world, client, server, begun):
    """Neither a look, nor a hold, nor another model's update drops it."""
    world.offer("1.0.0", TOKENIZER)
    for command in (
        ["check"],
        ["check", TOKENIZER],
        ["pin", MODEL],
        ["update"],  # of the tokenizer alone
        ["update"],  # of nothing
        ["rollback", TOKENIZER],
        ["unpin", MODEL],
    ):
        client(command[0], *command[1:])
        assert begun(), command
    server.requests.clear()
    done = client("update")
    assert done.json["running"][MODEL] == "1.1.0"
    assert 0 < done.json["fetched"] < SIZE


def test_it_is_kept_when_nobody_can_say_what_it_is_of(world, client, server, begun):
    client("pin", MODEL)
    server.lie("/targets/.*release.json", answers.status(404))
    assert client("update").code == ExitCode.DONE
    assert begun()


def test_it_is_kept_when_the_trial_of_another_model_ends(world, client, begun):
    world.offer("1.0.0", TOKENIZER)
    client("pin", MODEL)
    settings = world.device / "modelward.toml"
    settings.write_text(f'{settings.read_text()}\n[health]\nsoak = "1h"\n')
    assert client("update").json["changes"]
    assert client("confirm").code == ExitCode.DONE
    assert begun()


def test_it_goes_when_the_channel_has_moved_on(world, client, begun):
    world.publish("1.2.0")
    client("pin", MODEL)
    before = here(world)
    assert client("update").json["changes"] == []
    assert not begun()
    assert here(world) < before


def test_it_goes_when_there_is_no_room_for_both(world, client, begun, monkeypatch):
    world.offer("1.0.0", TOKENIZER)
    client("pin", MODEL)
    monkeypatch.setattr(
        "modelward.install.store.Store.free", lambda _: RESERVE + (0 if begun() else SIZE)
    )
    assert client("check").json["outcome"] == "available"
    assert begun()
    assert client("update").json["changes"]
    assert not begun()


def test_it_is_kept_when_the_rollout_s_window_shuts_meanwhile(world, server):
    began = time = now().astimezone()
    shuts = began + timedelta(minutes=1)
    window = f"{began:%H:%M}-{shuts:%H:%M}"
    rollout = Rollout(
        salt=b"x" * 16,
        not_before=began - timedelta(days=1),
        urgent=False,
        halted=False,
        stages=(Stage(MILLION),),
        windows=(window,),
    )
    world.publish("1.1.0", offer=None)
    Thief(world, [*SERVER, CHANNEL]).offer({MODEL: Entry("1.1.0", "1.0.0", rollout=rollout)})
    settings = config.merged(world.device, {}, {"repository": server.url})
    device = Device(config.from_settings(world.device, settings), clock=lambda: time)

    def tell(event: Mapping[str, Any]) -> None:
        nonlocal time
        if event.get("gate") == Gate.FETCH.label:
            time = shuts

    with pytest.raises(NotNow, match=f"may change at {window} only") as waits:
        update(device, (), Watch(tell))
    assert waits.value.gate is Gate.INSTALL
    assert timedelta(hours=23) < timedelta(seconds=waits.value.opens_in) < timedelta(days=1)
    assert world.read_model()[0] == "1.0.0"
    time = began
    done = update(device, (), Watch(lambda _event: None))
    assert (done.installed.active[MODEL].version, done.carried.fetched) == ("1.1.0", 0)
