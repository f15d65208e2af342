"""What the daemon costs while it waits, and what its checks would cost if it made them itself.

The resident process, each check in a child, against a process that makes all checks itself: memory
after one update and after many checks (Rss and Private of /proc/PID/smaps_rollup).
"""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from modelward import settings
from modelward.daemon.attempt import Job
from tests.bench import page
from tests.daemon.site import Running, configure
from tests.simulator.server import Server
from tests.simulator.world import World, clean_environment

CHECKS = 100
_IN_ONE = """
import sys
from modelward.daemon.attempt import Job, Watch, run
job = Job.parse(sys.stdin.readline())
for line in sys.stdin:
    print(run(job, Watch(lambda event: None))["outcome"], flush=True)
"""


def main(_arguments: Sequence[str]) -> None:
    """Measure, and write the table."""
    with TemporaryDirectory(prefix="modelward-bench-") as place:
        world = World.build(Path(place))
        configure(world.device, interval='"1h"', jitter="0")
        with world.serve() as server:
            world.publish("1.1.0")
            resident = _daemon(world, server)
            peaks = _child(world, server)
            alone = _in_one(world, server)
    rows = [
        ("`modelward run`, waiting, after an update", *resident[0]),
        (f"the same after {CHECKS} checks more", *resident[1]),
        ("the child of a check that finds nothing, at its peak", _mib(peaks[0]), "-"),
        ("the child of an update, at its peak", _mib(peaks[1]), "-"),
        ("one process for everything, after an update", *alone[0]),
        (f"the same after {CHECKS} checks more", *alone[1]),
    ]
    lines = [
        page.measured("make bench ARGS=daemon", "MiB; private is what ending it would free"),
        "",
        *page.table(("Process", "resident", "private"), rows),
    ]
    page.write("daemon", lines)


def _daemon(world: World, server: Server) -> list[tuple[str, str]]:
    found = []
    with Running(world, server) as daemon:
        daemon.wait_for("checked", outcome="updated")
        found.append(_memory(daemon.process.pid))
        for _ in range(CHECKS):
            daemon.signal(signal.SIGUSR1)
            daemon.wait_for("checked")
        found.append(_memory(daemon.process.pid))
        daemon.stop()
    return found


def _child(world: World, server: Server) -> list[int]:
    peaks = []
    for publish in (False, True):
        if publish:
            world.publish("1.2.0")
        launch = [sys.executable, "-S", str(Path(__file__).with_name("launch.py"))]
        # No standard input but the job's line: the child must not think that the daemon has gone.
        with subprocess.Popen(
            [*launch, sys.executable, "-P", "-m", "modelward.daemon.attempt"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=clean_environment(),
            text=True,
        ) as child:
            assert child.stdin
            assert child.stdout
            child.stdin.write(_job(world, server).to_line() + "\n")
            child.stdin.flush()
            told = json.loads(child.stdout.readline())
        assert told["status"] == 0, told
        peaks.append(told["memory"])
    return peaks


def _in_one(world: World, server: Server) -> list[tuple[str, str]]:
    world.publish("1.3.0")
    found = []
    with subprocess.Popen(
        [sys.executable, "-P", "-c", _IN_ONE],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=clean_environment(),
        text=True,
    ) as process:
        assert process.stdin
        assert process.stdout
        process.stdin.write(_job(world, server).to_line() + "\n")
        for count in (1, CHECKS):
            for _ in range(count):
                process.stdin.write("again\n")
                process.stdin.flush()
                process.stdout.readline()
            found.append(_memory(process.pid))
        process.stdin.close()
    return found


def _job(world: World, server: Server) -> Job:
    from modelward import config  # noqa: PLC0415

    state = settings.state_directory(str(world.device), os.environ)
    return Job(state, config.merged(state, {}, {"repository": server.url}))


def _memory(pid: int) -> tuple[str, str]:
    time.sleep(0.5)  # what has just ended lets go of its memory
    found = {}
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]:
        name, value, *_ = line.split()
        found[name] = int(value) * 1024
    private = found["Private_Dirty:"] + found["Private_Clean:"]
    return _mib(found["Rss:"]), _mib(private)


def _mib(count: int) -> str:
    return f"{count / (1 << 20):.1f}"
