"""Serving neighbours beside the daemon, in a process of its own that ends with it."""

import contextlib
import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from typing import Self

from modelward.daemon.attempt import Job
from modelward.daemon.worker import environment
from modelward.errors import ModelwardError


@dataclass(frozen=True)
class Serving:
    """A running server.

    Attributes:
        process: It.
    """

    process: subprocess.Popen[bytes]

    @classmethod
    def start(cls, job: Job) -> Self:
        """Start serving what a device has. When its standard input closes, it ends."""
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "modelward.daemon.serving"],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            env=environment(),
            process_group=0,
        )
        if process.stdin is not None:
            with contextlib.suppress(BrokenPipeError):  # it died at once; its end will tell
                process.stdin.write(job.to_line().encode() + b"\n")
                process.stdin.flush()
        return cls(process)

    def ended(self) -> int | None:
        """Return its exit code, or None while it runs."""
        return self.process.poll()

    def stop(self, patience: float) -> None:
        """End it.

        Args:
            patience: Seconds that it has to end well.
        """
        self.process.terminate()
        try:
            self.process.wait(patience)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
        if self.process.stdin is not None:
            with contextlib.suppress(BrokenPipeError):
                self.process.stdin.close()


def main() -> int:
    """Serve until told to stop, or until the daemon has gone."""
    from modelward.device import Device  # noqa: PLC0415 - only the child needs them
    from modelward.serve import run  # noqa: PLC0415

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: sys.exit(0))
    line = sys.stdin.readline()
    if not line:
        return 0
    try:
        device = Device(Job.parse(line).config)
        settings = device.config.neighbours
        with run.serving(device, settings.host, settings.port):
            sys.stdin.read()
    except ModelwardError as error:
        sys.stderr.write(f"modelward: {error}\n")
        return int(error.exit_code)
    return 0


if __name__ == "__main__":
    sys.exit(main())
