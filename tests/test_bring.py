"""What an interrupted fetch brought: kept while a release wants it, and no longer."""

import os
from collections.abc import Callable

import pytest

from modelward.errors import ExitCode
from modelward.transfer.plan import RESERVE
from tests.simulator import server as answers
from tests.simulator.chain import digest
from tests.simulator.model_files import onnx_file
from tests.simulator.server import Server
from tests.simulator.world import MODEL, TOKENIZER, Client, World, bundle_of

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
