"""A device as it is delivered: Debian 12 with its kernel and systemd, and the client in it.

What no test on this machine can show: fs-verity, the unit under a running systemd, reboots, and
cuts of the power of a whole machine. Needs root; the processor may be emulated, so it takes
minutes: `make vm`.
"""

import contextlib
import io
import random
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from modelward_repo import cli as repo_tools
from tests.simulator.model_files import onnx_file
from tests.simulator.world import MODEL, LenientWorld
from tests.vm import image
from tests.vm.device import MOUNT, OPEN, PYTHON, STATE, UNIT, Device

SIZE = 8 << 20  # bytes of weights
CUTS = 3
VERSIONS = tuple(f"{number}.0.0" for number in range(1, 6))


@pytest.fixture(scope="module")
def repositories(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A disk with a repository as it was when it offered each version."""
    place = tmp_path_factory.mktemp("repositories")
    world = LenientWorld(place, place)
    world.found()
    for version in VERSIONS:
        content = {"model.onnx": onnx_file(random.Random(version).randbytes(SIZE))}
        world.publish(version, bundle={**world.chain(version).content, **content})
        shutil.copytree(world.repository, place / "repositories" / version)
        export = ["export", "--repository", str(world.repository)]
        target = f"{place}/repositories/sticks/{version}"
        with contextlib.redirect_stdout(io.StringIO()):
            assert repo_tools.run([*export, "--to", target]) == 0
    image.make_disk(place / "repositories.disk", place / "repositories", 512 << 20)
    return place / "repositories.disk"


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
    device.configure('[run]\ninterval = "5s"\njitter = "1s"')
    device.start_daemon()
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

    device.run(f"mkdir {UNIT}.d; printf '[Service]\\nWatchdogSec=20s\\n' >{UNIT}.d/quick.conf")
    device.run("systemctl daemon-reload; systemctl restart modelward")
    main = device.run(f"{show} MainPID").strip()
    device.run(f"kill -STOP {main}")
    device.wait(lambda: device.run(f"{show} NRestarts").strip() == "1")
    device.offer("3.0.0")
    device.wait(lambda: device.running() == "3.0.0")
    device.run("systemctl stop modelward")
    assert device.run(f"{show} Result").strip() == "success"


def test_an_overlay_is_believed_as_what_it_writes_to(device: Device) -> None:
    """As over a read-only system: what is written to it by whatever way shows on this kernel."""
    folders = "/opt/upper /opt/work"
    device.run(f"mkdir {folders}; chown modelward: {folders}")
    layers = f"lowerdir={STATE},upperdir=/opt/upper,workdir=/opt/work"
    device.run(f"mount -t overlay overlay -o {layers} {STATE}")
    device.modelward("update")
    device.run("sleep 3")  # else what changed just now is hashed again
    assert device.open()[1] > SIZE
    assert device.open()[1] < SIZE / 4
    path = f"{STATE}/current/{MODEL}/model.onnx"
    device.run(
        f'{PYTHON} -c \'import mmap; file = open("{path}", "r+b"); '
        'mmap.mmap(file.fileno(), 0)[-8:] = b"poisoned"\''
    )
    assert "Refused" in device.run(f"runuser -u modelward -- {OPEN}", code=1)


def test_the_power_of_the_whole_machine_is_cut(device: Device) -> None:
    """In the middle of an update: what runs is old or new, and whole."""
    taken = timed(lambda: device.modelward("update"))
    chance, runs = random.Random(12), VERSIONS[0]
    for new in VERSIONS[1:]:
        device.offer(new)
        cut(device, "update", chance.uniform(0.5, 1.3) * taken)
        print(f"cut on the way from {runs} to {new}: {device.running()} runs")
        assert device.running() in {runs, new}
        assert device.modelward("verify")["outcome"] == "intact"
        device.offer(new)
        assert device.modelward("update")["running"] == {MODEL: new}
        assert device.modelward("verify")["outcome"] == "intact"
        runs = new


def test_the_power_is_cut_while_a_stick_is_imported(device: Device) -> None:
    device.run("systemctl stop repository")
    taken = timed(lambda: device.modelward(f"import {stick(VERSIONS[0])}"))
    chance, runs = random.Random(13), VERSIONS[0]
    for new in VERSIONS[1:]:
        cut(device, f"import {stick(new)}", chance.uniform(0.5, 1.3) * taken)
        print(f"cut while {new} was imported over {runs}: {device.running()} runs")
        assert device.running() in {runs, new}
        assert device.modelward("verify")["outcome"] == "intact"
        device.run(MOUNT)
        assert device.modelward(f"import {stick(new)}")["running"] == {MODEL: new}
        runs = new


def test_the_power_is_cut_while_damage_is_mended(device: Device) -> None:
    device.modelward("update")
    device.offer(VERSIONS[1])
    device.modelward("update")

    def damage() -> None:
        """Put other bytes in the place of every large file that is kept."""
        device.run(
            f"for path in $(find {STATE}/store {STATE}/slots -type f -size +1M); do "
            f"head -c {SIZE} /dev/urandom >$path.new; mv $path.new $path; "
            "chown modelward: $path; done"
        )
        assert device.modelward("verify", code=None)["outcome"] == "damaged"

    damage()
    taken = timed(lambda: device.modelward("verify --repair"))
    chance = random.Random(14)
    for _ in range(CUTS):
        damage()
        cut(device, "verify --repair", chance.uniform(0.4, 1.2) * taken)
        problems = len(device.modelward("verify", code=None)["problems"])
        print(f"cut while damage was mended: {problems} problems are left")
        device.offer(VERSIONS[1])
        device.modelward("verify --repair")
        assert device.modelward("verify")["outcome"] == "intact"
        assert device.open("strict")[0] == VERSIONS[1]


def test_the_power_is_cut_while_room_is_made(device: Device) -> None:
    device.modelward("update")
    chance, taken = random.Random(15), timed(lambda: device.modelward("gc"))
    for _ in range(CUTS):
        # What a channel no longer offers, and what an update that was killed left.
        device.run(
            f"cd {STATE}; for number in $(seq 200); do name=$(printf %064d $number); "
            "head -c 40000 /dev/urandom >store/$name; cp store/$name store/.partial/$name; done; "
            "chown -R modelward: store"
        )
        cut(device, "gc", chance.uniform(0.7, 1.1) * taken)
        left = device.run(f"ls {STATE}/store | wc -l").strip()
        print(f"cut while room was made: {left} blobs are left")
        device.modelward("gc")
        assert int(device.run(f"ls {STATE}/store | wc -l")) < 20
        assert device.modelward("verify")["outcome"] == "intact"
        assert device.open("strict")[0] == VERSIONS[0]


def stick(version: str) -> str:
    """Return where the bundle of a version is, in the machine."""
    return f"/mnt/repositories/sticks/{version}"


def timed(act: Callable[[], object]) -> float:
    """Return the seconds that something takes."""
    began = time.monotonic()
    act()
    return time.monotonic() - began


def cut(device: Device, command: str, seconds: float) -> None:
    """Begin a command, cut the power after some time, and start the device again."""
    device.begin(f"runuser -u modelward -- modelward {command} --state {STATE}")
    time.sleep(seconds)
    device.cut_power()
    device.start()
