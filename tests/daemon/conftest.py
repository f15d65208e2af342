"""A world for daemons."""

import pytest

from tests.daemon.site import configure
from tests.simulator.world import World


@pytest.fixture
def world(world: World) -> World:
    """A world of this test's own, whose daemon checks at once, and then once an hour."""
    configure(world.device, interval='"1h"', jitter="0")
    return world
