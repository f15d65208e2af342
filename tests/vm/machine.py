"""A virtual machine that can be told what to do, and whose power can be cut.

Its processor is emulated, so that it runs wherever the tests do: a boot takes the better part of a
minute.
"""

import contextlib
import json
import shutil
import socket
import subprocess
import time
from pathlib import Path
from typing import Any, Self

from tests.vm.image import Image

# Seconds that a boot, or a command, may take: long, since it is emulated beside other work.
BOOT = 900.0
COMMAND = 600.0
READY = "ready"


class Machine:
    """A machine with a disk of its own.

    Attributes:
        console: What it prints.
    """

    def __init__(self, image: Image, repositories: Path, place: Path) -> None:
        self._image = image
        self._repositories = repositories
        self._place = place
        self._disk = place / "disk"
        self.console = place / "console"
        self._process: subprocess.Popen[bytes] | None = None
        self._link: socket.socket | None = None
        subprocess.run(
            ["cp", "--sparse=always", "--reflink=auto", image.disk, self._disk], check=True
        )

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.cut_power()

    def start(self) -> None:
        """Start it, and wait until it is told what to do."""
        port = self._place / "p"
        port.unlink(missing_ok=True)
        drive = "if=virtio,format=raw,cache=writeback"
        command = [
            *(shutil.which("qemu-system-x86_64") or "", "-M", "q35,accel=tcg"),
            *("-cpu", "max", "-smp", "2", "-m", "1024", "-nodefaults", "-nographic"),
            *("-no-reboot", "-nic", "none", "-serial", f"file:{self.console}"),
            *("-kernel", str(self._image.kernel), "-initrd", str(self._image.initrd)),
            *("-append", "root=/dev/vda rw console=ttyS0 panic=1 quiet"),
            *("-drive", f"file={self._disk},{drive}"),
            *("-drive", f"file={self._repositories},readonly=on,{drive}"),
            *("-chardev", f"socket,id=port,path={port},server=on,wait=off"),
            *("-device", "virtio-serial", "-device", "virtserialport,chardev=port,name=agent"),
        ]
        self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL)
        self._link = self._connect(port)
        self._link.settimeout(BOOT)
        assert self._answer()["out"] == READY, self.console.read_text(errors="replace")

    def run(self, command: str, seconds: float = COMMAND, *, code: int | None = 0) -> str:
        """Run a command in it; return what it printed.

        Args:
            command: For its shell.
            seconds: How long it may take.
            code: The exit code that it must have; None for any.
        """
        assert self._link is not None
        order = json.dumps({"command": command, "seconds": seconds})
        self._link.settimeout(seconds + 30)
        self._link.sendall(order.encode() + b"\n")
        done = self._answer()
        assert code in {None, done["code"]}, f"{command}: {done['code']}\n{done['out']}"
        return str(done["out"])

    def begin(self, command: str) -> None:
        """Tell it to run a command, and wait for nothing."""
        self.run(f"nohup sh -c '{command}' >/dev/null 2>&1 &")

    def cut_power(self) -> None:
        """Cut its power: what its disk was not told is lost."""
        if self._link is not None:
            self._link.close()
        if self._process is not None:
            self._process.kill()
            self._process.wait()
        self._link = self._process = None

    def restart(self) -> None:
        """Shut it down in good order, and start it again."""
        process = self._process
        assert process is not None
        with contextlib.suppress(OSError, TimeoutError):
            self.run("systemctl --no-block poweroff")
        process.wait(BOOT)
        self.cut_power()
        self.start()

    def _connect(self, port: Path) -> socket.socket:
        link = socket.socket(socket.AF_UNIX)
        until = time.monotonic() + 10
        while True:
            try:
                link.connect(str(port))
            except OSError:
                if time.monotonic() > until:
                    raise
                time.sleep(0.05)
            else:
                return link

    def _answer(self) -> dict[str, Any]:
        assert self._link is not None
        line = b""
        while not line.endswith(b"\n"):
            data = self._link.recv(65536)
            if not data:
                raise OSError(f"the machine is gone; see {self.console}")
            line += data
        answer: dict[str, Any] = json.loads(line)
        return answer
