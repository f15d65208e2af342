"""A device as it is delivered: Debian 12 with its kernel and systemd, and the client in it.

What no test on this machine can show: fs-verity, the unit under a running systemd, reboots, and
cuts of the power of a whole machine. Needs root; the processor may be emulated, so it takes
minutes: `make vm`.
"""

import json
import os
import random
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.simulator.model_files import onnx_file
from tests.simulator.world import MODEL, LenientWorld
from tests.vm import image
from tests.vm.machine import Machine

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(3600),
    pytest.mark.skipif(os.geteuid() != 0, reason="only root may make a disk with Debian on it"),
    pytest.mark.skipif(image.missing() is not None, reason=str(image.missing())),
]
SIZE = 8 << 20  # bytes of weights
VERSIONS = tuple(f"{number}.0.0" for number in range(1, 6))
STATE = "/var/lib/modelward"
PYTHON = "/opt/modelward/bin/python"
OPEN = f"""
import json, sys, modelward
def taken():
    lines = open("/proc/self/io").read().splitlines()
    return int(dict(line.split(": ") for line in lines)["rchar"])
before = taken()
with modelward.open_model("{MODEL}", "{STATE}", strict="strict" in sys.argv) as model:
    print(json.dumps([model.version, taken() - before]))
"""


class Device(Machine):
    """A machine on which the client is set up, beside a repository that it updates from."""

    def set_up(self) -> None:
        """Do what the operator's guide says."""
        self.run(f"useradd --system --home-dir {STATE} --create-home modelward")
        self.run("mount -o ro /dev/vdb /mnt/repositories")
        self.offer("1.0.0")
        root = "/mnt/repositories/1.0.0/metadata/1.root.json"
        self.modelward(f"init --repository http://127.0.0.1:8080 --root {root}")

    def offer(self, version: str) -> None:
        """Serve the repository that offers a version."""
        self.run("mountpoint -q /mnt/repositories || mount -o ro /dev/vdb /mnt/repositories")
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
        line = f"runuser -u modelward -- {PYTHON} -c '{OPEN}' {' '.join(arguments)}"
        version, count = json.loads(self.run(line))
        return version, count

    def wait(self, what: Callable[[], bool], seconds: float = 180) -> None:
        """Wait until something is so."""
        until = time.monotonic() + seconds
        while not what():
            assert time.monotonic() < until, self.run("journalctl -n 60 --no-pager", code=None)
            time.sleep(1)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    place = tmp_path_factory.mktemp("vm")
    yield place
    shutil.rmtree(place)  # gigabytes


@pytest.fixture(scope="module")
def debian(place: Path) -> image.Image:
    (place / "image").mkdir()
    return image.build(place / "image")


@pytest.fixture(scope="module")
def repositories(place: Path) -> Path:
    """A disk with a repository as it was when it offered each version."""
    world = LenientWorld(place, place)
    world.found()
    for version in VERSIONS:
        content = {"model.onnx": onnx_file(random.Random(version).randbytes(SIZE))}
        world.publish(version, bundle={**world.chain(version).content, **content})
        shutil.copytree(world.repository, place / "repositories" / version)
    image.make_disk(place / "repositories.disk", place / "repositories", 256 << 20)
    return place / "repositories.disk"


@pytest.fixture
def device(debian: image.Image, repositories: Path, tmp_path: Path) -> Iterator[Device]:
    with Device(debian, repositories, tmp_path) as device:
        device.set_up()
        yield device
    (tmp_path / "disk").unlink()


def test_the_kernel_checks_what_is_installed(device: Device) -> None:
    """fs-verity: found intact once, no byte of it need be read again, whatever boots."""
    assert device.modelward("update")["running"] == {MODEL: "1.0.0"}
    file = f"{STATE}/current/{MODEL}/model.onnx"
    assert "V" in device.run(f"lsattr $(readlink -f {file})").split()[0]
    assert "not permitted" in device.run(f"echo x >>{file}", code=None)  # by root, too
    assert device.open("strict")[1] > SIZE

    device.restart()
    version, count = device.open()
    print(f"opened after a reboot: {count} of {SIZE} bytes read")
    assert version == "1.0.0"
    assert count < SIZE / 4

    # Changed beneath the file system: the kernel refuses to hand it out.
    block = device.run(f'debugfs -R "bmap $(readlink -f {file}) 1000" /dev/vda 2>/dev/null')
    device.run(
        f"sync; dd if=/dev/urandom of=/dev/vda bs=4096 count=1 seek={int(block)} oflag=direct"
    )
    device.run("echo 3 >/proc/sys/vm/drop_caches")
    assert "Input/output error" in device.run(f"cat {file} >/dev/null", code=None)
    found = device.modelward("verify", code=None)
    assert found["outcome"] != "intact", found
    device.offer("1.0.0")
    device.modelward("verify --repair")
    assert device.modelward("verify")["outcome"] == "intact"
    device.run(f"cat {file} >/dev/null")
    assert device.open()[0] == "1.0.0"


def test_systemd_runs_it(device: Device) -> None:
    """The unit as it is printed: ready, reloaded, watched, and confined."""
    device.run(f'printf \'\\n[run]\\ninterval = "5s"\\njitter = "1s"\\n\' >>{STATE}/modelward.toml')
    unit = "/etc/systemd/system/modelward.service"
    device.run(f"modelward systemd --state {STATE} >{unit}; systemctl daemon-reload")
    device.run("systemctl start modelward")  # ends once it says that it is ready
    device.wait(lambda: device.running() == "1.0.0")
    show = "systemctl show modelward -P"
    assert device.run(f"{show} User").strip() == "modelward"
    assert device.run(f"{show} StatusText").strip()
    judged = device.run("systemd-analyze security modelward --threshold=20 --no-pager")
    print(judged.splitlines()[-1])

    device.offer("2.0.0")
    device.wait(lambda: device.running() == "2.0.0")
    device.run("systemctl reload modelward")
    assert device.run("systemctl is-active modelward").strip() == "active"

    device.run(f"mkdir {unit}.d; printf '[Service]\\nWatchdogSec=20s\\n' >{unit}.d/quick.conf")
    device.run("systemctl daemon-reload; systemctl restart modelward")
    main = device.run(f"{show} MainPID").strip()
    device.run(f"kill -STOP {main}")
    device.wait(lambda: device.run(f"{show} NRestarts").strip() == "1")
    device.offer("3.0.0")
    device.wait(lambda: device.running() == "3.0.0")
    device.run("systemctl stop modelward")
    assert device.run(f"{show} Result").strip() == "success"


def test_the_power_of_the_whole_machine_is_cut(device: Device) -> None:
    """In the middle of an update: what runs is old or new, and whole."""
    began = time.monotonic()
    device.modelward("update")
    taken, chance, runs = time.monotonic() - began, random.Random(12), VERSIONS[0]
    for new in VERSIONS[1:]:
        device.offer(new)
        device.begin(f"runuser -u modelward -- modelward update --state {STATE}")
        time.sleep(chance.uniform(0.5, 1.3) * taken)
        device.cut_power()
        device.start()
        print(f"cut on the way from {runs} to {new}: {device.running()} runs")
        assert device.running() in {runs, new}
        assert device.modelward("verify")["outcome"] == "intact"
        device.offer(new)
        assert device.modelward("update")["running"] == {MODEL: new}
        assert device.modelward("verify")["outcome"] == "intact"
        runs = new
