"""What it costs to open a model: by the fast path, and with every byte hashed.

    make bench ARGS=load

A model of 1 GiB, in the page cache; beside it, in turn, `hashlib` over the same open files.
"""

import hashlib
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import modelward
from tests.bench import page
from tests.install.site import MODEL, Site, chain

SIZE = 1 << 30  # bytes
PARTS = 4
RUNS = 5
OPENED = 100
SETTLING = 3.0  # seconds until a file that was just written can be told from one written again


def seconds(action: Callable[[], object]) -> float:
    """Return how long an action takes."""
    before = time.perf_counter()
    action()
    return time.perf_counter() - before


def by_hashlib(folder: Path, paths: Sequence[str]) -> None:
    """Hash files one after the other, as `sha256sum` would."""
    for path in paths:
        with (folder / path).open("rb") as file:
            hashlib.file_digest(file, "sha256")


def measure(place: Path, parts: int) -> dict[str, float]:
    """Install a model of so many files, and measure."""
    site = Site(place)
    paths = [f"{number}.safetensors" for number in range(parts)]
    content = {path: bytes([number]) * (SIZE // parts) for number, path in enumerate(paths)}
    site.install(chain("1.0.0", 1, **content))
    folder = (place / "current" / MODEL).resolve()
    del content

    def open_it(*, strict: bool = False) -> None:
        with modelward.open_model(MODEL, place, strict=strict) as model:
            if model.fallback:
                raise SystemExit("it was not opened as it was installed")

    by_hashlib(folder, paths)  # into the page cache
    time.sleep(SETTLING)
    first = seconds(open_it)
    fast = statistics.median(seconds(open_it) for _ in range(OPENED))
    strict, alone = [], []
    for _ in range(RUNS):
        alone.append(seconds(lambda: by_hashlib(folder, paths)))
        strict.append(seconds(lambda: open_it(strict=True)))
    return {
        "first": first,
        "fast": fast,
        "strict": statistics.median(strict),
        "hashlib": statistics.median(alone),
        "ratio": statistics.median(a / b for a, b in zip(strict, alone, strict=True)),
    }


def main(_arguments: Sequence[str] = ()) -> int:
    """Measure, print, and write the page."""
    rows = []
    for parts in (1, PARTS):
        with TemporaryDirectory(dir=Path.cwd()) as folder:
            took = measure(Path(folder), parts)
        rows.append(
            (
                f"1 GiB in {parts} file{'s' if parts > 1 else ''}",
                f"{1000 * took['fast']:.1f} ms",
                f"{took['first']:.2f} s",
                f"{took['strict']:.2f} s",
                f"{took['hashlib']:.2f} s",
                f"{took['ratio']:.2f} x",
            )
        )
    header = (
        "A model in the page cache",
        "opened again",
        "first time in a boot",
        "`strict`",
        "`hashlib` alone",
        "`strict` of that",
    )
    rows.append(("limit", "5 ms", "-", "-", "-", "1.10 x"))
    how = f"medians of {OPENED} and of {RUNS} in turn"
    page.write("load", [page.measured("make bench ARGS=load", how), "", *page.table(header, rows)])
    return 0
