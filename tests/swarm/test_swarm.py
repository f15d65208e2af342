"""Devices behind one slow uplink fetch a release across it about once."""

import re
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from threading import Lock
from typing import Any

import pytest

from tests.repo_tools.site import Site
from tests.simulator.server import Server
from tests.swarm.devices import Device, update_all
from tests.swarm.site import MODEL, make_site, safetensors

SIZE = 4_000_000  # bytes of weights
RATE = 1_500_000  # bytes a second of the uplink


class Uplink(Server):
    """Serves a repository over a line that carries one answer at a time, slowly.

    Attributes:
        crossed: Bytes of blobs that went over it.
    """

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self._directory = directory
        self._line = Lock()
        self.crossed = 0

    def _answer(self, environ: Any, start_response: Any) -> Any:
        path = environ["PATH_INFO"]
        if path.startswith("/blobs/"):
            extent = re.fullmatch(r"bytes=(\d+)-(\d+)", environ.get("HTTP_RANGE", ""))
            whole = (self._directory / path[1:]).stat().st_size
            length = int(extent[2]) - int(extent[1]) + 1 if extent else whole
            with self._line:
                self.crossed += length
                time.sleep(length / RATE)
        return super()._answer(environ, start_response)


@pytest.fixture
def site(tmp_path: Path) -> Site:
    """A repository that offers one release."""
    return make_site(tmp_path, SIZE)


@pytest.fixture
def uplink(site: Site) -> Iterator[Uplink]:
    with Uplink(site.directory) as uplink:
        yield uplink


def neighbourhood(
    place: Path, count: int, uplink: str, root: Path, stack: ExitStack
) -> list[Device]:
    """Return devices that all serve, and all know each other."""
    devices = [Device(place / f"device-{number}") for number in range(count)]
    for device in devices:
        device.init(uplink, root)
        stack.enter_context(device.serving("127.0.0.1"))
    for device in devices:
        device.know([other.url for other in devices])  # itself among them: it finds that out
    return devices


def test_devices_that_update_at_once_share_the_uplink(tmp_path, site, uplink):
    with ExitStack() as stack:
        root = site.directory / "metadata/1.root.json"
        devices = neighbourhood(tmp_path, 4, uplink.url, root, stack)
        before = time.monotonic()
        told = update_all(devices)
        print(f"{uplink.crossed / SIZE:.2f} x the weights in {time.monotonic() - before:.1f} s")
    assert [each["running"] for each in told] == [{MODEL: "1.0.0"}] * 4
    weights = safetensors(SIZE, 1)
    for device in devices:
        assert (device.state / f"current/{MODEL}/model.safetensors").read_bytes() == weights
    assert uplink.crossed <= 1.3 * SIZE
