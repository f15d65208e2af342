"""A file system that became read-only: what runs goes on, and errors say what to do."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from modelward.errors import ExitCode
from tests.crash.volume import run
from tests.simulator.server import Server
from tests.simulator.world import World

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root may mount")


@pytest.fixture
def read_only(world: World) -> Iterator[Path]:
    """The world's device, on a file system that nobody can write any more."""
    aside = world.device.with_name("aside")
    world.device.rename(aside)
    world.device.mkdir()
    run("mount", "-t", "tmpfs", "tmpfs", world.device)
    try:
        shutil.copytree(aside, world.device, symlinks=True, dirs_exist_ok=True)
        run("mount", "-o", "remount,ro", world.device)
        yield world.device
    finally:
        run("umount", "-l", world.device)


@pytest.mark.parametrize("command", ["update", "check", "gc", "pin", "rollback"])
def test_it_is_said_what_to_do(world: World, server: Server, read_only: Path, command: str) -> None:
    world.publish("1.1.0")
    asks = server if command in {"update", "check"} else None
    done = world.client_here(command, asks)
    assert done.code == ExitCode.UNAVAILABLE
    assert '"gate": "recover"' in done.out
    assert done.json["reason"] == f"{read_only} cannot be written: Read-only file system"
    assert "writable again" in done.json["advice"]
    assert world.read_model()[0] == "1.0.0"
    assert world.client_here("status").code == ExitCode.DONE


def test_the_daemon_says_so_too(world: World, server: Server, read_only: Path) -> None:
    done = world.client("run", server)
    assert done.code == ExitCode.UNAVAILABLE
    assert "writable again" in done.json["advice"]
    assert str(read_only) in done.json["reason"]
