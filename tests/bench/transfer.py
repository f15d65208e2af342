"""What bringing one large file costs: ours, and how others do it, from one nginx on loopback.

    make bench ARGS=transfer
    make bench ARGS="transfer --mib 512 --rounds 5"

The file is in the page cache; every program is a process of its own. Ours is the whole of gate 10:
received, hashed, written past the page cache where possible, synced and renamed. The others do what
they do, which is less: `curl -o` neither verifies nor syncs. So what it takes until their file is
on the disk as well is measured beside it. Each round has an order of its own, by chance, and each
program the same footing (`tests.bench.footing`): with memory in use and, to a disk, once more after
the machine was idle. Needs nginx, curl, openssl and aria2c (apt:
nginx-light curl openssl aria2).
"""

import argparse
import hashlib
import itertools
import json
import os
import random
import shutil
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import TypeVar

from tests.bench import footing, page
from tests.bench.transfer_peers import blob_url, make_tuf_metadata
from tests.transfer.serving import BlobServer, hang_up_after

ROOT = Path(__file__).parents[2]
LAUNCHER = (sys.executable, "-S", str(Path(__file__).with_name("launch.py")))
PEERS = str(ROOT / ".venv-bench/bin/python")
MEMORY = Path("/dev/shm")
PLOT = ROOT / "docs/plots/transfer.svg"
GIB = 1 << 30
IDLE = "disk, memory idle"
PAIRS = 3  # times a round that ours is measured beside a poor source: such differences are small
NGINX = """
worker_processes 1; daemon off; pid {place}/pid; error_log {place}/errors;
events {{ worker_connections 64; }}
http {{
  access_log off; sendfile on; keepalive_requests 1000000;
  client_body_temp_path {place}/1; proxy_temp_path {place}/2; fastcgi_temp_path {place}/3;
  uwsgi_temp_path {place}/4; scgi_temp_path {place}/5;
  server {{ listen 127.0.0.1:{port}{tls}; root {place}/www; }}
}}
"""
TLS = (
    " ssl; ssl_certificate {certificate}; ssl_certificate_key {certificate}; ssl_protocols TLSv1.3"
)
Taken = dict[str, float]
T = TypeVar("T")


def main(arguments: list[str]) -> None:
    """Measure, and write the page and its plot."""
    parser = argparse.ArgumentParser(prog="transfer", description=__doc__)
    parser.add_argument("--mib", type=int, default=2048, help="size of the file")
    parser.add_argument("--rounds", type=int, default=3, help="how often, in turn")
    options = parser.parse_args(arguments)
    with TemporaryDirectory(dir=ROOT, prefix=".bench-") as folder, _memory() as memory:
        place = Path(folder)
        file, sha256 = make_file(place / "www", options.mib)
        make_tuf_metadata(place / "www", file)
        with nginx(place) as url:
            disks = {"disk": place / "to", IDLE: place / "to", "RAM disk": memory / "to"}
            names = list(_commands(url, sha256, options.mib, place))
            taken: dict[str, dict[str, list[Taken]]] = {
                disk: {name: [] for name in names} for disk in disks
            }
            (memory / "www").symlink_to(place / "www")
            for _ in range(options.rounds):
                for disk, name in shuffled(itertools.product(disks, names)):
                    to = disks[disk]
                    command = _commands(url, sha256, options.mib, to)[name]
                    footed = footing.leave if disk == IDLE else footing.take
                    taken[disk][name].append(run(command, to, file, footed))
                    print(f"  {disk}: {name}: {taken[disk][name][-1]}", flush=True)
            more = _extras(url, sha256, file, place / "to", options.rounds)
            more |= _limits(blob_url(url, sha256), file, place / "to", options.rounds)
    _report(taken, more, options)


def _commands(url: str, sha256: str, mib: int, to: Path) -> dict[str, list[str]]:
    """Return the programs to compare, by name."""
    address = blob_url(url, sha256)
    here = [sys.executable, "-m", "tests.bench.transfer_peers"]
    there = [PEERS, "-m", "tests.bench.transfer_peers"]
    rest = [url, sha256, str(mib << 20), str(to)]
    curl = f"curl -sS -o {to}/model {address}"
    aria = ["aria2c", "-q", f"--dir={to}", "--out=model", f"--checksum=sha-256={sha256}"]
    return {
        "modelward": [*here, "ours", *rest],
        "`curl -o`": ["sh", "-c", curl],
        "curl, then `openssl dgst`": ["sh", "-c", f"{curl} && openssl dgst -sha256 {to}/model"],
        "requests, streaming SHA-256": [*there, "requests", *rest],
        "python-tuf `download_target`": [*here, "tuf", *rest],
        "huggingface_hub `http_get`": [*there, "hub", *rest],
        "aria2c, 1 connection": [*aria, "-x1", "-s1", address],
        "aria2c, 4 connections": [*aria, "-x4", "-s4", "-k1M", address],
    }


def run(
    command: list[str], to: Path, file: Path, footed: Callable[[Path], None] = footing.take
) -> Taken:
    """Run a program that brings a file to an empty folder, on some footing; return what it took."""
    shutil.rmtree(to, ignore_errors=True)
    to.mkdir()
    footed(file.parent)
    _warm(file)
    environment = os.environ | {"TMPDIR": str(to), "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [*LAUNCHER, *command], env=environment, cwd=ROOT, text=True, check=True,
        capture_output=True,
    )  # fmt: skip
    taken = json.loads(done.stdout)
    if taken.pop("status"):
        raise SystemExit(f"{command[0]} failed: {done.stderr}")
    taken["durable"] = taken["seconds"] + _sync(to)
    shutil.rmtree(to)
    return taken


def _sync(folder: Path) -> float:
    """Return the seconds it takes until all in a folder is on the disk."""
    began = time.perf_counter()
    for path in (folder, *folder.rglob("*")):
        descriptor = os.open(path, os.O_RDONLY)
        os.fsync(descriptor)
        os.close(descriptor)
    return time.perf_counter() - began


def _extras(url: str, sha256: str, file: Path, to: Path, rounds: int) -> dict[str, float]:
    """Measure what only concerns ours: a poor second source, and a kill."""
    data = file.read_bytes()
    poor = {
        "slow": BlobServer(data, rate=2e6),
        "lossy": BlobServer(data, always=hang_up_after(300_000)),
    }
    del data
    addresses = {"alone": url} | {name: f"{url},{server.url}" for name, server in poor.items()}
    times: dict[str, list[float]] = {name: [] for name in addresses}
    try:
        for _ in range(PAIRS * rounds):
            for name in shuffled(addresses):
                command = _ours(addresses[name], sha256, file.stat().st_size, to)
                times[name].append(run(command, to, file)["seconds"])
    finally:
        for server in poor.values():
            server.close()
    return {
        **{name: median(seconds) for name, seconds in times.items()},
        "again": max(_killed(url, sha256, file, to) for _ in range(5 * rounds)),
    }


def _limits(address: str, file: Path, to: Path, rounds: int) -> dict[str, float]:
    """Measure what nobody beats, and what memory costs that was not in use."""
    kinds = ("digest", "both", "disk", "cache", "idle")
    taken: dict[str, list[float]] = {name: [] for name in kinds}
    for _ in range(rounds):
        footing.take(file.parent)
        _warm(file)
        taken["digest"].append(_digest(file))
        taken["both"].append(_receive_and_hash(address, file))
        taken["disk"].append(_copy(file, to, "oflag=direct", "conv=fsync"))
        footing.take(file.parent)
        _warm(file)
        taken["cache"].append(_copy(file, to))
        footing.leave(file.parent)
        _warm(file)
        taken["idle"].append(_copy(file, to))
    return {name: median(seconds) for name, seconds in taken.items()}


def shuffled(things: Iterable[T]) -> list[T]:
    """Return things in an order by chance."""
    ordered = list(things)
    random.shuffle(ordered)
    return ordered


def _digest(file: Path) -> float:
    """Return the seconds it takes to hash a file that is in the page cache."""
    began = time.perf_counter()
    with file.open("rb", buffering=0) as opened:
        hashlib.file_digest(opened, "sha256")
    return time.perf_counter() - began


def _receive_and_hash(address: str, file: Path) -> float:
    """Return the seconds to receive a file and to hash it, each on a core, and to write nothing."""
    began = time.perf_counter()
    receiver = subprocess.Popen(["curl", "-sS", "-o", os.devnull, address])
    subprocess.run(["openssl", "dgst", "-sha256", file], check=True, capture_output=True)
    if receiver.wait():
        raise SystemExit("curl failed")
    return time.perf_counter() - began


def _copy(file: Path, to: Path, *options: str) -> float:
    """Return the seconds it takes to copy a file that is in the page cache."""
    to.mkdir()
    began = time.perf_counter()
    copy = ("dd", f"if={file}", f"of={to / 'copy'}", "bs=1M", *options)
    subprocess.run(copy, check=True, capture_output=True)
    seconds = time.perf_counter() - began
    shutil.rmtree(to)
    return seconds


def _ours(url: str, sha256: str, length: int, to: Path, name: str = "ours") -> list[str]:
    return [
        *(sys.executable, "-m", "tests.bench.transfer_peers", name),
        *(url, sha256, str(length), str(to)),
    ]


def _killed(url: str, sha256: str, file: Path, to: Path) -> float:
    """Return how many bytes were received twice because of a kill somewhere in the middle."""
    length = file.stat().st_size
    shutil.rmtree(to, ignore_errors=True)
    to.mkdir()
    counter = to.parent / "count"
    counter.write_bytes(bytes(8))
    command = _ours(url, sha256, length, to, "counted")
    target = length * random.uniform(0.1, 0.9)
    child = subprocess.Popen(command, cwd=ROOT)
    while struct.unpack("Q", counter.read_bytes())[0] < target:
        time.sleep(0.002)
    child.send_signal(signal.SIGKILL)
    child.wait()
    subprocess.run(command, cwd=ROOT, check=True)
    shutil.rmtree(to)
    return struct.unpack("Q", counter.read_bytes())[0] - length


def _report(
    taken: dict[str, dict[str, list[Taken]]], more: dict[str, float], options: argparse.Namespace
) -> None:
    command = f'make bench ARGS="transfer --mib {options.mib} --rounds {options.rounds}"'
    how = f"{options.mib} MiB; medians (best to worst) of {options.rounds} rounds, shuffled"
    lines = [page.measured(command, how), ""]
    for disk, programs in taken.items():
        lines += [*compared(f"To a {disk}", programs, options.mib), ""]
    lines += page.table(
        (f"Of ours, medians of {PAIRS * options.rounds}", "measured"),
        (
            ("from nginx alone", f"{more['alone']:.2f} s"),
            ("with a second source of 2 MB/s beside it", f"{more['slow']:.2f} s"),
            ("with a second source that breaks off after 300 kB, always", f"{more['lossy']:.2f} s"),
            (
                f"received twice, after `kill -9` at {5 * options.rounds} random points: at most",
                f"{more['again'] / 2**20:.2f} MiB",
            ),
        ),
    )
    lines += [
        "",
        *page.table(
            (f"For comparison, medians of {options.rounds}", "measured"),
            (
                ("`hashlib` over the file, nothing else", f"{more['digest']:.2f} s"),
                (
                    "`curl -o /dev/null` and `openssl dgst` of the file at once, nothing written",
                    f"{more['both']:.2f} s",
                ),
                ("`dd oflag=direct` of the file to the disk", f"{more['disk']:.2f} s"),
                ("`dd` of the file into the page cache", f"{more['cache']:.2f} s"),
                (
                    f"the same, {footing.IDLE:.0f} s after its memory was freed",
                    f"{more['idle']:.2f} s",
                ),
            ),
        ),
    ]
    page.write("transfer", lines)
    PLOT.write_text(_plot({disk: medians(programs) for disk, programs in taken.items()}), "utf-8")


def medians(programs: dict[str, list[Taken]]) -> dict[str, Taken]:
    """Return the median of each figure of each program."""
    return {
        name: {key: median(one[key] for one in runs) for key in runs[0]}
        for name, runs in programs.items()
    }


def compared(where: str, programs: dict[str, list[Taken]], mib: int) -> list[str]:
    """Return a table of programs beside ours, given what each took for a file of so many MiB."""
    middle, length = medians(programs), mib << 20
    seconds = {name: [one["seconds"] for one in runs] for name, runs in programs.items()}
    ours = middle["modelward"]
    return page.table(
        (where, "wall", "ours is", "and synced", "ours is", "CPU s/GiB", "peak memory", "written"),
        (
            (
                name,
                f"{one['seconds']:.2f} s ({min(seconds[name]):.2f} to {max(seconds[name]):.2f})",
                f"{ours['seconds'] / one['seconds']:.2f} x",
                f"{one['durable']:.2f} s",
                f"{ours['durable'] / one['durable']:.2f} x",
                f"{one['cpu'] * GIB / length:.2f}",
                f"{one['memory'] / 1e6:.0f} MB",
                f"{one['written'] / length:.2f} x",
            )
            for name, one in middle.items()
        ),
    )


def _plot(taken: dict[str, dict[str, Taken]]) -> str:
    """Return bars of wall seconds, one group a disk."""
    wide, row = 700, 18
    longest = max(one["seconds"] for programs in taken.values() for one in programs.values())
    parts = ['<rect width="100%" height="100%" fill="white"/>']
    top = 0
    for disk, programs in taken.items():
        top += row + 6
        parts.append(f'<text x="10" y="{top}" font-weight="bold">To a {disk}, seconds</text>')
        for name, one in programs.items():
            top += row
            length = 400 * one["seconds"] / longest
            colour = "#1f6f54" if name == "modelward" else "#b9c4c9"
            parts.append(
                f'<text x="220" y="{top}" text-anchor="end">{name.replace("`", "")}</text>'
                f'<rect x="228" y="{top - 12}" width="{length:.0f}" height="14" fill="{colour}"/>'
                f'<text x="{234 + length:.0f}" y="{top}">{one["seconds"]:.1f}</text>'
            )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {wide} {top + 10}" '
        f'font-family="sans-serif" font-size="13">\n' + "\n".join(parts) + "\n</svg>\n"
    )


def make_file(www: Path, mib: int) -> tuple[Path, str]:
    """Make a file of noise where a repository has it; return where, and its digest."""
    www.mkdir()
    digest = hashlib.sha256()
    with (www / "new").open("wb") as file:
        for _ in range(mib):
            block = os.urandom(1 << 20)
            digest.update(block)
            file.write(block)
    sha256 = digest.hexdigest()
    path = www / "blobs/sha256" / sha256[:2] / sha256
    path.parent.mkdir(parents=True)
    (www / "new").rename(path)
    return path, sha256


def _warm(file: Path) -> None:
    with file.open("rb", buffering=0) as opened:
        buffer = bytearray(1 << 20)
        while opened.readinto(buffer):
            pass


@contextmanager
def _memory() -> Iterator[Path]:
    if not MEMORY.is_dir():
        raise SystemExit(f"{MEMORY} is not there: no RAM disk to measure on")
    with TemporaryDirectory(dir=MEMORY) as folder:
        yield Path(folder)


@contextmanager
def nginx(place: Path, certificate: Path | None = None) -> Iterator[str]:
    """Serve `www` of a place, over TLS with a certificate and its key; yield the address."""
    program = shutil.which("nginx", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
    missing = [name for name in ("curl", "openssl", "aria2c") if not shutil.which(name)]
    if program is None or missing:
        raise SystemExit("apt-get install nginx-light curl openssl aria2")
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    tls = TLS.format(certificate=certificate) if certificate else ""
    (place / "nginx.conf").write_text(NGINX.format(place=place, port=port, tls=tls))
    place.chmod(0o755)
    command = [program, "-c", str(place / "nginx.conf"), "-e", str(place / "errors")]
    server = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    try:
        for _ in range(100):
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                break
            except OSError:
                threading.Event().wait(0.05)
        yield f"http{'s' if tls else ''}://127.0.0.1:{port}"
    finally:
        server.terminate()
        server.wait()
