"""A check that finds nothing new: one small request, and nothing loaded that it does not use."""

import json
import subprocess
import sys
from collections.abc import Iterator
from socket import create_connection, create_server
from threading import Thread

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelward import cli, fastpath, settings
from modelward.cli import plain
from modelward.fastpath import Rest
from tests.simulator.server import Server
from tests.simulator.world import World, clean_environment

LOADS = """
import json, sys
from modelward.cli import main
code = main(sys.argv[1:])
print(json.dumps(sorted(sys.modules)))
sys.exit(code)
"""
SLOW = {
    *("tuf", "in_toto", "securesystemslib", "cryptography", "numpy", "backports"),
    *("asyncio", "http.client", "email", "ssl", "urllib.request", "urllib3"),
    *("argparse", "dataclasses", "inspect", "tomllib", "shutil", "subprocess", "ctypes"),
    *("concurrent.futures", "multiprocessing", "logging", "_strptime"),
    *("modelward.config", "modelward.device", "modelward.install", "modelward.trust"),
    *("modelward.model", "modelward.opening", "modelward.update", "modelward.transfer.http"),
}


@pytest.fixture(scope="module")
def world(quiet_world: World, tmp_path_factory: pytest.TempPathFactory) -> World:
    return quiet_world.copy(tmp_path_factory.mktemp("lean"))


@pytest.fixture
def server(world: World) -> Iterator[Server]:
    """A server that the device's own settings name."""
    with world.serve() as server:
        toml = world.device / settings.FILE
        lines = toml.read_text("utf-8").splitlines(keepends=True)
        kept = [line for line in lines if not line.startswith("repository")]
        toml.write_text("".join([f'repository = "{server.url}"\n', *kept]), "utf-8")
        assert world.client_here("update").code == 0
        server.requests.clear()
        yield server


def run(world: World, *words: str) -> tuple[list[str], set[str]]:
    """Return what a command printed and the modules that it loaded, in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-c", LOADS, *words, "--state", str(world.device)],
        env=clean_environment(), capture_output=True, text=True, check=True,
    )  # fmt: skip
    *lines, modules = done.stdout.splitlines()
    return lines, set(json.loads(modules))


def test_loads_nothing_slow_and_asks_once(world, server):
    for command in ("check", "update"):
        lines, modules = run(world, command)
        assert "has not changed since the last check" in lines[0]
        assert not modules & SLOW
        assert server.requests == ["/metadata/timestamp.json"]
        server.requests.clear()


def test_loads_only_the_command_that_is_asked_for(world, server):
    _, modules = run(world, "status")
    assert {name for name in modules if name.startswith("modelward.cli.")} == {
        *("modelward.cli.options", "modelward.cli.terminal", "modelward.cli.plain"),
        *("modelward.cli.status", "modelward.cli.update"),
    }
    assert "tuf" not in modules


class Wire:
    """Stands between a device and its server and counts what passes."""

    def __init__(self, url: str) -> None:
        self._server = create_server(("127.0.0.1", 0))
        self._place = url.removeprefix("http://").split(":")
        self.url = f"http://127.0.0.1:{self._server.getsockname()[1]}"
        self.bytes = self.connections = 0

    def carry(self) -> None:
        """Carry one connection."""
        device, _ = self._server.accept()
        host, port = self._place
        with device, create_connection((host, int(port))) as server:
            self.connections += 1
            request = device.recv(65536)
            server.sendall(request)
            self.bytes += len(request)
            while answer := server.recv(65536):
                device.sendall(answer)
                self.bytes += len(answer)
        self._server.close()


def test_under_3_kb_pass_the_wire(world, server):
    wire = Wire(server.url)
    toml = world.device / settings.FILE
    toml.write_text(toml.read_text("utf-8").replace(server.url, wire.url), "utf-8")
    # The device comes to rest at the wire's address: settings and address are the new ones.
    asked = settings.asked(settings.fingerprint(toml.read_bytes(), {}, {}), [])
    rest = Rest.parse((world.device / fastpath.FILE).read_bytes())
    fastpath.remember(world.device, rest._replace(repository=wire.url, settings=asked))
    thread = Thread(target=wire.carry)
    thread.start()
    assert world.client("check").json["outcome"] == "unchanged"
    thread.join()
    assert (wire.connections, server.requests) == (1, ["/metadata/timestamp.json"])
    assert 0 < wire.bytes < 3000


WORDS = st.sampled_from(
    ["update", "check", "status", "--json", "--state", "--state=x", "--", "-h", "dir", "", "--sta"]
)


@given(st.lists(WORDS, max_size=6))
def test_plain_lines_mean_what_the_parser_makes_of_them(words):
    options = plain.parse(words)
    if options is not None:
        assert vars(options) == vars(cli.parser(words[0]).parse_args(words))


def test_plain_lines():
    assert plain.parse(["check"])
    assert plain.parse(["update", "--json", "--state", "dir"]).state == "dir"
    for words in ([], ["status"], ["check", "model"], ["check", "--state"], ["update", "--help"]):
        assert plain.parse(words) is None


def test_every_file_adds_the_commands_it_is_said_to():
    everything = cli.parser()
    for file, commands in cli._COMMANDS.items():
        for command in commands:
            usage = cli.parser(command).format_help()
            assert all(name in usage for name in commands), file
            assert command in everything.format_help()
