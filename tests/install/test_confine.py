"""What a confined process can no longer do: asked of real processes, on this very kernel."""

import json
import os
import platform
import subprocess
import sys

import pytest

BEGIN = """
import json, mmap, os, socket, subprocess, sys, threading
from queue import SimpleQueue
from modelward.install.confine import Limits, confine, leave
user = (65534, 65534) if os.geteuid() == 0 else None
left = leave()
asked, answered = SimpleQueue(), SimpleQueue()
def attempt(act):
    try:
        return act() or "done"
    except BaseException as error:
        return type(error).__name__
def obey():
    while True:
        answered.put(attempt(asked.get()))
# As a runtime makes one when it is imported.
threading.Thread(target=obey, daemon=True).start()
def in_thread(act):
    asked.put(act)
    return answered.get(timeout=30)
held = confine(Limits(memory=256 << 20, seconds=5, user=user), left)
"""
KNOWN = platform.machine() in ("x86_64", "aarch64")


def confined(script: str) -> str:
    done = subprocess.run(
        [sys.executable, "-I", "-c", f"{BEGIN}\nprint({script})"],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done
    return done.stdout.strip()


def test_it_says_what_is_in_force():
    network, others = json.loads(confined("json.dumps([held.network, held.others])"))
    assert set(network) <= {"network namespace", "seccomp"}
    assert network, "neither a network namespace nor seccomp on this kernel"
    if KNOWN:
        assert "seccomp" in network
        assert "no other processes (seccomp)" in others


@pytest.mark.skipif(not KNOWN, reason="no filter of system calls for this machine")
@pytest.mark.parametrize(
    "act",
    [
        "socket.socket()",
        "socket.socket(socket.AF_UNIX)",
        "subprocess.run(['/bin/true'])",
        "os.fork()",
        "os.execv('/bin/true', ['true'])",
        "os.kill(os.getppid(), 9)",
    ],
)
@pytest.mark.parametrize("by", ["attempt", "in_thread"])
def test_forbidden(act, by):
    assert confined(f"{by}(lambda: {act})") in ("PermissionError", "BlockingIOError")


@pytest.mark.parametrize("by", ["attempt", "in_thread"])
@pytest.mark.parametrize("place", ["/tmp/modelward-confined", "/dev/shm/modelward-confined"])
def test_nothing_is_written(place, by):
    result = confined(f"{by}(lambda: open('{place}', 'w').write('x' * 100_000))")
    assert result in ("PermissionError", "OSError")
    if os.path.exists(place):  # noqa: PTH110 - where landlock is not there, its length is limited
        assert os.path.getsize(place) == 0  # noqa: PTH202
        os.unlink(place)  # noqa: PTH108


def test_memory_runs_out():
    assert confined("attempt(lambda: len(bytearray(1 << 30)))") == "MemoryError"
    assert confined("attempt(lambda: len(bytearray(1 << 20)))") == str(1 << 20)


def test_threads_may_be_made():
    thread = "threading.Thread(target=print)"
    assert confined(f"attempt(lambda: (t := {thread}).start() or t.join() or 'joined')") == "joined"


def test_files_that_were_open_can_be_read():
    path = "f'/proc/self/fd/{fd}'"
    script = f"(fd := os.open('/etc/hostname', 0)) and attempt(lambda: len(open({path}).read()))"
    assert int(confined(script)) >= 0


@pytest.mark.skipif(os.geteuid() != 0, reason="only root becomes somebody else")
def test_root_is_given_up():
    assert confined("os.getresuid(), os.getresgid(), os.getgroups()") == (
        "(65534, 65534, 65534) (65534, 65534, 65534) []"
    )
    assert confined("attempt(lambda: os.setuid(0))") == "PermissionError"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has capabilities to lack")
def test_a_root_without_capabilities_is_confined_all_the_same():
    bare = ["setpriv", "--bounding-set=-all", "--inh-caps=-all", sys.executable, "-I", "-c"]
    script = f"{BEGIN}\nprint(held.others, attempt(socket.socket))"
    done = subprocess.run([*bare, script], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done
    assert "unprivileged user" not in done.stdout
    assert "PermissionError" in done.stdout or not KNOWN


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has capabilities to lack")
def test_a_root_that_may_not_make_networks_becomes_another_user_all_the_same():
    bare = ["setpriv", "--bounding-set=-sys_admin", "--inh-caps=-sys_admin"]
    script = f"{BEGIN}\nprint(held.others, attempt(lambda: open('/etc/shadow').read()))"
    command = [*bare, sys.executable, "-I", "-c", script]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done
    assert "unprivileged user" in done.stdout
    assert "PermissionError" in done.stdout


def test_processor_time_runs_out():
    done = subprocess.run(
        [sys.executable, "-I", "-c", BEGIN.replace("seconds=5", "seconds=1") + "while True: pass"],
        capture_output=True,
        check=False,
        timeout=100,
    )
    assert done.returncode < 0
