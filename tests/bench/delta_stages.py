"""Where the time goes when a device applies a tensor delta, with numpy and without.

    make bench ARGS=delta_stages

Times are of the thread that does the work, in nanoseconds a byte of the new file, best of many: the
least disturbed by what else runs. Then a file of 512 MiB is decoded by a process of its own.
"""

import hashlib
import json
import lzma
import operator
import os
import subprocess
import sys
import time
import zlib
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TypeVar

import numpy as np

from modelward.transfer.patch import frames, lanes, vectors
from modelward.transfer.patch.arithmetic import Arithmetic
from modelward.transfer.patch.frames import zstd
from modelward.transfer.patch.operations import Coding
from modelward_repo.publish.delta.residue import ENTROPY, packed_planes, residue
from tests.bench import page
from tests.bench.deltas import DECODE, ENCODE, LAUNCHER
from tests.bench.model_pairs import Model, bf16

T = TypeVar("T")

BLOCK = 1 << 20
SIZE = 512 << 20
RUNS = 25
SECONDS = operator.itemgetter("seconds")
CODERS = (
    ("zstd, set for entropy", lambda data: zstd.compress(data, options=ENTROPY), zstd.decompress),
    ("zstd 3", lambda data: zstd.compress(data, 3), zstd.decompress),
    ("zstd 19", lambda data: zstd.compress(data, 19), zstd.decompress),
    ("zlib 6", lambda data: zlib.compress(data, 6), zlib.decompress),
    ("lzma 1", lambda data: lzma.compress(data, preset=1), lzma.decompress),
)
CODINGS = {Coding.SUBTRACT: "differences", Coding.FLOAT: "differences in the order of floats"}


def best(action: Callable[[], T]) -> tuple[float, T]:
    """Return nanoseconds a byte of one block, and what the action returned."""
    times = []
    result = action()
    for _ in range(RUNS):
        before = time.thread_time_ns()
        result = action()
        times.append(time.thread_time_ns() - before)
    return min(times) / BLOCK, result


def decode(doing: Arithmetic, coding: Coding, base: bytes, planes: list[bytes]) -> bytes:
    """Do what a device does with a block."""
    elements = doing.interleave(planes)
    made = memoryview(bytearray(base))
    for start in range(0, BLOCK, lanes.PIECE):
        end = start + lanes.PIECE
        doing.combine(coding, 2, made[start:end], elements[start:end])
    return made.obj


def main(_arguments: list[str]) -> int:
    """Measure, print, and write the page."""
    numbers = np.random.default_rng(11)
    base = numbers.standard_normal((SIZE // 4 // 4096, 2 * 4096 // 2), np.float32) * np.float32(
        0.03
    )
    step = numbers.standard_normal(base.shape, np.float32) * np.float32(2e-4)
    both = [Model({"w": bf16("", part), "v": bf16("", part[::-1])}) for part in (base, base + step)]
    rows = []
    old, new = (model.tensors["w"][1].tobytes()[:BLOCK] for model in both)
    for coding, name in CODINGS.items():
        packed = packed_planes(residue(coding, 2, old, new))
        planes = [frames.decompress(plane[4:], BLOCK // 2) for plane in packed]
        python, made = best(lambda c=coding, p=planes: decode(lanes, c, old, p))
        with_numpy, same = best(lambda c=coding, p=planes: decode(vectors, c, old, p))
        if made != new or same != new:
            raise SystemExit("a decoder is wrong")
        rows.append((f"arithmetic, {name}", f"{python:.2f}", f"{with_numpy:.2f}"))
    coders = compared(packed_input(old, new))
    planes_taken, _ = best(lambda: [frames.decompress(plane[4:], BLOCK // 2) for plane in packed])
    sha256, _ = best(lambda: hashlib.sha256(new).digest())
    rows.append(
        ("zstd, two planes (the same thread)", f"{planes_taken:.2f}", f"{planes_taken:.2f}")
    )
    rows.append(("SHA-256, once (another thread)", f"{sha256:.2f}", f"{sha256:.2f}"))
    memory = "/dev/shm" if Path("/dev/shm").is_dir() else None
    with TemporaryDirectory(dir=memory) as folder:
        lines = decoding(both, Path(folder))
    page.write(
        "delta_stages",
        [
            page.measured("make bench ARGS=delta_stages", f"best of {RUNS}"),
            "",
            *page.table(("ns a byte of the new file", "Python's integers", "numpy"), rows),
            "",
            *coders,
            "",
            *lines,
        ],
    )
    return 0


def compared(plane: bytes) -> list[str]:
    """Compare entropy coders on the plane of the elements' low bytes."""
    rows = []
    for name, compress, decompress in CODERS:
        encoding, packed = best(lambda c=compress: c(plane))
        decoding, made = best(lambda d=decompress, p=packed: d(p))
        if made != plane:
            raise SystemExit(f"{name} is wrong")
        share = f"{100 * len(packed) / len(plane):.1f} %"
        rows.append((name, share, *(f"{2 * each:.1f}" for each in (encoding, decoding))))
    return page.table(("a plane of low bytes", "size", "ns a byte to encode", "to decode"), rows)


def packed_input(old: bytes, new: bytes) -> bytes:
    """Return the plane that has nearly all of the difference."""
    return residue(Coding.SUBTRACT, 2, old, new).view(np.uint8)[0::2].tobytes()


def decoding(both: list[Model], folder: Path) -> list[str]:
    """Encode and decode the whole file; return what to say of it."""
    old, new = (
        model.write(folder / name) for model, name in zip(both, ("old", "new"), strict=True)
    )
    made = folder / "patch"
    encoding = launch([*LAUNCHER, *ENCODE, str(old), str(new), str(made)])
    command = [*LAUNCHER, *DECODE, str(old), str(made), os.devnull]
    command = [*LAUNCHER, *DECODE, str(old), str(made), os.devnull]

    def fastest(*modules: str) -> dict:
        return min((launch([*command, *modules]) for _ in range(3)), key=SECONDS)

    measured = (
        ("encode", encoding),
        ("decode with numpy", fastest()),
        ("decode without", fastest("-numpy")),
        ("decode with numpy, the whole client loaded", fastest("modelward.update")),
        ("decode without, the whole client loaded", fastest("-numpy", "modelward.update")),
    )
    size = new.stat().st_size
    rows = (
        (
            name,
            f"{one['seconds']:.2f}",
            f"{size / one['seconds'] / 1e6:.0f}",
            f"{one['cpu']:.1f}",
            f"{one['memory'] / 1e6:.0f} MB",
        )
        for name, one in measured
    )
    header = ("", "seconds", "MB/s", "processor seconds", "peak memory")
    opening = (
        f"A synthetic bf16 file of {size >> 20} MiB, patch {100 * made.stat().st_size / size:.1f} "
        "%; whole processes, start-up included, every byte of the result hashed twice; decode: "
        f"best of 3. The machine's load was {os.getloadavg()[0]:.0f}: the more, the less its "
        "clock says."
    )
    return [opening, "", *page.table(header, rows)]


def launch(command: list[str]) -> dict:
    """Run a command; return how long it took and how much memory."""
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    taken = json.loads(done.stdout)
    if taken["status"]:
        raise SystemExit(done.stderr)
    return taken


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
