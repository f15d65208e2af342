"""Fixtures: the commands kept warm, and a fleet to copy."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.runbooks.fleet import Fleet
from tests.runbooks.warm import warm
from tests.simulator.server import Server


@pytest.fixture(scope="session")
def commands(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder for PATH with the project's commands."""
    with warm(tmp_path_factory.mktemp("warm")) as folder:
        yield folder


@pytest.fixture(scope="session")
def template(commands: Path, tmp_path_factory: pytest.TempPathFactory) -> Fleet:
    """A fleet in which nothing bad has happened: to copy, not to change."""
    fleet = Fleet.machines(tmp_path_factory.mktemp("fleet") / "template", commands)
    fleet.found()
    with Server(fleet.repository) as server:
        fleet.set_up_device(server.url, fleet.repository / "metadata/1.root.json")
    return fleet
