"""A neighbour lies (rows 7 and 11): it costs at most what it was asked for, and never the update.

Each case is an honest update beside a hostile neighbour. What one can waste of a large file is in
tests/transfer/test_swarm.py: a piece.
"""

import pytest

from modelward.errors import ExitCode
from tests.attacks.scene import NOT_APPLICABLE, Scene
from tests.simulator.server import Answer, Endless, Server, cut, gzip_bomb, instead, redirect


def survives(scene: Scene, path: str, answer: Answer) -> None:
    """Require that an honest update succeeds, whatever a neighbour answers under some paths."""
    scene.world.publish("1.1.0")
    with Server(scene.world.repository) as neighbour:
        neighbour.lie(path, answer)
        with (scene.world.device / "modelward.toml").open("a") as file:
            file.write(f'\n[neighbours]\nurls = ["{neighbour.url}"]\n')
        done = scene.world.client("update", scene.server)
        assert neighbour.requests
        assert neighbour.poured() < 64 << 20
        assert not scene.trap.requests
    assert done.code == ExitCode.DONE, done
    assert scene.world.read_model() == ("1.1.0", scene.world.offered)
    assert scene.world.client_here("verify").code == ExitCode.DONE
    scene._verdicts = (NOT_APPLICABLE, NOT_APPLICABLE)
    scene.conclude("other source", "10 fetch")


@pytest.mark.attack(7)
def test_endless_blob_of_a_neighbour(scene: Scene) -> None:
    """A neighbour's file that never ends"""
    survives(scene, "/blobs/", Endless())


@pytest.mark.attack(11)
@pytest.mark.parametrize(
    "answer", [instead(b"poison"), cut, gzip_bomb], ids=["wrong bytes", "cut", "compressed"]
)
def test_neighbour_hands_out(scene: Scene, answer: Answer) -> None:
    """A neighbour hands out something else"""
    survives(scene, "/blobs/", answer)


@pytest.mark.attack(11)
def test_neighbour_sends_elsewhere(scene: Scene) -> None:
    """A neighbour redirects to another server"""
    survives(scene, "/", redirect(f"{scene.trap.url}/"))


@pytest.mark.attack(11)
def test_neighbour_talks_nonsense(scene: Scene) -> None:
    """A neighbour answers everything with nonsense"""
    survives(scene, "/", instead(b"\xff" * 5000))
