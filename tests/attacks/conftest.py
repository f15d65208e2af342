"""A scene for every attack, and the table that `make attacks` prints."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.attacks.scene import Record, Scene, peers
from tests.simulator.server import Server
from tests.simulator.world import World

COLUMNS = ("row", "attack", "outcome", "gate", "python-tuf alone", "checksum file")
LEGEND = """
refused      it took nothing            no limit   it was still reading after 32 MiB
unavailable  so, but it tries again     followed   it went where the attacker sent it
withheld     it learned of nothing new  no notice  it changed nothing and said nothing
fell back    it noticed, raised the alarm and served the version before
rolled back  it tried it in a process of its own, and goes on with the version before
no harm      it noticed, said so, and installed what was approved
readable     a program that had the model open went on reading what was approved
ACCEPTED     it runs what the attacker wanted     -  the attack does not exist for it
Measured in this run. The cases are in tests/attacks/, the rows in docs/threat-model.md."""


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--attack-table", action="store_true", help="print the table of attacks")


@pytest.fixture(scope="session")
def quiet_world(quiet_world: World, tmp_path_factory: pytest.TempPathFactory) -> World:
    """A world in which nothing bad has happened yet, and in which peers live, too."""
    world = quiet_world.copy(tmp_path_factory.mktemp("peers"))
    with world.serve() as server:
        for peer in peers(world):
            peer.update(server.url)
            assert peer.installed() == world.offered
    return world


@pytest.fixture
def world(quiet_world: World, tmp_path: Path) -> Iterator[World]:
    """A world of this case's own."""
    world = quiet_world.copy(tmp_path / "world")
    yield world
    shutil.rmtree(world.place)


@pytest.fixture
def scene(world: World, request: pytest.FixtureRequest, record_property: Record) -> Iterator[Scene]:
    """The stage of an attack."""
    record_property("attack", [str(_row(request)), _name(request)])
    with world.serve() as server, Server(world.place) as trap:
        yield Scene(world, server, trap, record_property)


def _row(request: pytest.FixtureRequest) -> int:
    marker = request.node.get_closest_marker("attack")
    assert marker, "every case has its row of the threat model: @pytest.mark.attack(row)"
    return int(marker.args[0])


def _name(request: pytest.FixtureRequest) -> str:
    """Return what a case is called: its docstring, and which of several it is."""
    name = (request.function.__doc__ or "").strip().splitlines()[0].rstrip(".")
    callspec = getattr(request.node, "callspec", None)
    return f"{name}: {callspec.id}" if callspec else name


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if not terminalreporter.config.getoption("--attack-table", default=False):
        return
    rows = []
    for outcome in ("passed", "failed"):
        for report in terminalreporter.stats.get(outcome, ()):
            properties = dict(report.user_properties)
            if report.when == "call" and "attack" in properties:
                verdict = properties.get("verdict") if outcome == "passed" else None
                rows.append((*properties["attack"], *(verdict or ("FAILED", "", "", ""))))
    rows.sort(key=lambda row: (int(row[0]), row[1]))
    _print_table(terminalreporter, [COLUMNS, *rows])
    refused = sum(row[2] in ("refused", "unavailable", "rolled back") for row in rows)
    terminalreporter.write_line(
        f"\n{len(rows)} attacks, {refused} refused or rolled back by the device\n{LEGEND}"
    )


def _print_table(terminal: pytest.TerminalReporter, rows: list[tuple[str, ...]]) -> None:
    widths = [max(len(row[column]) for row in rows) for column in range(len(COLUMNS))]
    terminal.section("attacks")
    for number, row in enumerate(rows):
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        terminal.write_line("  ".join(cells).rstrip())
        if number == 0:
            terminal.write_line("  ".join("-" * width for width in widths))
