"""Two who update one device at once, and programs that use the model meanwhile."""

import signal
import subprocess
import sys
from collections.abc import Callable
from threading import Event

import pytest
from werkzeug.wrappers import Response

import modelward
from modelward.errors import ExitCode
from tests.attacks.scene import NEXT, Scene
from tests.simulator.world import Done, clean_environment

WEIGHTS = r"/blobs/"
PATIENCE = 60.0  # seconds: only a test that fails waits as long


class Held:
    """An honest update that is held up in the midst of its weights, until it is let go."""

    def __init__(self, scene: Scene) -> None:
        self.scene = scene
        self._arrived, self._go_on = Event(), Event()
        scene.world.publish("1.1.0")
        scene.server.lie(WEIGHTS, self._hold)
        self.process = subprocess.Popen(
            command(scene, "update"),
            env=clean_environment(),
            stdout=subprocess.DEVNULL,
        )
        assert self._arrived.wait(PATIENCE)

    def let_go(self) -> None:
        """Let it have its weights; it must end well."""
        self._go_on.set()
        assert self.process.wait(PATIENCE) == ExitCode.DONE
        assert self.scene.world.read_model() == ("1.1.0", self.scene.world.offered)

    def _hold(self, honest: bytes) -> Response:
        self._arrived.set()
        self._go_on.wait(PATIENCE)
        return Response(honest)


def command(scene: Scene, *words: str) -> list[str]:
    """Return a command line of the device."""
    device = ("--state", str(scene.world.device), "--repository", scene.server.url)
    return [sys.executable, "-m", "modelward", *words, *device]


def update(scene: Scene) -> Done:
    return scene.world.client("update", scene.server)


def bring(scene: Scene) -> Done:
    return scene.world.client("import", None, str(scene.world.repository))


@pytest.mark.attack(33)
@pytest.mark.parametrize(
    "second", [pytest.param(update, id="hand"), pytest.param(bring, id="a stick")]
)
def test_two_updaters(scene: Scene, second: Callable[[Scene], Done]) -> None:
    """Two updaters at once, the second by"""
    before = scene.world.read_model()
    first = Held(scene)
    done = second(scene)
    assert done.code == ExitCode.UNAVAILABLE
    assert done.json["gate"] == "recover"
    assert f"process {first.process.pid}" in done.json["reason"]
    assert scene.world.read_model() == before
    first.let_go()
    scene.conclude("unavailable", "1 recover")


@pytest.mark.attack(33)
def test_updater_killed_while_another_waits(scene: Scene) -> None:
    """A daemon waits for an updater by hand, which is killed."""
    first = Held(scene)
    with subprocess.Popen(
        command(scene, "run", "--once", "--json"),
        env=clean_environment(),
        stdout=subprocess.PIPE,
        text=True,
    ) as second:
        assert second.stdout
        assert f"process {first.process.pid}" in second.stdout.readline()
        scene.server.be_honest()
        first.process.send_signal(signal.SIGKILL)
        first.process.wait(PATIENCE)
        assert second.wait(PATIENCE) == ExitCode.DONE
    assert scene.world.read_model() == ("1.1.0", scene.world.offered)
    scene.conclude("no harm", "1 recover")


@pytest.mark.attack(33)
def test_model_in_use(scene: Scene) -> None:
    """An update, and another, while a program has the model open."""
    version, files = scene.world.read_model()
    with modelward.open_model("meter-reader", scene.world.device) as opened:
        for newer in ("1.1.0", "1.2.0"):  # the second removes the release that is open
            scene.world.publish(newer)
            assert scene.world.client_here("update", scene.server).code == ExitCode.DONE
            assert opened.version == version
            assert {path: opened.read(path) for path in opened} == files
            assert scene.world.read_model() == (newer, scene.world.offered)
    assert NEXT not in (version, newer)
    scene.conclude("readable", "-")
