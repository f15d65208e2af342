"""What it costs to publish a model: for the first time, its next versions, and again.

    make bench ARGS=publish

The real command line, `modelward-repo release`, on a file of 512 MiB of bf16 weights in the page
cache and versions of it that differ as a fine-tune does; beside `hashlib` over the file, once. What
is read of the model when it is published again is counted with strace (apt: strace).
"""

import json
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from tests.bench import page
from tests.bench.model_pairs import Model, bf16
from tests.simulator.world import clean_environment

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent
LAUNCHER = (sys.executable, "-S", str(Path(__file__).with_name("launch.py")))
HASH = "import hashlib, sys; hashlib.file_digest(open(sys.argv[1], 'rb'), 'sha256')"
NAME = "encoder"
FILE = "model.safetensors"
TENSORS, SIDE = 64, 2048  # so many, square
SETTLING = 3.0  # seconds until a file that was just written can be told from one written again
READ = re.compile(r"^\w+\(\d+<([^>]*)>.* = (\d+)$", re.MULTILINE)
READS = "trace=read,pread64,readv,preadv,preadv2,copy_file_range,splice"

Row = tuple[str, ...]


def main(_arguments: Sequence[str] = ()) -> None:
    """Measure, print, and write the page."""
    with TemporaryDirectory(dir=ROOT, prefix=".bench-") as folder:
        place = Path(folder)
        versions = make_versions(place, 3)
        rows = [limit(versions[0] / FILE)]
        shop = Shop.open(place / "shop")
        for number, (version, what) in enumerate(
            zip(versions, ("the first version", "the next, tuned", "one more"), strict=True), 1
        ):
            rows.append(shop.publish(f"{number}.0.0", version, what))
        last = versions[-1]
        rows += [
            shop.publish("3.0.0", last, "the same again", again="3.0.0"),
            shop.publish("4.0.0", last, "the same file as another version", again="4.0.1"),
        ]
        rows += [
            killed(place / f"killed-{count}", versions[0], count, when)
            for count, when in (
                (2, "killed after 2 of 3 pieces of work: the rest"),
                (3, "killed after 3 of 3, while storing: the rest"),
            )
        ]
    header = ("Publishing", "wall", "CPU", "MB/s", "peak memory", "read of it", "a device")
    size = TENSORS * SIDE * SIDE * 2 >> 20
    how = f"a safetensors file of {size} MiB, bf16; whole processes"
    lines = [page.measured("make bench ARGS=publish", how), "", *page.table(header, rows)]
    page.write("publish", lines)


def make_versions(place: Path, count: int) -> list[Path]:
    """Write versions of a model, each a small step from the one before."""
    numbers = np.random.default_rng(11)
    weights = [
        numbers.standard_normal((SIDE, SIDE), np.float32) * np.float32(0.03) for _ in range(TENSORS)
    ]
    folders = []
    for version in range(count):
        for number in range(TENSORS if version else 0):
            step = numbers.standard_normal((SIDE, SIDE), np.float32) * np.float32(2e-4)
            weights[number] = weights[number] + step
        folder = place / f"version-{version}"
        folder.mkdir()
        tensors = {f"layer.{number}": bf16("", each) for number, each in enumerate(weights)}
        Model(tensors).write(folder / FILE)
        folders.append(folder)
    time.sleep(SETTLING)
    return folders


def limit(file: Path) -> Row:
    """Measure the least that anybody could do."""
    took = min(
        (launch([sys.executable, "-c", HASH, str(file)]) for _ in range(3)),
        key=lambda one: one["seconds"],
    )
    return cells("`hashlib` over the file, for comparison", took, file)


@dataclass(frozen=True)
class Shop:
    """A repository of one model, with everybody's keys."""

    place: Path

    @classmethod
    def open(cls, place: Path) -> "Shop":
        """Make a repository."""
        command = ["init", str(place), "--policy", str(ROOT / "metadata/minimal.toml")]
        repo(*command, "--model", NAME, "--plaintext-keys")
        return cls(place)

    def command(self, version: str, folder: Path) -> list[str]:
        """Return what releases a folder."""
        command = [str(BIN / "modelward-repo"), "release", NAME, version, str(folder)]
        return [*command, "--repository", str(self.place), "--json"]

    def publish(self, version: str, folder: Path, what: str, again: str = "") -> Row:
        """Publish a folder; with `again`, once more as that, to count what is read of the model."""
        took = launch(self.command(version, folder))
        routes = took["said"]["release"]["routes"]
        fetched = [f"{100 * route['fetched'] / route['length']:.1f} %" for route in routes]
        read = traced(self.command(again, folder)) if again else ""
        return cells(what, took, folder / FILE, read, ", ".join(fetched))


def killed(place: Path, folder: Path, count: int, what: str) -> Row:
    """Publish for the first time, kill that when so many pieces of work are done, and go on."""
    shop = Shop.open(place)
    made = place.with_name(f"{place.name}-cache") / "made"

    def done() -> dict[str, int]:
        return {path.name: path.stat().st_mtime_ns for path in made.glob("[!.]*.json")}

    command = shop.command("1.0.0", folder)
    child = subprocess.Popen(command, env=environment(), stdout=subprocess.DEVNULL)
    while len(done()) < count and child.poll() is None:
        time.sleep(0.001)
    child.send_signal(signal.SIGKILL)
    if child.wait() != -signal.SIGKILL:
        raise SystemExit("it was over before it was killed")
    before = done()
    took = launch(command)
    after = done()
    kept = sum(after.get(name) == time_made for name, time_made in before.items())
    if kept < count:
        raise SystemExit(f"{count - kept} pieces of work were done again")
    return cells(what, took, folder / FILE)


def traced(command: list[str]) -> str:
    """Say how many bytes of models and blobs, chunk indexes too, a command reads."""
    if not shutil.which("strace"):
        return "-"
    with TemporaryDirectory() as folder:
        # A file for each thread: in one for all, calls at the same time are torn apart.
        strace = ["strace", "-ff", "-qq", "-y", "-e", READS, "-o", f"{folder}/log"]
        subprocess.run([*strace, *command], env=environment(), check=True, capture_output=True)
        logs = [path.read_text("utf-8", "replace") for path in Path(folder).iterdir()]
    calls = READ.findall("\n".join(logs))
    read = sum(int(count) for path, count in calls if path.endswith(FILE) or "/blobs/" in path)
    return f"{read:,} bytes"


def launch(command: Sequence[str]) -> dict[str, Any]:
    """Run a command; return what it took and said."""
    done = subprocess.run(
        [*LAUNCHER, *command], env=environment(), check=True, capture_output=True, text=True
    )
    took: dict[str, Any] = json.loads(done.stdout)
    if took["status"]:
        raise SystemExit(done.stderr)
    took["said"] = json.loads(done.stderr) if done.stderr else {}
    return took


def cells(what: str, took: dict[str, Any], file: Path, read: str = "", fetched: str = "") -> Row:
    """Return a row of the table."""
    return (
        what,
        f"{took['seconds']:.2f} s",
        f"{took['cpu']:.2f} s",
        "" if read else f"{file.stat().st_size / took['seconds'] / 1e6:.0f}",
        f"{took['memory'] / 1e6:.0f} MB",
        read,
        fetched,
    )


def repo(*words: str) -> None:
    """Run a command of the publisher's."""
    subprocess.run(
        [BIN / "modelward-repo", *words], env=environment(), check=True, capture_output=True
    )


def environment() -> dict[str, str]:
    """Return an environment in which commands behave as anywhere."""
    return dict(clean_environment())
