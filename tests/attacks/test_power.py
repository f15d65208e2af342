"""A device that loses its power, or whose disk is full or broken, in the middle of an update.

A sample, with the real command over the real network. tests/crash tries every point there is.
"""

import shutil
import signal
import subprocess
import sys

import pytest

from modelward.errors import ExitCode
from tests.attacks.scene import Scene
from tests.simulator.world import clean_environment

KILL = "signal=KILL"


def update(scene: Scene, call: str, fate: str, number: int) -> int:
    """Update; the `number`-th system call of its name is the last one, or fails."""
    strace = shutil.which("strace")
    if strace is None:
        pytest.skip("strace is not installed")
    command = [strace, "-f", "-qq", "-e", f"trace={call}"]
    command += ["-e", f"inject={call}:{fate}:when={number}", "-o", "/dev/null"]
    command += [sys.executable, "-m", "modelward", "update", "--state", str(scene.world.device)]
    done = subprocess.run(
        [*command, "--repository", scene.server.url],
        env=clean_environment(),
        capture_output=True,
        check=False,
        timeout=100,
    )
    return done.returncode


def attack(scene: Scene, *steps: tuple[str, str, int]) -> None:
    """Let an update meet its fate, and another; require old or new, whole, after each."""
    before = scene.world.read_model()
    scene.world.publish("1.1.0")
    after = ("1.1.0", scene.world.offered)
    for call, fate, number in steps:
        code = update(scene, call, fate, number)
        assert code == (-signal.SIGKILL if fate == KILL else ExitCode.ERROR), code
        assert scene.world.read_model() in (before, after)
        verified = scene.world.client_here("verify")
        assert not [item for item in verified.json["checked"] if not item["intact"]]
    scene.conclude("old or new", "-")


@pytest.mark.attack(32)
@pytest.mark.parametrize("number", [8, 16, 24])
def test_power_cut(scene: Scene, number: int) -> None:
    """The power goes in the midst of an update, and again in the midst of recovery"""
    attack(scene, ("fsync", KILL, number), ("rename", KILL, 2))


@pytest.mark.attack(32)
@pytest.mark.parametrize(
    ("call", "fate"), [("fsync", "error=ENOSPC"), ("rename", "error=EIO")], ids=["full", "broken"]
)
def test_disk(scene: Scene, call: str, fate: str) -> None:
    """The disk is no good in the midst of an update"""
    attack(scene, (call, fate, 12))
