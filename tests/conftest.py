"""What most tests share: a world, made once and copied, and how long property tests run."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from tests.simulator.ledger import LoggedWorld, Witnesses
from tests.simulator.server import Server
from tests.simulator.world import Client, Done, World

# Shared machines are slow now and then: what a test may take is pytest's to say.
settings.register_profile(
    "default", deadline=None, max_examples=50, suppress_health_check=[HealthCheck.too_slow]
)
# A little with every test run, for long with `make fuzz`.
settings.register_profile("fuzz", settings.get_profile("default"), max_examples=5_000)
settings.load_profile("default")


@pytest.fixture(scope="session")
def quiet_world(tmp_path_factory: pytest.TempPathFactory) -> World:
    """A world whose device runs 1.0.0: to copy, not to change."""
    return World.build(tmp_path_factory.mktemp("world"))


@pytest.fixture(scope="session")
def witnesses() -> Iterator[Witnesses]:
    """The witnesses of the logs of all worlds. Whoever has them lie makes them honest again."""
    with Witnesses() as witnesses:
        yield witnesses


@pytest.fixture(scope="session")
def quiet_logged_world(
    tmp_path_factory: pytest.TempPathFactory, witnesses: Witnesses
) -> LoggedWorld:
    """The same with a transparency log: to copy, not to change."""
    place = tmp_path_factory.mktemp("logged")
    return LoggedWorld(place, place, witnesses=witnesses).populate()


@pytest.fixture
def world(quiet_world: World, tmp_path: Path) -> World:
    """A world of this test's own."""
    return quiet_world.copy(tmp_path / "world")


@pytest.fixture
def server(world: World) -> Iterator[Server]:
    """A server of its repository."""
    with world.serve() as server:
        yield server


@pytest.fixture
def client(world: World, server: Server) -> Client:
    """Runs a command of the device, against the server if the command needs one."""

    def run(command: str, *options: str, as_json: bool = True) -> Done:
        asks = server if command in ("update", "check") else None
        return world.client_here(command, asks, *options, as_json=as_json)

    return run
