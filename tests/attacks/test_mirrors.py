"""A mirror lies or dawdles while the repository is honest: it costs a moment, and no update."""

import os
from collections.abc import Iterator

import pytest

from modelward.errors import Gate
from tests.attacks.scene import Scene
from tests.attacks.test_transfer import METADATA, WEIGHTS
from tests.simulator import server
from tests.simulator.model_files import onnx_file
from tests.simulator.server import Answer, Endless, Server
from tests.simulator.world import bundle_of

LARGE = 300_000  # bytes: fetched in pieces


@pytest.fixture
def mirror(scene: Scene) -> Iterator[Server]:
    """A mirror that the device asks first for large files; nobody is waited for long."""
    model = onnx_file(os.urandom(LARGE))
    scene.world.publish("1.1.0", bundle={**bundle_of("1.1.0"), "model.onnx": model})
    with scene.world.serve() as mirror:
        toml = scene.world.device / "modelward.toml"
        with toml.open("a", encoding="utf-8") as file:
            file.write(f'[transfer]\nmirrors = ["{mirror.url}"]\ntimeout = "1s"\n')
        yield mirror


def flip(honest: bytes) -> bytes:
    return honest[:-1] + bytes([honest[-1] ^ 1])


LIES: dict[str, Answer] = {
    "wrong bytes": lambda honest: server.instead(flip(honest))(honest),
    "nothing but the beginning": server.cut,
    "a terabyte announced": server.announce_too_much,
    "another range": server.other_range,
    "packed": server.gzip_bomb,
    "an error": server.status(500),
}


@pytest.mark.attack(11)
@pytest.mark.parametrize("lie", LIES)
def test_lying_mirror(scene: Scene, mirror: Server, lie: str) -> None:
    """A mirror lies about the weights, the repository does not"""
    mirror.lie(WEIGHTS, LIES[lie])
    scene.overcome()
    assert mirror.asked("/blobs/")


@pytest.mark.attack(11)
def test_redirecting_mirror(scene: Scene, mirror: Server) -> None:
    """A mirror redirects to what only the device can reach, the repository has the weights."""
    mirror.lie(WEIGHTS, server.redirect(f"{scene.trap.url}/latest/meta-data/"))
    scene.overcome()


@pytest.mark.attack(7)
def test_endless_mirror(scene: Scene, mirror: Server) -> None:
    """A mirror sends weights without end, the repository does not."""
    mirror.lie(WEIGHTS, Endless())
    scene.overcome()
    assert mirror.poured() < 16 << 20


@pytest.mark.attack(8)
def test_dripping_mirror(scene: Scene, mirror: Server) -> None:
    """A mirror sends a byte now and then, the repository is fast."""
    mirror.lie(WEIGHTS, server.drip)
    scene.overcome()


@pytest.mark.attack(8)
def test_repository_that_drips(scene: Scene, mirror: Server) -> None:
    """The repository sends its timestamp a byte at a time, a mirror is fast."""
    scene.server.lie(METADATA["timestamp"], server.drip)
    scene.overcome()


@pytest.mark.attack(8)
@pytest.mark.parametrize(
    ("what", "gate"),
    [
        pytest.param(METADATA["timestamp"], Gate.METADATA, id="metadata"),
        pytest.param(WEIGHTS, Gate.FETCH, id="weights"),
    ],
)
def test_everybody_drips(scene: Scene, mirror: Server, what: str, gate: Gate) -> None:
    """Everybody sends a byte now and then, for ever"""
    for each in (mirror, scene.server):
        each.lie(what, server.drip)
    scene.unavailable_at(gate, "slower than", peers=False)
    mirror.be_honest()
