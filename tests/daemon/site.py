"""A daemon in a process of its own, and a server that can keep it waiting."""

import json
import queue
import signal
import subprocess
import sys
from pathlib import Path
from threading import Thread
from typing import Any, Self

from tests.simulator.server import Server
from tests.simulator.world import World, clean_environment

PATIENCE = 60.0  # seconds: only a test that fails waits as long


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
    """Put a table [run] at the end of a device's modelward.toml, in place of one that is there."""
    file = device / "modelward.toml"
    text = file.read_text("utf-8").partition("\n[run]")[0]
    lines = [f"{name} = {value}" for name, value in settings.items()]
    file.write_text("\n".join([text, "[run]", *lines, ""]), "utf-8")
