"""Fixtures: the commands kept warm, and a fleet to copy."""

import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tests.runbooks.fleet import Fleet
from tests.runbooks.warm import install_shims
from tests.simulator.server import Server


@pytest.fixture(scope="session")
def commands(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder for PATH with the project's commands."""
    place = tmp_path_factory.mktemp("warm")
    address = place / "s"
    install_shims(place / "bin", address)
    warm = Path(__file__).with_name("warm.py")
    with subprocess.Popen([sys.executable, str(warm), str(address)]) as process:
        try:
            deadline = time.monotonic() + 30
            while not address.exists():
                assert process.poll() is None
                assert time.monotonic() < deadline
                time.sleep(0.02)
            yield place / "bin"
        finally:
            process.terminate()


@pytest.fixture(scope="session")
def template(commands: Path, tmp_path_factory: pytest.TempPathFactory) -> Fleet:
    """A fleet in which nothing bad has happened: to copy, not to change."""
    fleet = Fleet.machines(tmp_path_factory.mktemp("fleet") / "template", commands)
    fleet.found()
    with Server(fleet.repository) as server:
        fleet.set_up_device(server.url, fleet.repository / "metadata/1.root.json")
    return fleet
