"""Gate 12 as it is delivered: a runtime, and models that fail in it, under the daemon's unit.

What the unit takes away from the daemon it takes from the trial's process, too, which has to take
away more of itself; whether both can be had at once only a running systemd can say.
"""

import re
import shutil
from pathlib import Path
from textwrap import dedent

import pytest

from tests.simulator.model_files import ECHO, onnx_file
from tests.simulator.world import World
from tests.vm import image
from tests.vm.device import PACKAGES, Device
from tests.vm.ill_models import endless, greedy

ONNX = "model.onnx"
TIMEOUT = 60  # seconds, of which an emulated processor needs some to load the runtime
WRONG = ECHO.replace(b"0.5", b"0.25", 1)  # what is asked; what is answered is not that
RELEASES: dict[str, dict[str, bytes]] = {
    "1.0.0": {},
    "1.1.0": {"golden.json": WRONG},
    "1.2.0": {ONNX: greedy(8 << 30)},  # more than it may take
    "1.3.0": {ONNX: greedy(900 << 20)},  # less than that, and more than the machine has
    "1.4.0": {ONNX: endless()},
    "1.5.0": {},  # the operator's command does not like it
    "2.0.0": {},
    "3.0.0": {},
    "4.0.0": {},
}
CHECK = """\
#!/bin/sh
# What it may touch is what the unit allows.
test -s $MODELWARD_PATH/model.onnx || exit 4
echo "$MODELWARD_MODEL $MODELWARD_VERSION" >>/var/lib/modelward/checked
test $MODELWARD_VERSION != 1.5.0 || { echo reads 7 as 1; exit 3; }
test ! -e /run/unwell
"""
# Stands in for a flaw in the runtime: instead of loading the model, it tries what it can do, by a
# thread that it has made as it was imported, too.
TAKEN_OVER = """\
import errno, os, queue, socket, sys, threading
sys.path.remove("/opt/taken_over")
del sys.modules["onnxruntime"]
import onnxruntime
asked, answered = queue.SimpleQueue(), queue.SimpleQueue()

def attempt(act):
    try:
        act()
    except OSError as error:
        return errno.errorcode[error.errno]
    return "DONE"

def obey():
    while True:
        act = asked.get()
        answered.put(attempt(act))

threading.Thread(target=obey, daemon=True).start()

def both(act):
    asked.put(act)
    return f"{answered.get()}/{attempt(act)}"

def look():
    yield "tcp", both(lambda: socket.create_connection(("127.0.0.1", 8080)))
    yield "unix", both(lambda: socket.socket(socket.AF_UNIX))
    lines = open("/proc/self/net/dev").read().splitlines()[2:]
    yield "interfaces", ",".join(line.split(":")[0].strip() for line in lines)
    yield "fork", both(os.fork)
    yield "kill", both(lambda: os.kill(os.getppid(), 9))
    yield "write", both(lambda: open("/var/lib/modelward/x", "w"))
    yield "parent", both(lambda: open(f"/proc/{os.getppid()}/environ").read())
    yield "secrets", str(len(os.environ.keys() & {"HOME", "NOTIFY_SOCKET", "SECRET"}))

def session(*_, **__):
    raise RuntimeError(" ".join("=".join(item) for item in look()))

onnxruntime.InferenceSession = session
"""


@pytest.fixture(scope="module")
def repositories(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A disk with a repository as it was when it offered each version."""
    place = tmp_path_factory.mktemp("repositories")
    world = World(place, place)
    world.found()
    for version, content in RELEASES.items():
        model = {ONNX: onnx_file(f"weights of {version}".encode())}
        world.publish(version, bundle={**world.chain(version).content, **model, **content})
        shutil.copytree(world.repository, place / "repositories" / version)
    image.make_disk(place / "repositories.disk", place / "repositories", 64 << 20)
    return place / "repositories.disk"


def supervised(device: Device, health: str = "") -> None:
    """Have the daemon in its unit take 1.0.0, tried by a runtime."""
    device.install_runtimes()
    device.run(f"cat >/usr/local/bin/check <<'END'\n{CHECK}END\nchmod 755 /usr/local/bin/check")
    device.configure(
        dedent(f"""
        [run]
        interval = "1h"
        jitter = "1s"
        verify = "never"
        [health]
        timeout = "{TIMEOUT}s"
        isolated = true
        command = ["/usr/local/bin/check"]
        {health}
        """)
    )
    device.start_daemon()
    device.wait(lambda: device.running() == "1.0.0")


def take_on_trial(device: Device) -> None:
    """Have 2.0.0 run on trial, for longer than the test, under a daemon that each boot starts."""
    supervised(device, 'soak = "10h"')
    device.modelward("confirm")
    device.run("systemctl enable modelward")
    offer(device, "2.0.0")
    device.wait(lambda: device.running() == "2.0.0")


def offer(device: Device, version: str) -> None:
    """Offer a version, and have the daemon look."""
    device.offer(version)
    device.run("systemctl kill -s USR1 --kill-who=main modelward")


def refused(device: Device, version: str) -> str:
    """Offer a version that is to fail; return why it did."""
    offer(device, version)
    reason = device.wait(lambda: device.failed().get(version))
    assert device.running() == "1.0.0"
    assert device.open("strict")[0] == "1.0.0"
    return str(reason)


def said(device: Device, text: str) -> str:
    """Return the last line of the daemon's log with a text."""
    line = f"journalctl -u modelward -o cat --no-pager | grep -F '{text}' | tail -n 1"
    return device.run(line).strip()


def judged(device: Device) -> bool:
    """Tell whether the daemon judged what is on trial since this boot."""
    return bool(device.run("journalctl -b -u modelward -o cat | grep 'on trial until'", code=None))


def test_what_fails_under_the_unit_is_rolled_back(device: Device) -> None:
    supervised(device)
    found = said(device, "meter-reader 1.0.0: model.onnx")
    print(found)
    assert "model.onnx loaded by onnxruntime" in found
    assert "1 golden cases answered as expected" in found
    assert "no network: network namespace and seccomp" in found
    assert "no writing (landlock); no other processes (seccomp)" in found
    assert device.run("tail -n 1 /var/lib/modelward/checked") == "meter-reader 1.0.0\n"
    main = device.run("systemctl show modelward -P MainPID")

    for version, reason in {
        "1.1.0": r"the output 'y' differs from the golden one in 1 of 1 elements",
        "1.2.0": r"running golden case 1 of 1 failed: exit status 1: .*(bfc_arena|bad_alloc)",
        "1.3.0": r"running golden case 1 of 1 failed: killed by SIGKILL",
        "1.4.0": rf"running golden case 1 of 1 took longer than {TIMEOUT} seconds",
        "1.5.0": r"the command '/usr/local/bin/check' says no: exit status 3: reads 7 as 1",
    }.items():
        why = refused(device, version)
        print(f"{version}: {why}")
        assert re.search(reason, why), why
    # It never went down itself, not even as the machine's memory ran out.
    assert device.run("systemctl show modelward -P MainPID") == main

    offer(device, "2.0.0")
    device.wait(lambda: device.running() == "2.0.0")
    assert device.open("strict")[0] == "2.0.0"


def test_a_runtime_that_is_taken_over_can_do_nothing(device: Device) -> None:
    """Seen from inside the trial, under the unit: attack row 30."""
    supervised(device)
    device.run("ip link add name outside type dummy; mkdir /opt/taken_over")
    device.run(f"cat >/opt/taken_over/onnxruntime.py <<'END'\n{TAKEN_OVER}END")
    path = 'import sys; sys.path.insert(0, "/opt/taken_over")'
    device.run(f"echo '{path}' >{PACKAGES}/taken_over.pth")
    why = refused(device, "1.1.0")
    print(why)
    assert "tcp=EPERM/EPERM unix=EPERM/EPERM interfaces=lo fork=EPERM/EPERM kill=EPERM/EPERM" in why
    assert "write=EACCES/EACCES parent=ENOENT/ENOENT secrets=0" in why


def test_a_device_that_starts_unwell_goes_back_by_itself(device: Device) -> None:
    """A soak that a real boot ends: nobody is there who could tell it to."""
    take_on_trial(device)
    unwell = "d /run/unwell"  # what a driver that does not come up with the model might leave
    device.run(f"echo '{unwell}' >/etc/tmpfiles.d/unwell.conf")
    device.restart()
    device.wait(lambda: device.running() == "1.0.0")
    assert "says no" in device.failed()["2.0.0"]
    assert device.open("strict")[0] == "1.0.0"


def test_a_device_that_keeps_dying_goes_back_by_itself(device: Device) -> None:
    """Whatever it dies of leaves no word: four starts that nobody saw well are enough."""
    take_on_trial(device)
    starts = 0
    while device.running() == "2.0.0":
        device.cut_power()
        device.start()
        starts += 1
        assert starts < 6
        device.wait(lambda: device.running() == "1.0.0" or judged(device))
    print(f"went back at start {starts}: {device.failed()['2.0.0']}")
    assert starts == 4
    assert device.open("strict")[0] == "1.0.0"
