"""A stage for stories: commands that are run for real and shown, and a real server.

The demo (`meter-reader/demo.py`) and the drill (`drill/drill.py`) are told on it.
"""

import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
BIN = Path(sys.executable).parent
WIDTH = 96
NARROW = 156


class DemoError(Exception):
    """The story did not go as told."""


@dataclass
class Stage:
    """Where the story takes place, and how it is told."""

    place: Path
    colours: bool
    started: float = field(default_factory=time.monotonic)

    @property
    def repository(self) -> Path:
        """What the server serves."""
        return self.place / "repository"

    @property
    def keys(self) -> Path:
        """Everybody's keys, one folder a holder."""
        return self.place / "repository-keys"

    @property
    def device(self) -> Path:
        """The device's state directory."""
        return self.place / "device"

    @property
    def mirror(self) -> Path:
        """What the attacker serves."""
        return self.place / "mirror"

    def chapter(self, title: str) -> None:
        """Begin a chapter."""
        at = time.monotonic() - self.started
        rule = "-" * max(0, WIDTH - len(title) - 12)
        self._print(f"\n{title} {rule} {at:5.1f} s", "1;36")

    def say(self, text: str) -> None:
        """Tell what happens."""
        self._print(textwrap.fill(" ".join(text.split()), WIDTH), "")

    def good(self, text: str) -> None:
        """Show what a person would be glad to read."""
        self._print(text, "32")

    def command(self, arguments: Sequence[str]) -> None:
        """Show a command as somebody would type it."""
        self._print(f"  $ {self._short(arguments)}", "33")

    def output(self, text: str) -> None:
        """Show what a command printed."""
        for line in text.strip("\n").splitlines():
            cut = line if len(line) <= NARROW else f"{line[:NARROW]} ..."
            self._print(f"  | {cut}", "2")

    def run(
        self,
        arguments: Sequence[str],
        folder: Path | None = None,
        *,
        show: bool = True,
        expect: int = 0,
    ) -> str:
        """Run one of the project's commands for real and return what it printed."""
        self.command(arguments)
        done = subprocess.run(
            [str(BIN / arguments[0]), *arguments[1:]] if (BIN / arguments[0]).exists()
            else list(arguments),
            cwd=folder or self.place,
            env=environment(),
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            check=False,
        )  # fmt: skip
        if show:
            self.output(done.stdout)
        if done.returncode != expect:
            if not show:
                self.output(done.stdout)
            raise DemoError(f"{arguments[0]} ended with {done.returncode}, not {expect}")
        return done.stdout

    def _short(self, arguments: Sequence[str]) -> str:
        """Leave out of a command line what a reader need not see."""
        words = [str(word).replace(f"{self.place}/", "").replace(f"{ROOT}/", "")
                 for word in arguments]  # fmt: skip
        for option in ("--materials", "--products", "--manifest", "--layout", "--policy",
                       "--links"):  # fmt: skip
            while option in words and words[0] == "modelward-repo":
                del words[words.index(option) : words.index(option) + 2]
        return " ".join(words)

    def _print(self, text: str, colour: str) -> None:
        print(f"\x1b[{colour}m{text}\x1b[0m" if self.colours and colour else text, flush=True)


def environment() -> dict[str, str]:
    """Return an environment in which the project's commands and Python come first."""
    return os.environ | {"PATH": f"{BIN}:{os.environ['PATH']}", "PYTHONDONTWRITEBYTECODE": "1"}


@contextmanager
def served(directory: Path) -> Iterator[str]:
    """Serve a repository with the real server and give its address."""
    process = subprocess.Popen(
        [str(BIN / "modelward-repo"), "serve", str(directory), "--port", "0"],
        env=environment(),
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    try:
        lines = []
        for line in process.stdout or ():
            lines.append(line)
            if " on http://" in line:
                yield "http://" + line.split(" on http://")[1].split()[0].rstrip("/")
                return
        raise DemoError("the server did not start: " + "".join(lines))
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
