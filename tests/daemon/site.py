"""A daemon in a process of its own, and a server that can keep it waiting."""

import json
import queue
import signal
import subprocess
import sys
from pathlib import Path
from threading import Thread
from typing import Any, Self

import modelward
from modelward.errors import ExitCode
from modelward.formats.report import Report, read_envelope
from modelward.install.reports import ReportStore
from tests.simulator.server import Server
from tests.simulator.world import MODEL, World, clean_environment
from tests.watching import PATIENCE


class Running:
    """`modelward run --json --debug` on a world's device, until the block ends.

    Attributes:
        process: It.
        seen: The log's lines that were waited for or passed over.
    """

    def __init__(
        self, world: World, server: Server | None, *options: str, **environment: str
    ) -> None:
        arguments = ["run", "--json", "--debug", "--state", str(world.device), *options]
        if server:
            arguments += ["--repository", server.url]
        self.seen: list[dict[str, Any]] = []
        self._lines: queue.Queue[dict[str, Any]] = queue.Queue()
        self.process = subprocess.Popen(
            [sys.executable, "-m", "modelward", *arguments],
            env=clean_environment() | environment,
            cwd=world.place,
            stdout=subprocess.PIPE,
            text=True,
        )
        Thread(target=self._read, daemon=True).start()

    def wait_for(self, event: str, **fields: Any) -> dict[str, Any]:
        """Return the next line about an event whose fields are these."""
        while True:
            line = self._lines.get(timeout=PATIENCE)
            self.seen.append(line)
            if line["event"] == event and fields.items() <= line.items():
                return line

    def signal(self, number: signal.Signals) -> None:
        """Send a signal."""
        self.process.send_signal(number)

    def stop(self) -> int:
        """Stop it as systemd does; return its exit code."""
        self.signal(signal.SIGTERM)
        return self.process.wait(PATIENCE)

    def children(self) -> list[int]:
        """Return its child processes."""
        pid = self.process.pid
        return [*map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split())]

    def _read(self) -> None:
        for line in self.process.stdout or ():
            self._lines.put(json.loads(line))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()


def configure(device: Path, **settings: str) -> None:
    """Put a table [run] at the end of a device's modelward.toml, in place of one that is there.

    Unless they say so, the daemon does not verify by itself: it would mend what tests damage.
    """
    settings = {"verify": '"never"', **settings}
    file = device / "modelward.toml"
    text = file.read_text("utf-8").partition("\n[run]")[0]
    lines = [f"{name} = {value}" for name, value in settings.items()]
    file.write_text("\n".join([text, "[run]", *lines, ""]), "utf-8")


def flip(world: World, path: str = "model.onnx") -> None:
    """Change one byte of what runs, and of the blob that it is a link to."""
    file = world.device / "current" / MODEL / path
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.chmod(0o644)
    file.write_bytes(data)


def opens(world: World, version: str, *, fallback: bool) -> None:
    """Require that a version is handed out."""
    with modelward.open_model(MODEL, world.device) as opened:
        assert (opened.version, opened.fallback) == (version, fallback)


def is_whole(world: World) -> None:
    """Require that what was approved runs, and that no alarm is pending."""
    opens(world, "1.1.0", fallback=False)
    assert world.read_model()[1] == world.offered
    status = world.client_here("status")
    assert (status.code, status.json["alarms"]) == (ExitCode.DONE, [])
    assert world.client_here("verify").code == ExitCode.DONE


def reports(world: World) -> list[Report]:
    """Return the reports that wait to be sent, the newest last."""
    store = ReportStore(world.device)
    return [read_envelope(store.read(number) or b"")[1] for number in store.pending()]


def runs(pid: int) -> bool:
    """Tell whether a process runs: one that nobody waited for does not."""
    try:
        return ") Z " not in Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
