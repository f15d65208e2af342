"""`make crash`: kill a device at every system call that changes its disk, and cut the power there.

For each point: a fresh ext4 or XFS on a loop device; a device in the middle of something, ended by
SIGKILL as it enters its N-th call of one kind (strace); the file system shut down, with its journal
lost or flushed; mounted again; then recovery, itself killed at a call and cut off again; then
everything that must hold (`tests.crash.scenarios.check`). Besides, each of these calls fails once
with ENOSPC and once with EIO. Needs root; prints a table.

Points are shared out among processes, each with a disk and a mount point of its own. One that finds
that this process is gone unmounts and ends.
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
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.connection import Connection
from multiprocessing.synchronize import Event
from pathlib import Path

from modelward.install import syscalls
from tests.crash import volume
from tests.crash.disk import CALLS
from tests.crash.owner import as_owner
from tests.crash.scenarios import SCENARIOS, Scenario, check, floor_of
from tests.crash.volume import JOURNAL_FLUSHED, JOURNAL_LOST
from tests.install.site import Site

TRACED = (
    "openat", "write", "pwrite64", "ftruncate", "fallocate", "fsync", "fdatasync", "mkdir",
    "rename", "renameat2", "link", "linkat", "symlink", "unlink", "rmdir", "chmod",
)  # fmt: skip
LINE = re.compile(r"^(?:(\d+) +)?(\w+)\((.*)")
CUTS = {"journal lost": JOURNAL_LOST, "journal flushed": JOURNAL_FLUSHED}
FAULTS = ("ENOSPC", "EIO")
KINDS = (*CUTS, *FAULTS)


@dataclass(frozen=True)
class Point:
    """A system call: the `number`-th of its name in one thread, counted from 1."""

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
        # Its threads are followed (-f); other programs that it starts are not (-b execve).
        command = ["strace", "-f", "-b", "execve", "-q", "-o", self._log, "-e", names, *options]
        command += ["-p", str(child)]
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
    """Yield the calls that change a disk; of those that open files, the ones that make them.

    `strace` counts the calls of each thread by themselves, and acts on whichever comes first.
    """
    counts: Counter[tuple[str, str]] = Counter()
    seen: set[Point] = set()
    for line in log.splitlines():
        match = LINE.match(line)
        if match is None or match[2] not in TRACED:
            continue
        counts[match[1], match[2]] += 1
        point = Point(match[2], counts[match[1], match[2]])
        if point not in seen and (match[2] != "openat" or "O_CREAT" in match[3]):
            seen.add(point)
            yield point


def _traced(act: Callable[[], object]) -> None:
    sys.dont_write_bytecode = True  # it would be written once, and every later count be another
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
    try:
        with contextlib.suppress(Exception):
            act()
            code = 0
    finally:
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


Found = dict[str, Tally]  # by what was done
Row = tuple[str, str]  # a file system, a scenario


@dataclass(frozen=True)
class Share:
    """What one process tries: every so many points.

    Attributes:
        first: The first point, counted from 0.
        every: How far it is from one point to the next.
        at_end: Whether the cuts after the action's end are its, too.
        owner: The process that wants to know.
        over: Whether it does not want to know any more.
    """

    first: int
    every: int
    at_end: bool
    owner: int
    over: Event

    def run(self, rows: Sequence[Row], results: Connection) -> None:
        """Try its part of every row, and tell what was found of each."""
        with as_owner():
            for row in rows:
                results.send(self.tally(*row))

    def tally(self, name: str, scenario: str) -> Found:
        """Try its part of a scenario on a file system."""
        found = {kind: Tally() for kind in KINDS}

        @contextlib.contextmanager
        def attempt(kind: str, what: str) -> Iterator[None]:
            if self.over.is_set() or os.getppid() != self.owner:
                sys.exit("nobody waits for this any more")
            found[kind].tried += 1
            began = time.monotonic()
            try:
                yield
            except Exception:  # noqa: BLE001 - counted, shown, and the next point is tried
                found[kind].failed += 1
                where = f"{name}, {scenario}, {kind}, {what}"
                print(f"FAILED: {where}\n{traceback.format_exc()}", file=sys.stderr, flush=True)
            found[kind].seconds += time.monotonic() - began

        with tempfile.TemporaryDirectory(dir=volume.MEMORY, prefix="modelward-crash-") as place:
            bench = Bench(name, SCENARIOS[scenario], Path(place))
            points = bench.points()
            for number in range(self.first, len(points), self.every):
                point = points[number]
                for kind, flag in CUTS.items():
                    with attempt(kind, str(point)):
                        bench.cut(point, flag, number % 24)
                for error in FAULTS:
                    with attempt(error, str(point)):
                        bench.fail(point, error)
            for kind, flag in CUTS.items() if self.at_end else ():
                with attempt(kind, "after the end"):
                    bench.cut_at_end(flag)
        return found


def shared_out(rows: Sequence[Row], jobs: int, every: int) -> Iterator[list[Found]]:
    """Let processes try every point of all rows, or every so many; yield each row's findings."""
    context = get_context("fork")
    over = context.Event()
    ends = []
    for number in range(jobs):
        share = Share(number * every, jobs * every, number == 0, os.getpid(), over)
        receiving, sending = context.Pipe(duplex=False)
        context.Process(target=share.run, args=(rows, sending)).start()
        sending.close()
        ends.append(receiving)
    try:
        for _ in rows:
            yield [end.recv() for end in ends]
    finally:
        over.set()


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the matrix and print its table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--file-system", action="append", choices=("ext4", "xfs"))
    parser.add_argument("--scenario", action="append", choices=SCENARIOS)
    parser.add_argument("--every", type=int, default=1, metavar="N", help="only every N-th point")
    cores = len(os.sched_getaffinity(0))
    parser.add_argument("--jobs", "-j", type=int, default=cores, metavar="N", help="processes")
    options = parser.parse_args(arguments)

    heads = "".join(f"{kind:>17}" for kind in KINDS)
    print(f"{'points tried':<28}{heads}{'failures':>10}{'s a point':>11}", flush=True)
    rows: list[Row] = []
    for name in options.file_system or ["ext4", "xfs"]:
        reason = volume.missing(name)
        if reason:
            print(f"{name}: not tried: {reason}")
        else:
            rows += [(name, scenario) for scenario in options.scenario or SCENARIOS]
    together: list[Found] = []
    for row, found in zip(rows, shared_out(rows, options.jobs, options.every), strict=True):
        together += found
        print(_line("{:<6}{}".format(*row), found), flush=True)
    print(_line("together", together))
    tallies = [tally for found in together for tally in found.values()]
    return int(not tallies or any(tally.failed for tally in tallies))


def _line(head: str, found: Sequence[Found]) -> str:
    tallies = [tally for each in found for tally in each.values()]
    cells = "".join(f"{sum(each[kind].tried for each in found):>17}" for kind in KINDS)
    tried = sum(tally.tried for tally in tallies)
    pace = sum(tally.seconds for tally in tallies) / max(1, tried)
    return f"{head:<28}{cells}{sum(tally.failed for tally in tallies):>10}{pace:>11.2f}"


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl-C: tidies up
    sys.exit(main())
