"""A world for daemons, made once and copied for every test."""

from pathlib import Path

import pytest

from tests.daemon.site import configure
from tests.simulator.world import World


@pytest.fixture(scope="session")
def quiet_world(tmp_path_factory: pytest.TempPathFactory) -> World:
    """A world to copy, not to change."""
    return World.build(tmp_path_factory.mktemp("world"))


@pytest.fixture
def world(quiet_world: World, tmp_path: Path) -> World:
    """A world of this test's own, whose daemon checks at once, and then once an hour."""
    world = quiet_world.copy(tmp_path / "world")
    configure(world.device, interval='"1h"', jitter="0")
    return world
