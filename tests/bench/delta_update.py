"""What a whole `modelward update` takes that brings a large file as a patch; with numpy, without.

    make bench ARGS=delta_update
    make bench ARGS="delta_update --mib 512"

From a server on the same machine, start-up, all gates and the trial included.
"""

import argparse
import json
import shutil
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from tests.bench import page
from tests.bench.deltas import LAUNCHER
from tests.bench.model_pairs import Model, bf16
from tests.simulator.server import Server
from tests.simulator.world import TOKENIZER, World, bundle_of, clean_environment

RUNS = 3
PROGRAM = """
import sys
if sys.argv.pop(1) == "without": sys.modules["numpy"] = None  # importing it fails
from modelward.cli import main
sys.exit(main(sys.argv[1:]))
"""


def main(arguments: list[str]) -> int:
    """Measure, print, and write the page."""
    parser = argparse.ArgumentParser(prog="delta_update")
    parser.add_argument("--mib", type=int, default=256, help="size of the file")
    mib = parser.parse_args(arguments).mib
    with TemporaryDirectory(prefix="modelward-bench-", dir="/var/tmp") as folder:
        world = World.build(Path(folder))
        before = world.place / "device-before"
        numbers = np.random.default_rng(11)
        weights = numbers.standard_normal((mib << 9, 1024), np.float32) * np.float32(0.03)
        publish(world, "1.1.0", weights)
        with world.serve() as server:
            assert world.client("update", server).code == 0
            shutil.copytree(world.device, before, symlinks=True)
            step = numbers.standard_normal(weights.shape, np.float32) * np.float32(2e-4)
            publish(world, "1.2.0", weights + step)
            rows = []
            for name in ("with", "without"):
                runs = [update(world, server, before, name) for _ in range(RUNS)]
                best = min(run["seconds"] for run in runs)
                peak = max(run["memory"] for run in runs)
                cpu = min(run["cpu"] for run in runs)
                cells = (f"{best:.1f}", f"{cpu:.1f}", f"{peak / 1e6:.0f} MB")
                rows.append((f"{name} numpy", *cells))
    lines = [
        page.measured(f'make bench ARGS="delta_update --mib {mib}"', f"of {RUNS} runs each"),
        "",
        f"An update that brings {mib} MiB of bf16 as a patch:",
        "",
        *page.table(("", "seconds, best", "processor seconds, best", "peak memory, worst"), rows),
    ]
    page.write("delta_update", lines)
    return 0


def publish(world: World, version: str, weights: np.ndarray) -> None:
    """Publish a version with these weights, and what makes it cheap to fetch."""
    file = Model({"weight": bf16("", weights)}).write(world.place / "weights")
    bundle = bundle_of(version, TOKENIZER) | {"weights.safetensors": file.read_bytes()}
    world.publish(version, TOKENIZER, bundle=bundle, cheaply=True)
    file.unlink()


def update(world: World, server: Server, before: Path, numpy: str) -> dict:
    """Update a device that is as it was before; return what that took."""
    shutil.rmtree(world.device)
    shutil.copytree(before, world.device, symlinks=True)
    options = ["--json", "--state", str(world.device), "--repository", server.url]
    command = [*LAUNCHER, sys.executable, "-P", "-c", PROGRAM, numpy, "update", *options]
    done = subprocess.run(
        command, check=True, capture_output=True, text=True, env=clean_environment()
    )
    taken = json.loads(done.stdout)
    if taken["status"] or json.loads(done.stderr)["how"].get("patch") != 1:
        raise SystemExit(done.stderr)
    return taken


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
