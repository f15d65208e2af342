"""What a check costs that finds nothing new, beside the least that python-tuf can do.

    make bench ARGS=check

Whole processes, started in turn, against one `modelward-repo serve`; both with their bytecode
cached. The peer is the shortest script that refreshes the same repository with `tuf.ngclient`.
"""

import json
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.bench import page
from tests.simulator.world import World, clean_environment

RUNS = 25
BIN = Path(sys.executable).parent
LAUNCHER = (sys.executable, "-S", str(Path(__file__).with_name("launch.py")))
PEER = """
import sys
from pathlib import Path
from tuf.ngclient import Updater
folder, url, root = sys.argv[1:]
Updater(folder, url + "/metadata/", bootstrap=Path(root).read_bytes()).refresh()
"""


@contextmanager
def serving(repository: Path) -> Iterator[str]:
    """Serve a repository as its operator does; yield its address."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [BIN / "modelward-repo", "serve", repository, "--port", str(port), "--workers", "1"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as server:
        try:
            for _ in range(200):
                try:
                    socket.create_connection(("127.0.0.1", port)).close()
                    break
                except OSError:
                    time.sleep(0.05)
            yield f"http://127.0.0.1:{port}"
        finally:
            server.terminate()


def measure(command: Sequence[str | Path], environment: Mapping[str, str]) -> dict[str, float]:
    """Run a command once and return what it took."""
    done = subprocess.run(
        [*LAUNCHER, *map(str, command)],
        env=dict(environment), capture_output=True, check=True,
    )  # fmt: skip
    found: dict[str, float] = json.loads(done.stdout)
    if found["status"]:
        raise SystemExit(f"{command} failed: {done.stderr.decode()}")
    return found


def compare(
    commands: Mapping[str, Sequence[str | Path]], environment: Mapping[str, str]
) -> dict[str, dict[str, float]]:
    """Run commands in turn, again and again; return the medians of what each took."""
    for command in commands.values():
        measure(command, environment)  # which leaves its bytecode behind
    found: dict[str, list[dict[str, float]]] = {name: [] for name in commands}
    for _ in range(RUNS):
        for name, command in commands.items():
            found[name].append(measure(command, environment))
    return {
        name: {key: statistics.median(run[key] for run in runs) for key in runs[0]}
        for name, runs in found.items()
    }


def main(_arguments: Sequence[str] = ()) -> int:
    """Measure, print, and write the page."""
    with TemporaryDirectory() as folder:
        place = Path(folder)
        world = World.build(place)
        # Both find their bytecode there, whatever this environment says of writing any.
        environment = clean_environment() | {"PYTHONPYCACHEPREFIX": str(place / "bytecode")}
        environment.pop("PYTHONDONTWRITEBYTECODE", None)
        with serving(world.repository) as url:
            toml = world.device / "modelward.toml"
            toml.write_text(f'repository = "{url}"\ndevice_id = "bench"\n')
            client = [BIN / "modelward", "update", "--state", world.device]
            subprocess.run(client, env=environment, stdout=subprocess.DEVNULL, check=True)
            cache = place / "cache"
            cache.mkdir()
            root = world.repository / "metadata/1.root.json"
            took = compare(
                {
                    "ours": [BIN / "modelward", "check", "--state", world.device],
                    "argparse": [BIN / "modelward", "check", f"--state={world.device}"],
                    "peer": [sys.executable, "-c", PEER, cache, url, root],
                    "nothing": [sys.executable, "-c", "pass"],
                    "http": [sys.executable, "-c", "import http.client"],
                },
                environment,
            )
    names = {
        "nothing": "the interpreter alone",
        "http": "`import http.client`, for comparison",
        "peer": "`tuf.ngclient`, the shortest script",
        "ours": "`modelward check`, nothing new",
        "argparse": "the same, spelled so that it needs argparse",
    }
    rows = [
        (name, f"{1000 * took[key]['seconds']:.0f} ms", f"{1000 * took[key]['cpu']:.0f} ms",
         f"{took[key]['memory'] / 1e6:.0f} MB")
        for key, name in names.items()
    ]  # fmt: skip
    ratios = [f"{took['ours'][key] / took['peer'][key]:.2f} x" for key in ("seconds", "cpu")]
    rows += [
        ("`modelward check`, of `tuf.ngclient`", *ratios, ""),
        ("limit", "0.35 x", "0.35 x", "30 MB"),
    ]
    lines = [
        page.measured("make bench ARGS=check", f"medians of {RUNS} processes each, in turn"),
        "",
        *page.table(("A whole process", "wall", "CPU", "peak memory"), rows),
    ]
    page.write("check", lines)
    return 0
