"""What it costs to switch to a release whose bytes are here, and to keep the one before.

    make bench ARGS=switch

From staging to commit, journal, switch and floors, on the file system of the temporary directory;
beside the least that a durable replacement of one small file costs there, in the same run.
"""

import os
import re
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from modelward.install import fsops
from tests.bench import page
from tests.install.site import Site, chain, documents

RUNS = 20
FILES, SHARED, LENGTH = 10, 9, 1 << 20  # of each release; the others are its own


def release(number: int):  # type: ignore[no-untyped-def]
    """Return a release of ten files of a mebibyte, nine of which are the same in all."""
    files = {
        f"part-{part}.onnx": (b"%d" % (0 if part < SHARED else number)).ljust(LENGTH, b"%d" % part)
        for part in range(FILES)
    }
    return chain(f"{number}.0.0", number, **files)


def brought(site: Site, number: int):  # type: ignore[no-untyped-def]
    """Return a release that only remains to be installed: what publishers do is done."""
    item = release(number)
    site.bring(item)
    documents(item)  # are made once: the chain keeps what it signed
    return item


def on_disk(place: Path) -> int:
    """Return the bytes that a tree takes on disk, each file once."""
    files = {path.lstat().st_ino: path.lstat().st_blocks for path in place.rglob("*")}
    return 512 * sum(files.values())


def timed(act: Callable[[], object]) -> float:
    """Return milliseconds."""
    began = time.perf_counter()
    act()
    return 1000 * (time.perf_counter() - began)


def system_calls(act: Callable[[], object], log: Path) -> tuple[int, int]:
    """Return how many system calls an action makes, and how many of them are fsync."""
    child = os.fork()
    if not child:
        os.kill(os.getpid(), signal.SIGSTOP)
        act()
        os._exit(0)
    os.waitpid(child, os.WUNTRACED)
    with subprocess.Popen(
        ["strace", "-q", "-o", log, "-p", str(child)], stderr=subprocess.DEVNULL
    ) as strace:
        while "TracerPid:\t0" in Path(f"/proc/{child}/status").read_text() and not strace.poll():
            time.sleep(0.001)
        os.kill(child, signal.SIGCONT)
        os.waitpid(child, 0)
    calls = re.findall(r"^(\w+)\(", log.read_text("utf-8", "replace"), re.MULTILINE)
    return len(calls), calls.count("fsync")


def main(arguments: Sequence[str]) -> None:
    """Measure and write the page."""
    del arguments
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        site = Site(place / "state")
        site.install(release(1))
        alone = on_disk(site.state)
        site.install(release(2))
        both = on_disk(site.state)

        milliseconds, least = [], []
        for number in range(3, 3 + RUNS):
            item = brought(site, number)
            milliseconds.append(timed(lambda item=item: site.install(item)))
            least.append(timed(lambda: fsops.write_file(place / "file", b"x" * 500)))
        traced = None
        if shutil.which("strace"):
            item = brought(site, 100)
            traced = system_calls(lambda: site.install(item), place / "log")
    switch, one = statistics.median(milliseconds), statistics.median(least)
    rows = [
        ("recovery, stage, journal, switch, floors, collect", f"{switch:.1f} ms"),
        ("as many times a durable replacement of one small file", f"{switch / one:.1f}"),
        ("system calls, and fsync among them", "{} and {}".format(*traced) if traced else "-"),
        ("disk: two releases that share 90 % of their bytes, to one", f"{both / alone:.3f}"),
    ]
    how = f"median of {RUNS}; releases of {FILES} files of 1 MiB; blobs are in the store"
    page.write(
        "switch",
        [
            "",
            page.measured("make bench ARGS=switch", how),
            "",
            *page.table(("Switch to another release", ""), rows),
            "",
        ],
    )
    if both / alone >= 1.15:
        sys.exit("keeping two releases takes more than 1.15 of one")


if __name__ == "__main__":
    main(sys.argv[1:])
