"""The same over a network of namespaces: ten devices, 16 Mbit/s for all, every byte counted."""

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from tests.repo_tools.site import Site
from tests.swarm.devices import Device, update_all
from tests.swarm.network import UPLINK, Network, network, problem
from tests.swarm.site import MODEL, make_site, safetensors

PROBLEM = problem()
pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(600),
    pytest.mark.skipif(PROBLEM is not None, reason=str(PROBLEM)),
]
DEVICES = 10
SIZE = 16_000_000  # bytes
MOST = 1.3  # times the release's bytes may cross the uplink


@contextmanager
def repository(site: Site, network: Network) -> Iterator[str]:
    """Serve the repository behind the uplink, with the real server."""
    command = [*network.within_uplink(), sys.executable, "-m", "modelward_repo", "serve"]
    process = subprocess.Popen(
        [*command, str(site.directory), "--host", UPLINK, "--port", "8080"],
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout
        assert process.stdout.readline().startswith("serving ")
        yield f"http://{UPLINK}:8080"
    finally:
        process.terminate()
        process.communicate(timeout=30)


@contextmanager
def devices(place: Path, site: Site, network: Network, url: str) -> Iterator[list[Device]]:
    made = [
        Device(place / f"device-{number}", network.within(number))
        for number in range(network.count)
    ]
    root = site.directory / "metadata/1.root.json"
    with ExitStack() as stack:
        for number, device in enumerate(made):
            device.init(url, root)
            stack.enter_context(device.serving(network.address(number)))
        yield made


def test_ten_devices_fetch_a_release_about_once(tmp_path):
    site = make_site(tmp_path, SIZE)
    with (
        network(DEVICES, "16mbit") as net,
        repository(site, net) as url,
        devices(tmp_path, site, net, url) as all_of_them,
    ):
        for device in all_of_them:
            device.know([other.url for other in all_of_them])
        before, began = net.sent(), time.monotonic()
        told = update_all(all_of_them, 500)
        crossed = net.sent() - before
        print(
            f"\n{DEVICES} devices, {SIZE / 1e6:.0f} MB: {crossed / SIZE:.2f} x across the uplink "
            f"in {time.monotonic() - began:.0f} s"
        )
    assert [each["running"] for each in told] == [{MODEL: "1.0.0"}] * DEVICES
    weights = safetensors(SIZE, 1)
    for device in all_of_them:
        assert (device.state / f"current/{MODEL}/model.safetensors").read_bytes() == weights
    assert crossed <= MOST * SIZE


def test_devices_find_each_other(tmp_path):
    """By mDNS: the second one has everything from the first, whom nobody named to it."""
    pytest.importorskip("zeroconf")
    site = make_site(tmp_path, 1_000_000)
    with network(2, "16mbit") as net, repository(site, net) as url:
        root = site.directory / "metadata/1.root.json"
        made = [Device(tmp_path / f"device-{n}", net.within(n)) for n in range(2)]
        for device in made:
            device.init(url, root)
            device.know([], discover=True)
        with ExitStack() as stack:
            for number, device in enumerate(made):
                stack.enter_context(device.serving(net.address(number)))
            for device, other in zip(made, made[::-1], strict=True):
                _wait_for(device, other.url)
            update_all(made[:1])
            before = net.sent()
            update_all(made[1:])
            assert net.sent() - before < 500_000
        assert not (made[0].state / "neighbours.json").exists()

        assert not any(device.said for device in made)


@pytest.mark.parametrize("missing", ["cable", "address"])
def test_devices_find_each_other_wherever_they_are_by_then(tmp_path, missing):
    """Started without a network, which comes later; then one gets another address."""
    pytest.importorskip("zeroconf")
    with network(2, "16mbit") as net:
        made = [
            Device(tmp_path / f"device-{n}", net.within(n), program=("-c", LOOKS_OFTEN))
            for n in range(2)
        ]
        root = make_site(tmp_path, 1_000).directory / "metadata/1.root.json"
        for number, device in enumerate(made):
            device.init("http://127.0.0.1:9", root)
            device.know([], discover=True)
            net.unplug(number)
            if missing == "address":
                net.forget(number)
        with ExitStack() as stack:
            for device in made:
                stack.enter_context(device.serving("0.0.0.0"))
            ports = [device.url.rpartition(":")[2] for device in made]
            time.sleep(20)  # mDNS asks at the start, for so long
            for number in range(2):
                net.plug_in(number, net.address(number))
            for number, device in enumerate(made):
                _wait_for(device, f"http://{net.address(1 - number)}:{ports[1 - number]}")
            net.forget(1)
            net.plug_in(1, "10.77.0.99")
            while f"http://10.77.0.99:{ports[1]}" not in _found(made[0]):
                time.sleep(0.1)  # where it was before, it is tried for a while
            _wait_for(made[1], f"http://{net.address(0)}:{ports[0]}")
    for device in made:  # the one that moved may have said it twice
        assert device.said.count("neighbours cannot be found by mDNS for now") in (1, 2)
        assert "Traceback" not in device.said


LOOKS_OFTEN = """
import sys
from modelward.cli import main
from modelward.serve import discovery
discovery.LOOK = 0.5
sys.exit(main(sys.argv[1:]))
"""


def _wait_for(device: Device, url: str) -> None:
    while _found(device) != [url]:  # pytest's own time-out ends this
        time.sleep(0.1)


def _found(device: Device) -> list[str]:
    try:
        return list(json.loads((device.state / "neighbours.json").read_text())["urls"])
    except OSError:
        return []
