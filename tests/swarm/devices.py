"""Real devices, in processes of their own, that update at the same time and serve each other."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Command = Sequence[str]


@dataclass
class Device:
    """One device.

    Attributes:
        state: Its state directory.
        within: What its commands are started with, such as `ip netns exec NAME`.
        url: Where it serves its neighbours, once it does.
        program: What Python is to run.
        said: What it said on standard error while it served.
    """

    state: Path
    within: Command = ()
    url: str = ""
    program: Command = ("-m", "modelward")
    said: str = ""

    def start(self, command: str, *options: str) -> "subprocess.Popen[str]":
        """Start a command of this device."""
        return subprocess.Popen(
            [
                *self.within,
                *(sys.executable, *self.program, command),
                *("--state", str(self.state), "--json", *options),
            ],
            env={name: value for name, value in os.environ.items() if "MODELWARD" not in name},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def init(self, repository: str, root: Path) -> None:
        """Set it up."""
        result(self.start("init", "--repository", repository, "--root", str(root)))

    def know(self, urls: Sequence[str], **more: Any) -> None:
        """Name its neighbours."""
        with (self.state / "modelward.toml").open("a") as file:
            file.write(f"\n[neighbours]\nurls = {json.dumps(list(urls))}\n")
            for name, value in more.items():
                file.write(f"{name} = {json.dumps(value)}\n")

    @contextmanager
    def serving(self, host: str) -> Iterator[int]:
        """Let it serve its neighbours; yield the id of the process that does."""
        process = self.start("serve", "--host", host, "--port", "0")
        try:
            assert process.stdout
            text = ""
            while "}" not in text:
                line = process.stdout.readline()
                assert line, process.stderr and process.stderr.read()
                text += line
            self.url = json.loads(text)["url"]
            yield process.pid
        finally:
            process.terminate()
            self.said = process.communicate(timeout=20)[1]
        assert process.returncode == 0


def result(process: "subprocess.Popen[str]", seconds: float = 110) -> Any:
    """Wait for a command, which must succeed, and return what it printed."""
    out, err = process.communicate(timeout=seconds)
    assert process.returncode == 0, (out, err)
    return json.loads(out)


def update_all(devices: Sequence[Device], seconds: float = 110) -> list[Any]:
    """Let all devices update at once."""
    started = [device.start("update") for device in devices]
    try:
        return [result(process, seconds) for process in started]
    finally:
        for process in started:
            process.kill()
            process.wait()
