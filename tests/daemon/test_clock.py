"""Clocks that jump under a running daemon: by libfaketime, in the real process."""

import shutil
import signal
import subprocess
from pathlib import Path

import pytest

from tests.daemon.site import Running, configure
from tests.simulator.world import World

FAKETIME = shutil.which("faketime")


@pytest.mark.skipif(not FAKETIME, reason="faketime is not installed")
def test_a_clock_that_jumps_by_years_and_back(world: World, tmp_path: Path) -> None:
    shown = tmp_path / "clock"
    shown.write_text("+0")
    environment = {
        "LD_PRELOAD": library(),
        "FAKETIME_TIMESTAMP_FILE": str(shown),
        "FAKETIME_NO_CACHE": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
    }
    configure(world.device, interval='"1s"', jitter="0", backoff='"1s"')
    with world.serve() as server, Running(world, server, **environment) as daemon:
        daemon.wait_for("checked", outcome="unchanged")
        shown.write_text("+3y")  # by such a clock, everything has expired
        assert "expired" in daemon.wait_for("checked", outcome="refused")["reason"]
        shown.write_text("-3y")
        world.publish("1.1.0")
        done = daemon.wait_for("checked", outcome="updated")
        assert done["running"] == {"meter-reader": "1.1.0"}
        shown.write_text("+0")
        daemon.wait_for("checked", outcome="unchanged")
        world.publish("1.2.0")
        daemon.wait_for("checked", outcome="updated")
        daemon.signal(signal.SIGTERM)
        assert daemon.process.wait(60) == 0
    assert world.read_model() == ("1.2.0", world.offered)


def library() -> str:
    """Return the library that faketime would preload."""
    done = subprocess.run(
        [str(FAKETIME), "-f", "+0", "env"], capture_output=True, text=True, check=True
    )
    (line,) = (line for line in done.stdout.splitlines() if line.startswith("LD_PRELOAD="))
    return line.partition("=")[2]
