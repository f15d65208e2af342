"""Layer 3 of the proof that a device is never bricked: kill its daemon at random, again and again.

A publisher publishes all the time, readers open the model all the time, and the daemon, or the
child that makes its check, or both, are killed with SIGKILL at random moments. What must hold at
every moment, with nobody to repair anything:

1. whatever a reader opens is exactly one version that was published;
2. what is installed right after a kill, before any recovery, is such a version, too;
3. floors never fall, and no honest update is ever refused;
4. in the end the device comes to run the newest version by itself, whole, and nothing is left over.
"""

import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import modelward
from modelward.config import load
from modelward.device import Device
from modelward.install import seals
from tests.repo_tools.site import serving
from tests.simulator.world import TOKENIZER, World, clean_environment
from tests.soak.reader import digest

READERS = 2
EASY = 4  # of so many daemons, one lives until it has checked once
LONGER = 1.3  # times as long as that takes, the others live at most
PAUSE = (0.1, 0.8)  # seconds between two versions
PATIENCE = 120.0  # seconds for the device to come to run the last version
PAYLOAD = 64 << 10  # bytes
SETTINGS = """
[run]
interval = "1s"
jitter = 0
backoff = "1s"

[health]
soak = "1s"
"""


@dataclass
class Result:
    """What happened.

    Attributes:
        cycles: Kills.
        killed: Kills by who was killed.
        published: Versions published.
        ran: Versions that were found running.
        opens: Times that readers opened the model and read it whole.
        refused: Updates that the device refused or rolled back.
        failures: What must not happen, each in a sentence.
    """

    cycles: int = 0
    killed: Counter[str] = field(default_factory=Counter)
    published: int = 0
    ran: set[str] = field(default_factory=set)
    opens: int = 0
    refused: int = 0
    failures: list[str] = field(default_factory=list)

    def table(self) -> str:
        """Return the result as a table."""
        rows = [
            ("kill -9 cycles", self.cycles),
            *((f"  of {who}", count) for who, count in sorted(self.killed.items())),
            ("versions published", self.published),
            ("versions seen running", len(self.ran)),
            ("times a reader opened the model", self.opens),
            ("updates refused or rolled back", self.refused),
            ("failures", len(self.failures)),
        ]
        return "\n".join(f"{name:<34}{count:>9}" for name, count in rows)


class Soak:
    """One run.

    Args:
        place: An empty directory.
        seed: Of all randomness.
    """

    def __init__(self, place: Path, seed: int) -> None:
        self.result = Result()
        self._world = World.build(place)
        self._random = random.Random(seed)
        self._digests: dict[str, str] = {}
        self._newest = ""
        self._stop = threading.Event()
        self._floor = 0
        self._span = 1.0  # seconds that a daemon lives at most
        file = self._world.device / "modelward.toml"
        text = file.read_text("utf-8").replace("models = []", f'models = ["{TOKENIZER}"]')
        file.write_text(text + SETTINGS, "utf-8")

    def run(self, cycles: int, progress: Callable[[int], None] = lambda _done: None) -> Result:
        """Kill so often; return what happened.

        Args:
            cycles: How often.
            progress: Told how often it was, so far.
        """
        self._publish()
        with serving(self._world.repository) as url:
            self._url = url
            installed = self._world.client("update", None, "--repository", url)
            self._expect(installed.code == 0, f"the first update failed: {installed.err}")
            with (
                self._running(self._publish_on),
                self._reading(),
                suppress(KeyboardInterrupt),  # which leaves as many as there were
            ):
                for done in range(cycles):
                    self._cycle()
                    progress(done + 1)
            self._settle()
        return self.result

    def _cycle(self) -> None:
        daemon = _Daemon(self._arguments(), self._told)
        try:
            self._kill_some(daemon)
        finally:
            daemon.process.kill()  # where the soak itself was stopped; else it has ended

    def _kill_some(self, daemon: "_Daemon") -> None:
        if self.result.cycles % EASY == 0:  # so that there is progress, on the slowest machine
            daemon.checked.wait(PATIENCE)
            self._span = LONGER * (time.monotonic() - daemon.since)
        else:
            time.sleep(self._random.uniform(0, self._span))
        who = self._random.choice(("daemon alone", "check alone", "daemon and check"))
        check = children(daemon.process.pid)
        if who != "check alone":
            daemon.process.kill()
        if who != "daemon alone":
            kill(check)
        self._look()
        if who == "check alone":  # the daemon must live on, and end cleanly when told to
            daemon.process.send_signal(signal.SIGTERM)
        code = daemon.process.wait(PATIENCE)
        if who == "check alone" and check:
            self._expect(code == 0, f"a daemon whose check was killed ended with {code}")
        self.result.cycles += 1
        self.result.killed[who if check else f"{who}, idle"] += 1

    def _look(self) -> None:
        """Look at the device as it is right now, without repairing anything."""
        try:
            with modelward.open_model(TOKENIZER, self._world.device) as model:
                files = {path: model.read(path) for path in model}
                version = model.version
        except Exception as error:  # noqa: BLE001 - whatever it is, it is a finding
            self._expect(False, f"after a kill: {type(error).__name__}: {error}")
            return
        self._expect(self._digests.get(version) == digest(files), f"{version} is torn")
        self.result.ran.add(version)
        floor = self._device().floors.load().releases.get(TOKENIZER, 0)
        self._expect(floor >= self._floor, f"the floor fell from {self._floor} to {floor}")
        self._floor = max(floor, self._floor)

    def _settle(self) -> None:
        """Let the device alone: it must come to run the newest version, and nothing is left."""
        daemon = _Daemon(self._arguments(), self._told)
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline and not self._at_rest():
            time.sleep(0.2)
        daemon.process.send_signal(signal.SIGTERM)
        self._expect(daemon.process.wait(PATIENCE) == 0, "the daemon did not end cleanly")
        running = self._device().slots.installed().active[TOKENIZER].version
        self._expect(running == self._newest, f"{running} runs in the end, not {self._newest}")
        verified = self._world.client("verify")
        self._expect(verified.code == 0, f"verify: {verified.out}")
        left = list(self._world.device.rglob(".tmp-*"))
        updates = [path for path in left if path.parent.name != seals.FOLDER]
        self._expect(not updates, f"left over: {updates}")
        # Readers are killed, too, and hold no lock: whoever holds it next sweeps up after them.
        swept = self._world.client("gc")
        self._expect(swept.code == 0, f"gc: {swept.out}{swept.err}")
        left = list(self._world.device.rglob(".tmp-*"))
        self._expect(not left, f"left over by readers: {left}")
        slots = list((self._world.device / "slots" / TOKENIZER).iterdir())
        self._expect(len(slots) <= 2, f"{len(slots)} slots are kept")

    def _at_rest(self) -> bool:
        device = self._device()
        runs = device.slots.installed().active[TOKENIZER].version == self._newest
        return runs and device.trials.journal.trial is None

    def _device(self) -> Device:
        return Device(load(self._world.device, {}))

    def _arguments(self) -> list[str]:
        return ["--state", str(self._world.device), "--repository", self._url]

    def _told(self, entry: Mapping[str, Any]) -> None:
        """Hear a line of a daemon's log, or what it said beside that."""
        if entry.get("outcome") in ("refused", "rolled back"):
            self.result.refused += 1
        honest = entry.get("outcome") not in ("refused", "rolled back", "error", "usage")
        killed = "ended by signal 9" in entry.get("message", "")
        self._expect(honest or killed, f"the daemon said: {entry.get('message')}")

    def _publish(self) -> None:
        number = self.result.published + 1
        version = f"1.{number}.0"
        files = {f"part-{part}.json": self._payload(version, part) for part in range(3)}
        chain = self._world.chain(version, TOKENIZER, files)
        self._digests[version] = digest(dict(chain.content))
        self._world.publish(version, TOKENIZER, bundle=files)
        self._newest = version
        self.result.published = number

    def _payload(self, version: str, part: int) -> bytes:
        words = f"{version}/{part} " * (PAYLOAD // len(f"{version}/{part} "))
        return json.dumps({"words": words}).encode()

    def _publish_on(self) -> None:
        while not self._stop.is_set():
            self._publish()
            self._stop.wait(self._random.uniform(*PAUSE))

    @contextmanager
    def _running(self, target: Any) -> Iterator[None]:
        thread = threading.Thread(target=target)
        thread.start()
        try:
            yield
        finally:
            self._stop.set()
            thread.join()

    @contextmanager
    def _reading(self) -> Iterator[None]:
        command = [sys.executable, str(Path(__file__).with_name("reader.py"))]
        readers = [
            subprocess.Popen(
                [*command, str(self._world.device), TOKENIZER],
                env=clean_environment(),
                stdout=subprocess.PIPE,
                text=True,
            )
            for _ in range(READERS)
        ]
        listeners = [threading.Thread(target=self._hear, args=(reader,)) for reader in readers]
        for listener in listeners:
            listener.start()
        try:
            yield
        finally:
            for reader in readers:
                self._expect(reader.poll() is None, "a reader ended")
                reader.kill()
                reader.wait()
            for listener in listeners:
                listener.join()

    def _hear(self, reader: "subprocess.Popen[str]") -> None:
        for line in reader.stdout or ():
            what, *rest = line.split(" ", 2)
            if what == "FAILED":
                self._expect(False, f"a reader: {line.strip()}")
            elif len(rest) == 2 and line.endswith("\n"):
                version, found = rest[0], rest[1].strip()
                self._expect(self._digests.get(version) == found, f"a reader got a torn {version}")
                self.result.opens += 1
                self.result.ran.add(version)

    def _expect(self, holds: bool, failure: str) -> None:
        if not holds:
            self.result.failures.append(failure)


class _Daemon:
    """A daemon in a process of its own, and a thread that listens to it.

    Attributes:
        process: It.
        since: When it was started.
        checked: Set once it has made its first check.
    """

    def __init__(self, arguments: list[str], told: Callable[[Mapping[str, Any]], None]) -> None:
        command = [sys.executable, "-m", "modelward", "run", "--wait", "--json"]
        self.since = time.monotonic()
        self.checked = threading.Event()
        self._told = told
        self.process = subprocess.Popen(
            [*command, *arguments],
            env=clean_environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self) -> None:
        for line in self.process.stdout or ():
            with suppress(ValueError):  # the last line of one that was killed
                entry = json.loads(line)
                self._told(entry)
                if entry["event"] == "checked":
                    self.checked.set()
        trouble = (self.process.stderr.read() if self.process.stderr else "").strip()
        if trouble:
            self._told({"outcome": "error", "message": trouble})


def children(pid: int) -> list[int]:
    """Return the processes that a process has started, and those that these have."""
    found = []
    with suppress(OSError):
        for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
            found += [int(child), *children(int(child))]
    return found


def kill(pids: list[int]) -> None:
    """Kill processes."""
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
