import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from modelward.daemon.notify import Notifier


@pytest.fixture(params=["path", "abstract"])
def listener(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[str, socket.socket]]:
    name = str(tmp_path / "notify") if request.param == "path" else f"@modelward-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(name.replace("@", "\0", 1) if name.startswith("@") else name)
        listening.settimeout(5)
        yield name, listening


def test_messages_arrive(listener: tuple[str, socket.socket]) -> None:
    name, listening = listener
    notifier = Notifier.of({"NOTIFY_SOCKET": name, "WATCHDOG_USEC": "2000000"}, os.getpid())
    assert notifier.watchdog == 2.0
    notifier.ready()
    notifier.status("one\nREADY=1")  # a server's words must not become a message of their own
    notifier.alive()
    notifier.reloading()
    notifier.stopping()
    got = [listening.recv(4096).decode() for _ in range(5)]
    assert got[0] == "READY=1"
    assert got[1] == "STATUS=one\\nREADY=1"
    assert got[2] == "WATCHDOG=1"
    assert got[3].startswith("RELOADING=1\nMONOTONIC_USEC=")
    assert got[4] == "STOPPING=1"


@pytest.mark.parametrize(
    "environment",
    [
        {},
        {"NOTIFY_SOCKET": ""},
        {"NOTIFY_SOCKET": "vsock:1:2", "WATCHDOG_USEC": "1000"},
        {"NOTIFY_SOCKET": "/nowhere/at/all", "WATCHDOG_USEC": "words"},
        {"NOTIFY_SOCKET": "/nowhere/at/all", "WATCHDOG_USEC": "1000", "WATCHDOG_PID": "1"},
    ],
)
def test_nobody_listens(environment: dict[str, str]) -> None:
    notifier = Notifier.of(environment, os.getpid())
    assert notifier.watchdog is None
    notifier.ready()
    notifier.alive()
