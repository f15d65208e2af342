"""The daemon finds out by itself what was changed: nobody may ever open or verify it there."""

import errno
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Event
from typing import Any, BinaryIO

import pytest
from werkzeug.wrappers import Response

from modelward import config
from modelward.daemon import verify
from modelward.daemon.attempt import Watch
from modelward.daemon.log import Level
from modelward.daemon.words import of_verified
from modelward.errors import ExitCode, Unavailable
from modelward.install import fsops, scanned
from tests.daemon.site import Running, configure, flip, is_whole, opens, runs
from tests.simulator.server import Server
from tests.simulator.world import World
from tests.watching import PATIENCE, until

DAILY = {"verify": '"1d"', "interval": '"1h"', "jitter": "0"}


@pytest.fixture
def server(world: World) -> Iterator[Server]:
    """A server of the repository; the device runs 1.1.0 and keeps 1.0.0."""
    world.publish("1.1.0")
    configure(world.device, **DAILY)
    with world.serve() as server:
        assert world.client_here("update", server).code == ExitCode.DONE
        yield server


@pytest.mark.attack(29)
def test_it_finds_what_nobody_opens_and_mends_it_at_once(world: World, server: Server) -> None:
    flip(world)
    with Running(world, server) as daemon:
        assert daemon.wait_for("checked")["outcome"] == "unchanged"
        assert "meter-reader 1.1.0 was changed" in daemon.wait_for("repairing")["message"]
        assert daemon.wait_for("repaired")["fetched"] > 0
        found = daemon.wait_for("verified")
        assert (found["outcome"], found["level"], found["exit_code"]) == ("damaged", "notice", 0)
        is_whole(world)
        flip(world)
        daemon.signal(signal.SIGUSR1)
        daemon.wait_for("checked")
        assert daemon.stop() == ExitCode.DONE
        assert [line["event"] for line in daemon.seen].count("verified") == 1
    with Running(world, server) as daemon:  # killed and started anew within a day, in one boot
        daemon.wait_for("checked")
        daemon.signal(signal.SIGUSR1)
        daemon.wait_for("checked")
        assert all(line["event"] != "verified" for line in daemon.seen)
        assert daemon.stop() == ExitCode.DONE
    scanned.write(world.device, "of another boot", 1.0)
    assert world.client("run", server, "--once").code == ExitCode.DONE
    is_whole(world)


def test_it_mends_what_no_alarm_can_be_about(world: World, server: Server) -> None:
    (world.device / "tuf/snapshot.json").write_bytes(b"{")
    (world.device / "floors.a").write_bytes(b"torn")
    with Running(world, server) as daemon:
        assert "snapshot.json" in daemon.wait_for("repairing")["message"]
        daemon.wait_for("repaired")
        assert daemon.wait_for("verified")["exit_code"] == ExitCode.DONE
        is_whole(world)


def large_blob(world: World) -> BinaryIO:
    """Return a file in the store that is read for longer than a test may last: one hole."""
    file = (world.device / "store" / ("0" * 64)).open("wb")
    file.truncate(1 << 40)
    return file


def test_a_check_that_falls_due_has_it_paused(world: World, server: Server) -> None:
    """However long it takes; an update meanwhile is no damage, and it does come to its end."""
    arrived, go_on = Event(), Event()

    def wait(honest: bytes) -> Response:
        arrived.set()
        go_on.wait(PATIENCE)
        return Response(honest)

    with large_blob(world) as large, Running(world, server) as daemon:
        daemon.wait_for("hashing")
        (scan,) = daemon.children()
        daemon.signal(signal.SIGUSR1)
        assert daemon.wait_for("checked")["outcome"] == "unchanged"
        world.publish("1.2.0")
        server.lie(r"/metadata/timestamp", wait)
        daemon.signal(signal.SIGUSR1)
        assert arrived.wait(PATIENCE)
        assert (Path("/proc") / str(scan) / "stat").read_text().rpartition(")")[2].split()[0] == "T"
        go_on.set()
        assert daemon.wait_for("checked")["outcome"] == "updated"
        assert daemon.children() == [scan]
        assert all(line["event"] != "verified" for line in daemon.seen)
        large.truncate(0)
        assert daemon.wait_for("verified")["outcome"] == "intact"
        opens(world, "1.2.0", fallback=False)
        assert daemon.stop() == ExitCode.DONE


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_it_ends_with_the_daemon_though_it_is_paused(
    world: World, server: Server, number: signal.Signals
) -> None:
    arrived, go_on = Event(), Event()

    def wait(honest: bytes) -> Response:
        arrived.set()
        go_on.wait(PATIENCE)
        return Response(honest)

    with large_blob(world), Running(world, server) as daemon:
        daemon.wait_for("hashing")
        (scan,) = daemon.children()
        server.lie(r"/metadata/timestamp", wait)
        daemon.signal(signal.SIGUSR1)
        assert arrived.wait(PATIENCE)
        daemon.signal(number)
        go_on.set()
        assert daemon.process.wait(PATIENCE) in (ExitCode.DONE, -signal.SIGKILL)
        assert until(lambda: not runs(scan))
    assert not (world.device / scanned.FILE).exists()


def test_never(world: World, server: Server) -> None:
    configure(world.device, **DAILY | {"verify": '"never"'})
    flip(world)
    assert world.client("run", server, "--once").code == ExitCode.DONE
    assert not (world.device / scanned.FILE).exists()


class Told(Watch):
    """A watch whose clock goes on with each piece that is hashed."""

    def __init__(self) -> None:
        super().__init__(lambda _: None)
        self.now = 0.0
        self.took = 0.02
        self.rested: list[float] = []
        self.pieces = 0
        self.meanwhile: Callable[[], object] = lambda: None

    def hashing(self, done: int, total: int) -> None:
        super().hashing(done, total)
        self.now += self.took
        self.pieces += 1
        self.meanwhile()

    def sleep(self, seconds: float) -> None:
        self.rested.append(seconds)
        self.now += seconds


def scan(world: World, told: Told) -> dict[str, Any]:
    settings = config.merged(world.device, {}, {"repository": "http://127.0.0.1:9"})
    found = config.from_settings(world.device, settings)
    rest = verify.Rest(lambda: told.now, told.sleep)
    return verify.verify(found, told, told.tell, mend=False, rest=rest)


def test_it_leaves_the_disk_to_others_half_of_the_time(world: World) -> None:
    told = Told()
    assert scan(world, told)["outcome"] == "intact"
    assert told.rested == pytest.approx([0.02] * told.pieces)
    told = Told()
    told.took = 5  # it was kept waiting
    scan(world, told)
    assert told.rested == [verify.LONGEST] * told.pieces


def test_what_an_update_moved_meanwhile_is_no_damage(world: World) -> None:
    """It holds no lock, so as not to keep updates waiting for as long as hashing takes."""
    told = Told()
    file = world.device / "floors.a"
    before = file.read_bytes()
    file.unlink()

    def meanwhile() -> None:
        try:
            with fsops.lock(world.device / "lock"):
                pass  # an update may run
        except Unavailable:
            file.write_bytes(before)  # it has ended before

    told.meanwhile = meanwhile
    assert scan(world, told)["outcome"] == "intact"


@pytest.mark.parametrize("number", [errno.EIO, errno.ENOENT])
def test_a_folder_that_cannot_be_read_does_not_end_it(
    world: World, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """Neither one that the disk lost, nor one that an update just removed."""
    list_folder = os.scandir

    def scandir(path: Any = ".") -> Any:
        if isinstance(path, str | Path) and str(path).endswith("/files/float"):
            raise OSError(number, os.strerror(number), str(path))
        return list_folder(path)

    monkeypatch.setattr(os, "scandir", scandir)
    found = scan(world, Told())
    assert (found["outcome"], found["exit_code"]) == ("damaged", ExitCode.REFUSED)
    (problem,) = found["problems"]
    assert (problem["path"], problem["problem"]) == (
        "float",
        f"cannot be read: {os.strerror(number)}",
    )


def test_what_it_found_is_told(world: World) -> None:
    flip(world)
    found = scan(world, Told())
    assert (found["outcome"], found["exit_code"]) == ("damaged", ExitCode.REFUSED)
    level, text = of_verified(found)
    assert level is Level.ERROR
    assert "model.onnx: is not the file that was approved" in text
    (alarm,) = world.client_here("status").json["alarms"]
    assert alarm["served"] is None


def test_words() -> None:
    assert of_verified(
        {"outcome": "intact", "exit_code": 0, "checked": [{}, {}], "problems": []}
    ) == (
        Level.INFO,
        "everything that is kept is as it was approved: 2 releases, all blobs, floors, metadata",
    )
    stopped = {"outcome": "unavailable", "exit_code": 4, "reason": "it was told to stop"}
    assert of_verified(stopped) == (
        Level.WARNING,
        "what is kept could not be verified, tried again later: it was told to stop",
    )


def test_since_when_it_is_known(tmp_path: Path) -> None:
    assert scanned.age(tmp_path, "b", 5.0) == float("inf")
    scanned.write(tmp_path, "b", 5.0)
    assert scanned.age(tmp_path, "b", 65.0) == 60
    assert scanned.age(tmp_path, "another", 65.0) == float("inf")
    assert scanned.age(tmp_path, "b", 4.0) == float("inf")  # where boots cannot be told apart
    (tmp_path / scanned.FILE).write_bytes(b'{"boot": "b", "at": "soon"}')
    assert scanned.age(tmp_path, "b", 65.0) == float("inf")
