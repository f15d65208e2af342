"""`make crash`: kill a device at every system call that changes its disk, and cut the power there.

For each point: a fresh ext4 or XFS on a loop device; a device in the middle of something, ended by
SIGKILL as it enters its N-th call of one kind (strace); the file system shut down, with its journal
lost or flushed; mounted again; then recovery, itself killed at a call and cut off again; then
everything that must hold (`tests.crash.scenarios.check`). Besides, each of these calls fails once
with ENOSPC and once with EIO. Needs root; prints a table.
"""

import argparse
import contextlib
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from modelward.install import syscalls
from tests.crash import volume
from tests.crash.disk import CALLS
from tests.crash.scenarios import SCENARIOS, Scenario, check, floor_of
from tests.crash.volume import JOURNAL_FLUSHED, JOURNAL_LOST
from tests.install.site import Site

TRACED = (
    "openat", "write", "pwrite64", "ftruncate", "fallocate", "fsync", "fdatasync", "mkdir",
    "rename", "renameat2", "link", "linkat", "symlink", "unlink", "rmdir", "chmod",
)  # fmt: skip
LINE = re.compile(r"^(?:\d+ +)?(\w+)\((.*)")
CUTS = {"journal lost": JOURNAL_LOST, "journal flushed": JOURNAL_FLUSHED}
FAULTS = ("ENOSPC", "EIO")


@dataclass(frozen=True)
class Point:
    """A system call: the `number`-th of its name, counted from 1."""

    call: str
    number: int


class Bench:
    """One file system and one scenario, ready to be tried again and again.

    Args:
        name: The file system.
        scenario: What the device is in the middle of.
        place: A directory for images and mount points.
    """

    def __init__(self, name: str, scenario: Scenario, place: Path) -> None:
        self.scenario = scenario
        self._template = place / "template"
        self._image = place / "image"
        self._mount = place / "mount"
        self._log = place / "trace"
        volume.make(name, self._template)
        with volume.mounted(self._template, self._mount):
            scenario.prepare(Site(self._state))
            self._floor = floor_of(self._state)

    @property
    def _state(self) -> Path:
        return self._mount / "state"

    def points(self) -> list[Point]:
        """Return every system call of the action that changes the disk, in order."""
        volume.copy(self._template, self._image)
        with volume.mounted(self._image, self._mount):
            status = self._act("-e", f"trace={','.join(TRACED)}")
        assert status == 0, f"the action ended with {status}"
        return list(_points(self._log.read_text()))

    def cut(self, point: Point, flag: int, again: int) -> None:
        """Kill the action at a point, cut the power, then the same during recovery.

        Args:
            point: Where to kill.
            flag: Whether the file system's journal is flushed; see `volume.cut_power`.
            again: At which of recovery's calls to kill that, counted from 0.
        """
        volume.copy(self._template, self._image)
        with volume.mounted(self._image, self._mount):
            status = self._act("-e", f"inject={point.call}:signal=KILL:when={point.number}")
            assert status == -signal.SIGKILL, f"it was not killed, but ended with {status}"
            volume.cut_power(self._mount, flag)
        with volume.mounted(self._image, self._mount):
            _in_child(lambda: _recover_and_die(self._state, again))
            volume.cut_power(self._mount, flag)
        with volume.mounted(self._image, self._mount):
            self._check()

    def cut_at_end(self, flag: int) -> None:
        """Cut the power once the action has ended: what it reported must be there."""
        volume.copy(self._template, self._image)
        with volume.mounted(self._image, self._mount):
            assert _in_child(lambda: self.scenario.act(Site(self._state))) == 0
            volume.cut_power(self._mount, flag)
        with volume.mounted(self._image, self._mount):
            self._check(ended=True)

    def fail(self, point: Point, error: str) -> None:
        """Let one call fail: nothing may be left that is neither old nor new."""
        volume.copy(self._template, self._image)
        with volume.mounted(self._image, self._mount):
            status = self._act("-e", f"inject={point.call}:error={error}:when={point.number}")
            self._check(ended=status == 0)

    def _check(self, *, ended: bool = False) -> None:
        check(Site(self._state), self.scenario, ended=ended, floor=self._floor)

    def _act(self, *options: str) -> int:
        """Act in a child process, traced; return how it ended."""
        child = os.fork()
        if not child:
            _end(lambda: _traced(lambda: self.scenario.act(Site(self._state))))
        os.waitpid(child, os.WUNTRACED)  # it has stopped itself
        names = f"trace={','.join(TRACED)}"
        command = ["strace", "-f", "-q", "-o", self._log, "-e", names, *options, "-p", str(child)]
        with subprocess.Popen(command, stderr=subprocess.DEVNULL) as strace:
            while "TracerPid:\t0" in Path(f"/proc/{child}/status").read_text():
                if strace.poll() is not None:
                    os.kill(child, signal.SIGKILL)
                    raise RuntimeError("strace could not attach")
                time.sleep(0.001)
            os.kill(child, signal.SIGCONT)
            _, status = os.waitpid(child, 0)
        return os.waitstatus_to_exitcode(status)


def _points(log: str) -> Iterator[Point]:
    """Yield the calls that change a disk; of those that open files, the ones that make them."""
    counts: dict[str, int] = {}
    for line in log.splitlines():
        match = LINE.match(line)
        if match is None or match[1] not in TRACED:
            continue
        counts[match[1]] = counts.get(match[1], 0) + 1
        if match[1] != "openat" or "O_CREAT" in match[2]:
            yield Point(match[1], counts[match[1]])


def _traced(act: Callable[[], object]) -> None:
    os.kill(os.getpid(), signal.SIGSTOP)  # until strace has attached
    act()


def _in_child(act: Callable[[], object]) -> int:
    child = os.fork()
    if not child:
        _end(act)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def _end(act: Callable[[], object]) -> None:
    """Act, and end this process at once, as if it were not a copy of another."""
    code = 1
    with contextlib.suppress(Exception):
        act()
        code = 0
    os._exit(code)


def _recover_and_die(state: Path, at: int) -> None:
    """Recover, killed at a call that changes the disk, if there are that many."""
    left = at

    def wrapped(real: Callable[..., object]) -> Callable[..., object]:
        def call(*arguments: object) -> object:
            nonlocal left
            if not left:
                os.kill(os.getpid(), signal.SIGKILL)
            left -= 1
            return real(*arguments)

        return call

    for name in CALLS:
        setattr(syscalls, name, wrapped(getattr(syscalls, name)))
    site = Site(state)
    site.trials.recover(site.now)


@dataclass
class Tally:
    """How often something was tried, and what failed."""

    tried: int = 0
    failed: int = 0
    seconds: float = 0.0


def tally(
    name: str, scenario_name: str, place: Path, every: int, say: Callable[[str], None]
) -> dict[str, Tally]:
    """Try a scenario on a file system at every point, or every so many."""
    bench = Bench(name, SCENARIOS[scenario_name], place)
    points = bench.points()
    chosen = points[::every]
    found: dict[str, Tally] = {}

    def attempt(kind: str, what: str, act: Callable[[], object]) -> None:
        entry = found.setdefault(kind, Tally())
        entry.tried += 1
        began = time.monotonic()
        try:
            act()
        except Exception:  # noqa: BLE001 - counted, shown, and the next point is tried
            entry.failed += 1
            say(f"FAILED: {name}, {scenario_name}, {kind}, {what}\n{traceback.format_exc()}")
        entry.seconds += time.monotonic() - began

    for number, point in enumerate(chosen):
        say(f"\r{name}: {scenario_name}: {number + 1} of {len(chosen)} points ")
        for kind, flag in CUTS.items():
            attempt(kind, str(point), lambda f=flag, p=point, n=number: bench.cut(p, f, n % 24))
        for error in FAULTS:
            attempt(error, str(point), lambda e=error, p=point: bench.fail(p, e))
    for kind, flag in CUTS.items():
        attempt(kind, "after the end", lambda f=flag: bench.cut_at_end(f))
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the matrix and print its table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--file-system", action="append", choices=("ext4", "xfs"))
    parser.add_argument("--scenario", action="append", choices=SCENARIOS)
    parser.add_argument("--every", type=int, default=1, metavar="N", help="only every N-th point")
    options = parser.parse_args(arguments)
    terminal = sys.stderr.isatty()

    def say(text: str) -> None:
        """Show progress on a terminal; failures anywhere."""
        if terminal or not text.startswith("\r"):
            print(text, end="" if text.startswith("\r") else "\n", file=sys.stderr, flush=True)

    kinds = (*CUTS, *FAULTS)
    heads = "".join(f"{kind:>17}" for kind in kinds)
    print(f"{'points tried':<28}{heads}{'failures':>10}{'s a point':>11}", flush=True)
    totals = dict.fromkeys(kinds, 0)
    failed = 0
    for name in options.file_system or ["ext4", "xfs"]:
        reason = volume.missing(name)
        if reason:
            print(f"{name}: not tried: {reason}")
            continue
        for scenario in options.scenario or SCENARIOS:
            with tempfile.TemporaryDirectory(dir=volume.MEMORY, prefix="modelward-crash-") as place:
                found = tally(name, scenario, Path(place), options.every, say)
            for kind in kinds:
                totals[kind] += found[kind].tried
            bad = sum(item.failed for item in found.values())
            failed += bad
            pace = sum(item.seconds for item in found.values()) / sum(
                item.tried for item in found.values()
            )
            cells = "".join(f"{found[kind].tried:>17}" for kind in kinds)
            row = f"{name:<6}{scenario:<22}{cells}{bad:>10}{pace:>11.2f}"
            print(f"\r{row}" if terminal else row, flush=True)
    cells = "".join(f"{count:>17}" for count in totals.values())
    print(f"{'together':<28}{cells}{failed:>10}")
    return int(failed > 0 or not sum(totals.values()))


if __name__ == "__main__":
    sys.exit(main())
