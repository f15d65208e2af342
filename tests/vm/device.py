"""A virtual machine on which the client is set up as its guide says."""

import json
import time
from collections.abc import Callable
from typing import Any

from tests.simulator.world import MODEL
from tests.vm.image import RUNTIMES
from tests.vm.machine import COMMAND, Machine

STATE = "/var/lib/modelward"
PYTHON = "/opt/modelward/bin/python"
PACKAGES = "/opt/modelward/lib/python3.11/site-packages"
UNIT = "/etc/systemd/system/modelward.service"
MOUNT = "mountpoint -q /mnt/repositories || mount -o ro /dev/vdb /mnt/repositories"
_OPEN = f"""
import json, sys, modelward
def taken():
    lines = open("/proc/self/io").read().splitlines()
    return int(dict(line.split(": ") for line in lines)["rchar"])
before = taken()
with modelward.open_model("{MODEL}", "{STATE}", strict="strict" in sys.argv) as model:
    print(json.dumps([model.version, taken() - before]))
"""
OPEN = f"{PYTHON} -c '{_OPEN}'"


class Device(Machine):
    """A machine on which the client is set up, beside a repository that it updates from."""

    def set_up(self) -> None:
        """Do what the operator's guide says."""
        self.run(f"useradd --system --home-dir {STATE} --create-home modelward")
        self.offer("1.0.0")
        root = "/mnt/repositories/1.0.0/metadata/1.root.json"
        self.modelward(f"init --repository http://127.0.0.1:8080 --root {root}")

    def configure(self, text: str) -> None:
        """Add to what the device's file of settings says."""
        self.run(f"cat >>{STATE}/modelward.toml <<'END'\n{text}\nEND")

    def install_runtimes(self) -> None:
        """Install what loads and runs models, where the client is."""
        self.run(f"echo {RUNTIMES} >{PACKAGES}/runtimes.pth")

    def start_daemon(self) -> None:
        """Install the unit as it is printed, and start it: done once it says that it is ready."""
        self.run(f"modelward systemd --state {STATE} >{UNIT}; systemctl daemon-reload")
        self.run("systemctl start modelward")

    def offer(self, version: str) -> None:
        """Serve the repository that offers a version."""
        self.run(MOUNT)
        self.run(f"ln -sfn /mnt/repositories/{version} /run/repository")
        self.run("systemctl start repository.service; sleep 1")

    def modelward(self, command: str, code: int | None = 0) -> Any:
        """Run a command as the device's own user; return what it printed."""
        line = f"runuser -u modelward -- modelward {command} --state {STATE} --json 2>/tmp/errors"
        return json.loads(self.run(line, code=code))

    def running(self) -> str | None:
        """Return the version that runs."""
        model = self.modelward("status")["models"].get(MODEL)
        return model and model["version"]

    def open(self, *arguments: str) -> tuple[str, int]:
        """Open the model; return its version, and how many bytes that read."""
        version, count = json.loads(
            self.run(f"runuser -u modelward -- {OPEN} {' '.join(arguments)}")
        )
        return version, count

    def failed(self) -> dict[str, str]:
        """Return why releases did not work here, by version."""
        return {item["version"]: item["reason"] for item in self.modelward("status")["failed"]}

    def wait(self, what: Callable[[], Any], seconds: float = COMMAND) -> Any:
        """Wait until something is so; return what it is."""
        until = time.monotonic() + seconds
        while not (so := what()):
            assert time.monotonic() < until, self.run("journalctl -n 60 --no-pager", code=None)
            time.sleep(1)
        return so
