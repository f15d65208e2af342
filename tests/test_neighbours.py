"""Devices near each other: they compare what they saw of the log, and spare each other the uplink.

Two real devices; one serves, the other updates. What a swarm of them does is in tests/swarm.
"""

import contextlib
import hashlib
import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import IPv4Address, IPv4Interface
from pathlib import Path
from threading import Thread

import pytest
from werkzeug.wrappers import Response

from modelward import neighbours
from modelward.config import from_settings, load
from modelward.config.neighbours import MAX_URLS, PORT, NeighbourSettings
from modelward.device import Device
from modelward.errors import ExitCode, UsageError
from modelward.formats.release import Release
from modelward.install import neighbours as found
from modelward.serve import discovery, run
from modelward.serve.heard import STALE, Heard
from modelward.transfer.http import Http
from modelward.transfer.neighbour import PATIENCE, Neighbour
from modelward.transfer.sources import HttpSource, Sources
from tests.simulator.ledger import LoggedWorld, LogThief
from tests.simulator.log import Log, leaf
from tests.simulator.model_files import onnx_file
from tests.simulator.server import Server, instead
from tests.simulator.world import MODEL, World, bundle_of
from tests.transfer.serving import BlobServer, blob_of, index_of

NOWHERE = "http://127.0.0.1:9"  # refused at once


@pytest.fixture(scope="session")
def quiet_world(quiet_logged_world: LoggedWorld) -> LoggedWorld:
    return quiet_logged_world


@pytest.fixture
def twin(quiet_world: LoggedWorld, tmp_path: Path) -> LoggedWorld:
    """The other device, which serves; its copy of the repository is the one of before."""
    return quiet_world.copy(tmp_path / "twin")


@contextmanager
def near(world: World, twin: World) -> Iterator[str]:
    """Let one device serve, and the other know where."""
    with run.serving(Device(load(twin.device, {})), "127.0.0.1", 0) as url:
        know(world, url)
        yield url


def know(world: World, url: str) -> None:
    with (world.device / "modelward.toml").open("a") as file:
        file.write(f'\n[neighbours]\nurls = ["{url}"]\n')


# --- gossip ---------------------------------------------------------------------------------------


def test_a_neighbour_exposes_a_freeze_in_the_same_update(world, twin, server):
    world.log_anew(2)
    assert twin.client_here("update", server).code == ExitCode.DONE
    with near(world, twin), twin.serve() as frozen:
        assert world.client_here("update", frozen).code == ExitCode.DONE
    told = world.client_here("status")
    assert told.code == ExitCode.REFUSED
    assert "others have seen 9 leaves" in told.json["log"]["freeze"]


def test_whoever_asks_tells_as_well(world, twin, server):
    """The one that serves learns that there is more, and does not rest on its fast path."""
    with twin.serve() as frozen:
        assert twin.client_here("update", frozen).code == ExitCode.DONE
        world.log_anew(2)
        world.client_here("update", server)
        with near(world, twin):
            world.log_anew()
            assert world.client_here("update", server).code == ExitCode.DONE
        assert twin.client_here("status").json["log"]["heard"] == 9  # what it had seen by then
        frozen.requests.clear()
        assert twin.client_here("update", frozen).code == ExitCode.DONE
        assert len(frozen.requests) > 1
    assert "others have seen 9 leaves" in twin.client_here("status").json["log"]["freeze"]


def test_both_keep_evidence_of_a_split_view(world, twin, server):
    """Each was shown another tree of 8 leaves by the same log: both find out, and refuse."""
    entries = twin.log().entries
    fork = Log(entries)
    fork.append(leaf(999))
    thief = LogThief(twin, ("repository/timestamp",))
    thief.prove(_ending(fork, thief))
    with twin.serve() as forked:
        assert twin.client_here("update", forked).code == ExitCode.DONE
    world.log_anew()
    assert world.client_here("update", server).code == ExitCode.DONE
    with near(world, twin):
        world.offer("1.0.0")
        done = world.client_here("update", server)
    assert (done.code, done.json["gate"]) == (ExitCode.REFUSED, "log")
    for device in (world, twin):
        told = device.client_here("status")
        assert told.code == ExitCode.REFUSED
        assert [kept["verdict"] for kept in told.json["log"]["evidence"]] == ["split view"]


def _ending(log: Log, thief: LogThief) -> Log:
    """Return a log whose last leaf is of what the thief serves."""
    return Log([*log.entries[:-1], thief.leaf().to_bytes()])


@contextmanager
def answering(answer: bytes) -> Iterator[str]:
    """Send the same bytes to whoever asks for anything."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            with contextlib.suppress(OSError):
                while True:
                    connection, _ = listener.accept()
                    with connection:
                        connection.recv(1 << 16)
                        connection.sendall(answer)

        Thread(target=serve, daemon=True).start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        listener.shutdown(socket.SHUT_RDWR)


ILL_FORMED = b"HTTP/1.1 200 OK\r\nContent-Type: multipart/x; a*=1; a*0=2\r\n\r\n"


@pytest.mark.parametrize("table", ["neighbours]\nurls", "transfer]\nmirrors"])
def test_headers_that_no_parser_gets_over_stop_nothing(world, server, table):
    world.publish("1.1.0")
    with answering(ILL_FORMED) as url:
        with (world.device / "modelward.toml").open("a") as file:
            file.write(f'\n[{table} = ["{url}"]\n')
        done = world.client_here("update", server)
        assert done.json["running"] == {MODEL: "1.1.0"}, done
        assert world.client_here("verify", None, "--repair").code == ExitCode.DONE


@pytest.mark.parametrize("answer", [b"", b"nonsense", b"x" * 300_000])
def test_a_neighbour_that_talks_nonsense(world, server, answer):
    with Server(world.repository) as odd:
        odd.lie("/", instead(answer))
        know(world, odd.url)
        world.publish("1.1.0")
        done = world.client_here("update", server)
    assert (done.code, done.json["running"]) == (ExitCode.DONE, {MODEL: "1.1.0"})


# --- bytes ----------------------------------------------------------------------------------------


def test_gathering_can_be_stopped_although_nothing_arrives(world, twin):
    """The deadline of an update and its windows are looked at where progress is told."""

    class StopError(Exception):
        pass

    def progress(count: int) -> None:
        if not count:
            raise StopError

    for path in twin.device.glob("device.*"):
        path.unlink()  # or it would seem to be this very device
    data = bytes(200_000)
    blob, index = blob_of(data), index_of(data).to_bytes()
    with near(world, twin) as url, Http(PATIENCE) as http:
        device = Device(load(world.device, {}))
        device.store.add(blob_of(index), [memoryview(index)])
        sources = Sources([HttpSource(NOWHERE, http), Neighbour(url, http)])
        with pytest.raises(StopError):
            neighbours.gather(
                device, sources, blob, blob_of(index), cost=blob.length, progress=progress
            )


def test_a_neighbour_that_runs_another_model_does_not_cost_the_file(world, twin):
    """A patch would do, and is dearer than a sixth: it pays only with who wants the file, too."""
    for path in twin.device.glob("device.*"):
        path.unlink()  # or it would seem to be this very device
    data = bytes(200_000)
    blob, index = blob_of(data), index_of(data).to_bytes()
    origin = BlobServer(data)
    with near(world, twin) as url, Http(PATIENCE) as http:
        device = Device(load(world.device, {}))
        device.store.add(blob_of(index), [memoryview(index)])
        away = [Neighbour(f"http://127.0.0.1:{port}", http) for port in (9, 10, 11, 12)]
        sources = Sources([HttpSource(origin.url, http), Neighbour(url, http), *away])
        assert not neighbours.gather(
            device, sources, blob, blob_of(index), cost=45_000, progress=lambda _: None
        )
        origin.close()
    assert not origin.sent


def test_blobs_come_from_the_neighbour_that_has_them(world, twin, server):
    world.publish("1.1.0")
    assert twin.client_here("update", server).code == ExitCode.DONE
    with near(world, twin):
        server.requests.clear()
        done = world.client_here("update", server)
    assert done.json["running"] == {MODEL: "1.1.0"}
    assert not server.asked("/blobs/")
    assert server.asked("/metadata/timestamp.json")
    assert world.read_model() == ("1.1.0", world.offered)


def test_a_neighbour_that_is_not_there(world, server):
    know(world, NOWHERE)
    world.publish("1.1.0")
    assert world.client_here("update", server).json["running"] == {MODEL: "1.1.0"}


def test_everything_comes_from_a_neighbour_where_the_repository_is_not_to_be_had(
    world, twin, server
):
    """It passes the same gates as from the repository: nobody trusts the neighbour."""
    (twin.device / "targets").mkdir()
    world.publish("1.1.0")
    assert twin.client_here("update", server).code == ExitCode.DONE
    with near(world, twin):
        done = world.client_here("update", None, "--repository", NOWHERE)
    assert (done.code, done.json["running"]) == (ExitCode.DONE, {MODEL: "1.1.0"}), done
    assert world.read_model() == ("1.1.0", world.offered)


def big_release(world: World, twin: World, server: Server) -> Path:
    """Publish a release and install it on both devices; return its largest file, damaged."""
    weights = onnx_file(os.urandom(3 << 20))
    world.publish("1.1.0", bundle=bundle_of("1.1.0") | {"model.onnx": weights}, cheaply=True)
    know(twin, NOWHERE)  # with one source only, it would not have fetched the chunk index
    for each in (twin, world):
        assert each.client_here("update", server).code == ExitCode.DONE
    path = world.device / "store" / hashlib.sha256(weights).hexdigest()
    path.chmod(0o600)
    path.write_bytes(bytes(len(weights)))
    server.requests.clear()
    return path


def test_a_large_file_is_mended_from_a_neighbour(world, twin, server):
    """Not over the uplink, nor not at all where the repository is away."""
    path = big_release(world, twin, server)
    repository(world, NOWHERE)
    with near(world, twin):
        done = world.client_here("verify", None, "--repair")
    assert (done.code, done.json["outcome"]) == (ExitCode.DONE, "repaired"), done
    assert path.stat().st_size < done.json["fetched"] < path.stat().st_size * 33 // 32  # the index
    assert not server.asked("/blobs/")
    assert world.read_model() == ("1.1.0", world.offered)


@pytest.mark.parametrize("status", [200, 404])
def test_a_file_is_mended_from_who_has_no_good_chunk_index_of_it(world, twin, server, status):
    path = big_release(world, twin, server)
    release = Release.parse((slot(world) / "release.json").read_bytes())
    (chunks,) = (file.chunks for file in release.files if file.blob.sha256 == path.name)
    assert chunks is not None
    for each in (twin, world):
        (each.device / "store" / chunks.sha256).unlink(missing_ok=True)
    server.lie(".*" + chunks.sha256, lambda _: Response(b"no index", status))
    repository(world, server.url)
    with near(world, twin):
        done = world.client_here("verify", None, "--repair")
    assert (done.code, done.json["outcome"]) == (ExitCode.DONE, "repaired"), done
    assert server.asked(".*" + chunks.sha256)
    assert world.read_model() == ("1.1.0", world.offered)


def repository(world: World, url: str) -> None:
    (world.device / "modelward.toml").write_text(f'repository = "{url}"\ndevice_id = "test"\n')


def slot(world: World) -> Path:
    return (world.device / "current" / MODEL).resolve().parent


# --- settings and what was found ------------------------------------------------------------------


def settings(**table: object) -> NeighbourSettings:
    return NeighbourSettings.parse(table)


def test_settings():
    assert settings() == NeighbourSettings((), discover=False, host="0.0.0.0", port=PORT)
    assert settings(urls=["http://10.0.0.7:8648/"]).urls == ("http://10.0.0.7:8648",)
    for wrong in (
        {"urls": ["ftp://x"]},
        {"urls": "x"},
        {"urls": ["http://10.0.0.1"] * (MAX_URLS + 1)},
        {"port": 65_536},
        {"discover": 1},
        {"secret": "x"},
    ):
        with pytest.raises(UsageError):
            settings(**wrong)


def test_neighbours_that_were_found(tmp_path):
    table = {"urls": ["http://10.0.0.1:1"], "discover": True}
    device = Device(
        from_settings(
            tmp_path, {"repository": "http://x.example", "device_id": "x", "neighbours": table}
        )
    )
    assert neighbours.urls(device) == ("http://10.0.0.1:1",)
    found.write(tmp_path, ("http://10.0.0.2:2", "http://10.0.0.1:1"))
    assert neighbours.urls(device) == ("http://10.0.0.1:1", "http://10.0.0.2:2")
    found.write(tmp_path, ("http://10.0.0.5:0", "file:///x", "http://10.0.0.2:2"))
    assert neighbours.urls(device) == ("http://10.0.0.1:1", "http://10.0.0.2:2")
    for damaged in (b"", b"[]", b'{"schema":"modelward/neighbours/1","urls":["file:///x"]}'):
        (tmp_path / found.FILE).write_bytes(damaged)
        assert neighbours.urls(device) == ("http://10.0.0.1:1",)
    found.clear(tmp_path)
    assert not (tmp_path / found.FILE).exists()


def test_those_found_first_are_always_asked_and_others_in_turn(tmp_path):
    """Whoever announces more than are asked shuts nobody out, whenever these come."""
    device = Device(
        from_settings(
            tmp_path,
            {
                "repository": "http://x.example",
                "device_id": "x",
                "neighbours": {"discover": True},
            },
        )
    )
    every = tuple(f"http://10.0.0.{number}:8648" for number in range(1, 41))
    found.write(tmp_path, every)
    draws = [neighbours.urls(device) for _ in range(100)]
    assert {len(set(each)) for each in draws} == {neighbours.MOST_AT_ONCE}
    assert {each[: neighbours.ALWAYS] for each in draws} == {every[: neighbours.ALWAYS]}
    assert {url for each in draws for url in each} == set(every)


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1", "127.8.8.8", "0.0.0.0", "224.0.0.251", "240.0.0.1", "255.255.255.255",
        "10.0.0.1", "10.0.1.5", "192.168.7.1", "172.16.0.1", "169.254.1.1", "192.0.2.1", "8.8.8.8",
    ],
)  # fmt: skip
def test_an_announcement_points_nowhere_but_to_somebody_near(address):
    """Else anybody near could have this device ask itself, or whoever trusts it."""
    networks = (IPv4Interface("10.0.0.1/24"), IPv4Interface("198.51.100.9/28"))
    near = Heard(networks, PORT).is_near
    assert not near(IPv4Address(address))
    assert near(IPv4Address("10.0.0.5"))
    assert near(IPv4Address("198.51.100.1"))
    anywhere = Heard((IPv4Interface("10.0.0.1/0"),), PORT).is_near
    assert not any(map(anywhere, map(IPv4Address, ("127.0.0.1", "224.0.0.1", "0.0.0.0"))))


def test_networks_are_looked_for_until_there_is_one(monkeypatch):
    looks = 0

    def none() -> tuple[IPv4Interface, ...]:
        nonlocal looks
        looks += 1
        return ()

    monkeypatch.setattr(discovery, "LOOK", 0.01)
    monkeypatch.setattr(discovery, "_networks", none)
    warned: list[str] = []
    told: list[tuple[str, ...]] = []
    with discovery.announced("this", 8648, told.append, warned.append):
        while looks < 5:  # pytest's own time-out ends this
            time.sleep(0.01)
    assert warned == ["this machine has no network"]
    assert told == [()]


def test_whoever_was_heard_is_not_forgotten_when_listening_begins_anew(monkeypatch):
    """Only on other networks there are others."""
    begun = 0

    @contextmanager
    def announced_on(*arguments: object) -> Iterator[discovery.Ask]:
        nonlocal begun
        begun += 1
        if begun == 1:
            next(each for each in arguments if isinstance(each, Heard)).note(HONEST, PORT)
        if begun % 2:
            raise OSError("no buffer space available")
        yield time.monotonic

    here = HERE
    monkeypatch.setattr(discovery, "LOOK", 0.01)
    monkeypatch.setattr(discovery, "_networks", lambda: here)
    monkeypatch.setattr(discovery, "_announced_on", announced_on)
    told: list[tuple[str, ...]] = []
    with discovery.announced("this", 8648, told.append, lambda _: None):
        while len(told) < 3:  # pytest's own time-out ends this
            time.sleep(0.01)
        assert set(told[1:]) == {("http://10.0.0.5:8648",)}
        here = (IPv4Interface("10.0.0.1/24"),)
        while told[-1]:
            time.sleep(0.01)


def test_no_thread_outlives_the_networks_that_it_was_for(monkeypatch):
    """Each change of the networks left one behind."""
    monkeypatch.setattr(discovery, "LOOK", 0.01)
    here = (IPv4Interface("127.0.0.1/8"),)
    monkeypatch.setattr(discovery, "_networks", lambda: here)
    before = set(threading.enumerate())

    def mine() -> set[Thread]:
        return {each for each in threading.enumerate() if "_run_loop" in each.name} - before

    told: list[tuple[str, ...]] = []
    warned: list[str] = []
    with discovery.announced("this", 8648, told.append, warned.append):
        while not (first := mine()):  # pytest's own time-out ends this
            time.sleep(0.01)
        here = (IPv4Interface("127.0.0.1/16"),)
        while not mine() - first:
            time.sleep(0.01)
        assert mine().isdisjoint(first)
    assert set(threading.enumerate()) <= before
    assert warned == []


HERE = (IPv4Interface("10.0.0.1/16"),)
HONEST, OTHER = IPv4Address("10.0.0.5"), IPv4Address("10.0.0.6")


def test_an_announcement_without_a_port_is_nobody():
    """It must not cost a device the neighbours that there are."""
    heard = Heard(HERE, PORT)
    heard.note(HONEST, PORT)
    heard.note(HONEST, 0)
    heard.note(OTHER, 0)
    assert heard.urls() == ("http://10.0.0.5:8648",)


def test_of_several_ports_the_usual_one_counts_then_the_first():
    """Else whoever says first that an honest device serves elsewhere would hide it."""
    heard = Heard(HERE, PORT)
    for address, port in ((HONEST, 1), (OTHER, 1), (HONEST, PORT), (OTHER, 2), (HONEST, 3)):
        heard.note(address, port)
    assert heard.urls() == ("http://10.0.0.5:8648", "http://10.0.0.6:1")


def test_of_many_addresses_the_first_stay_until_they_are_not_heard_any_more():
    now = 0.0
    heard = Heard(HERE, PORT, lambda: now)
    for number in range(2 * found.MOST):
        heard.note(HONEST + number, PORT)
    first = heard.urls()
    assert (len(first), first[0]) == (found.MOST, "http://10.0.0.5:8648")
    now += STALE - 1
    heard.note(HONEST, PORT)
    assert heard.urls() == first
    now += 1
    assert heard.urls() == first[:1]
    heard.note(OTHER, 1)
    assert heard.urls() == (*first[:1], "http://10.0.0.6:1")


def test_whom_mdns_finds_is_written_when_it_is_news(world, monkeypatch):
    """Again where it failed; and not what is there already: flash wears."""
    with (world.device / "modelward.toml").open("a") as file:
        file.write("\n[neighbours]\ndiscover = true\n")
    one, two = ("http://10.0.0.2:2",), ("http://10.0.0.2:2", "http://10.0.0.3:3")
    written: list[tuple[str, ...]] = []
    is_full = False

    def write(_state: Path, urls: tuple[str, ...]) -> None:
        if is_full:
            raise OSError
        written.append(urls)

    @contextmanager
    def announced(_name: str, _port: int, tell: discovery.Tell, _warn: object) -> Iterator[None]:
        nonlocal is_full
        for urls in ((), one, one, one):
            tell(urls)
        is_full = True
        tell(two)
        is_full = False
        tell(two)
        tell(two)
        yield

    monkeypatch.setattr(found, "write", write)
    monkeypatch.setattr(discovery, "announced", announced)
    with run.serving(Device(load(world.device, {})), "127.0.0.1", 0):
        assert written == [(), one, two]


def test_mdns_that_is_not_installed(world, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "zeroconf", None)
    with (world.device / "modelward.toml").open("a") as file:
        file.write("\n[neighbours]\ndiscover = true\n")
    done = world.client_here("serve", None, "--host", "127.0.0.1", "--port", "0")
    assert done.code == ExitCode.USAGE
    assert "install modelward[mdns]" in done.json["advice"]
