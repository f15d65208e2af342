"""The real command, in a process of its own, over real HTTP."""

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from textwrap import dedent
from threading import Event

import pytest
from werkzeug.wrappers import Response

from modelward.errors import ExitCode
from tests.daemon.site import Running, configure, runs
from tests.simulator import server as servers
from tests.simulator.world import World, clean_environment
from tests.watching import PATIENCE, until

WEIGHTS = r"/blobs/"
COMMAND = (sys.executable, "-m", "modelward")


def test_it_installs_what_is_published_and_checks_when_told(world: World) -> None:
    with world.serve() as server, Running(world, server) as daemon:
        assert daemon.wait_for("checked")["outcome"] == "unchanged"
        world.publish("1.1.0")
        daemon.signal(signal.SIGUSR1)
        gate = daemon.wait_for("gate", gate="metadata")
        assert gate["level"] == "info"
        done = daemon.wait_for("checked")
        assert done["running"] == {"meter-reader": "1.1.0"}
        assert done["level"] == "notice"
        assert world.read_model() == ("1.1.0", world.offered)
        assert world.client_here("status").json["last"]["outcome"] == "updated"
        assert daemon.stop() == ExitCode.DONE
        daemon.wait_for("stopped")


def test_it_looks_again_by_itself(world: World) -> None:
    configure(world.device, interval='"1s"', jitter="0")
    with world.serve() as server, Running(world, server) as daemon:
        for _ in range(3):
            assert daemon.wait_for("checked")["outcome"] == "unchanged"


def test_it_outlives_refusals_and_absence(world: World) -> None:
    configure(world.device, interval='"1s"', jitter="0", backoff='"1s"')
    with world.serve() as server, Running(world, server) as daemon:
        server.lie(r"/metadata/timestamp", servers.instead(b"{}"))
        refused = daemon.wait_for("checked", outcome="refused")
        assert (refused["level"], refused["gate"]) == ("error", "metadata")
        server.be_honest()
        server.lie(r"/metadata/timestamp", servers.status(404))
        assert daemon.wait_for("checked", outcome="unavailable")["level"] == "warning"
        server.be_honest()
        world.publish("1.1.0")
        assert daemon.wait_for("checked", outcome="updated")["running"]["meter-reader"] == "1.1.0"


def test_nothing_changes_outside_the_windows(world: World) -> None:
    with world.serve() as server:
        world.publish("1.1.0")
        # This minute's window has always just ended, whatever the time is.
        configure(world.device, windows='["00:00-00:00"]', interval='"1h"', jitter="0")
        with Running(world, server) as daemon:
            found = daemon.wait_for("checked")
            assert found["outcome"] == "available"
            assert "waits for a maintenance window" in found["message"]
            assert world.read_model()[0] == "1.0.0"
            assert not server.asked(WEIGHTS)
            configure(world.device, windows='["00:00-23:59", "23:59-00:00"]', jitter="0")
            daemon.signal(signal.SIGHUP)
            daemon.wait_for("reloaded")
            assert daemon.wait_for("checked")["outcome"] == "updated"  # new settings are tried soon


def test_a_configuration_that_makes_no_sense_changes_nothing(world: World) -> None:
    with world.serve() as server, Running(world, server) as daemon:
        daemon.wait_for("checked")
        configure(world.device, interval='"often"')
        daemon.signal(signal.SIGHUP)
        told = daemon.wait_for("reload-failed")
        assert told["level"] == "error"
        assert "'interval' in [run]" in told["message"]
        world.publish("1.1.0")
        daemon.signal(signal.SIGUSR1)
        assert daemon.wait_for("checked")["outcome"] == "updated"


def test_a_pipe_in_place_of_the_configuration_is_not_waited_for(world: World) -> None:
    with world.serve() as server, Running(world, server) as daemon:
        daemon.wait_for("checked")
        file = world.device / "modelward.toml"
        file.rename(file.with_suffix(".old"))
        os.mkfifo(file)
        daemon.signal(signal.SIGHUP)
        assert "is not a regular file" in daemon.wait_for("reload-failed")["message"]
        done = world.client_here("update", server)
        assert (done.code, done.json["advice"]) == (ExitCode.USAGE, "correct that file")
        assert daemon.stop() == ExitCode.DONE


def test_it_does_not_start_with_one_either(world: World) -> None:
    configure(world.device, interval='"often"')
    done = world.client_here("run")
    assert done.code == ExitCode.USAGE
    assert "'interval' in [run]" in done.json["reason"]


def test_the_second_says_who_runs_or_waits(world: World) -> None:
    with world.serve() as server, Running(world, server) as first:
        first.wait_for("checked")
        second = world.client("run", server)
        assert second.code == ExitCode.UNAVAILABLE
        assert f"process {first.process.pid}" in second.json["reason"]
        assert second.json["gate"] is None
        with Running(world, server, "--wait") as third:
            assert third.wait_for("waiting")["holder"] == str(first.process.pid)
            first.process.kill()  # a lock ends with its process, however that ends
            third.wait_for("started")
            third.wait_for("checked")
        with Running(world, server) as fourth:
            fourth.wait_for("checked")
            with Running(world, server, "--wait") as fifth:
                fifth.wait_for("waiting")
                assert fifth.stop() == ExitCode.DONE


def test_it_waits_for_somebody_who_updates_by_hand(world: World) -> None:
    arrived, go_on = Event(), Event()

    def wait(honest: bytes) -> Response:
        arrived.set()
        go_on.wait(PATIENCE)
        return Response(honest)

    with world.serve() as server, Running(world, server) as daemon:
        daemon.wait_for("checked")
        world.publish("1.1.0")
        server.lie(WEIGHTS, wait)
        by_hand = subprocess.Popen(
            [*COMMAND, "update", "--state", str(world.device), "--repository", server.url],
            env=clean_environment(),
        )
        assert arrived.wait(PATIENCE)
        daemon.signal(signal.SIGUSR1)
        assert daemon.wait_for("waiting")["holder"] == str(by_hand.pid)
        go_on.set()
        assert by_hand.wait(PATIENCE) == 0
        assert daemon.wait_for("checked")["outcome"] == "unchanged"


def test_it_stops_at_a_point_that_leaves_nothing_half_done(world: World) -> None:
    arrived, go_on = Event(), Event()

    def wait(honest: bytes) -> Response:
        arrived.set()
        go_on.wait(PATIENCE)
        return Response(honest)

    with world.serve() as server:
        world.publish("1.1.0")
        server.lie(WEIGHTS, wait)
        with Running(world, server) as daemon:
            assert arrived.wait(PATIENCE)
            daemon.signal(signal.SIGTERM)
            go_on.set()
            ended = daemon.wait_for("checked")
            assert "told to stop" in ended["reason"]
            assert daemon.process.wait(PATIENCE) == ExitCode.DONE
        assert world.read_model()[0] == "1.0.0"
        server.be_honest()
        assert world.client_here("update", server).json["running"]["meter-reader"] == "1.1.0"


def test_a_check_that_is_stuck_is_ended(world: World) -> None:
    never = Event()

    def hang(honest: bytes) -> Response:
        never.wait(PATIENCE)
        return Response(honest)

    file = world.device / "modelward.toml"
    file.write_text(file.read_text().replace("[run]", "[health]\ntimeout = 1\n[run]"))
    configure(world.device, stuck="1.5", interval='"1h"', jitter="0")
    with world.serve() as server:
        world.publish("1.1.0")
        server.lie(r"/metadata/timestamp", hang)
        with Running(world, server) as daemon:
            assert "has not moved" in daemon.wait_for("stuck")["message"]
            never.set()
            assert "told to stop" in daemon.wait_for("checked")["reason"]


def written() -> int:
    """Return how many bytes the kernel says that this process has written to disks."""
    lines = Path("/proc/self/io").read_text("ascii").splitlines()
    return int(dict(line.split(": ") for line in lines)["write_bytes"])


def test_a_check_that_says_nothing_but_keeps_the_disk_busy_is_not_stuck(
    world: World, tmp_path: Path
) -> None:
    """One system call over one large file says nothing until it is done."""
    before = written()
    (tmp_path / "busy").write_bytes(bytes(1 << 20))
    if written() == before:
        pytest.skip("the kernel does not count what is written here: a RAM disk?")
    (tmp_path / "sitecustomize.py").write_text(
        dedent(f"""\
            import os, time

            link = os.link

            def slow(*arguments, **named):
                until = time.monotonic() + 8
                busy = os.open({str(tmp_path / "busy")!r}, os.O_RDWR)
                while time.monotonic() < until:
                    os.pwrite(busy, bytes(2 << 20), 0)
                    os.fsync(busy)
                    time.sleep(0.1)
                os.link = link
                return link(*arguments, **named)

            os.link = slow
            """)
    )
    file = world.device / "modelward.toml"
    file.write_text(file.read_text().replace("[run]", "[health]\ntimeout = 3\n[run]"))
    configure(world.device, stuck="3.5", interval='"1h"', jitter="0")
    with world.serve() as server:
        world.publish("1.1.0")
        with Running(world, server, PYTHONPATH=str(tmp_path)) as daemon:
            assert daemon.wait_for("checked")["outcome"] == "updated"
            assert not [line for line in daemon.seen if line["event"] == "stuck"]


def test_the_child_dies_and_the_daemon_goes_on(world: World) -> None:
    arrived, go_on = Event(), Event()

    def wait(honest: bytes) -> Response:
        arrived.set()
        go_on.wait(PATIENCE)
        return Response(honest)

    with world.serve() as server:
        world.publish("1.1.0")
        server.lie(WEIGHTS, wait)
        with Running(world, server) as daemon:
            assert arrived.wait(PATIENCE)
            os.kill(daemon.children()[0], signal.SIGKILL)
            ended = daemon.wait_for("checked")
            assert "ended by signal 9" in ended["reason"]
            server.be_honest()
            go_on.set()
            daemon.signal(signal.SIGUSR1)
            assert daemon.wait_for("checked")["outcome"] == "updated"


def test_a_child_without_a_daemon_begins_nothing_more(world: World) -> None:
    arrived, go_on = Event(), Event()

    def wait(honest: bytes) -> Response:
        arrived.set()
        go_on.wait(PATIENCE)
        return Response(honest)

    with world.serve() as server:
        world.publish("1.1.0")
        server.lie(WEIGHTS, wait)
        with Running(world, server) as daemon:
            assert arrived.wait(PATIENCE)
            daemon.process.kill()
            go_on.set()
        # The lock is free once the child has ended.
        with Running(world, server, "--once") as next_one:
            assert next_one.process.wait(PATIENCE) == ExitCode.DONE
        assert world.read_model()[0] == "1.1.0"


@pytest.mark.parametrize("whom", ["the check", "the daemon"])
def test_the_command_dies_with_the_check_and_with_the_daemon(
    world: World, tmp_path: Path, whom: str
) -> None:
    pids = tmp_path / "pids"
    script = f"sleep 600 & echo $$ $! > {pids}.new; mv {pids}.new {pids}; wait"
    file = world.device / "modelward.toml"
    health = f"[health]\ntimeout = 600\ncommand = {json.dumps(['/bin/sh', '-c', script])}\n"
    file.write_text(file.read_text().replace("[run]", f"{health}[run]"))
    world.publish("1.1.0")
    with world.serve() as server, Running(world, server) as daemon:
        assert until(pids.exists)
        if whom == "the daemon":
            daemon.process.kill()
        else:
            os.killpg(daemon.children()[0], signal.SIGKILL)  # as Worker.kill does
            ended = daemon.wait_for("checked")
            assert "the next check finishes or undoes" in ended["advice"]
        for pid in pids.read_text().split():
            assert until(lambda pid=pid: not runs(int(pid)))


def test_it_outlives_a_log_on_a_full_disk(world: World) -> None:
    with world.serve() as server, Path("/dev/full").open("w") as full:
        world.publish("1.1.0")
        arguments = ["--state", str(world.device), "--repository", server.url]
        daemon = subprocess.Popen(
            [sys.executable, "-m", "modelward", "run", *arguments],
            env=clean_environment(),
            stdout=full,
        )
        try:
            assert until(lambda: world.read_model()[0] == "1.1.0")
        finally:
            daemon.terminate()
        assert daemon.wait(PATIENCE) == ExitCode.DONE


def test_an_update_by_hand_outlives_it_too(world: World) -> None:
    world.publish("1.1.0")
    with world.serve() as server, Path("/dev/full").open("w") as full:
        arguments = ["update", "--state", str(world.device), "--repository", server.url]
        done = subprocess.run(
            [sys.executable, "-m", "modelward", *arguments],
            env=clean_environment(),
            stdout=full,
            check=False,
        )
    assert done.returncode == ExitCode.DONE
    assert world.read_model()[0] == "1.1.0"
    assert world.client_here("status").json["on_trial_until"] is None


def test_once(world: World) -> None:
    with world.serve() as server:
        world.publish("1.1.0")
        with Running(world, server, "--once") as once:
            assert once.wait_for("checked")["outcome"] == "updated"
            assert once.process.wait(PATIENCE) == ExitCode.DONE
        server.lie(r"/metadata/timestamp", servers.status(404))
        with Running(world, server, "--once") as once:
            assert once.process.wait(PATIENCE) == ExitCode.UNAVAILABLE


def test_it_serves_neighbours_if_it_is_to(world: World) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    file = world.device / "modelward.toml"
    file.write_text(
        file.read_text().replace(
            "[run]", f'[neighbours]\nhost = "127.0.0.1"\nport = {port}\n[run]\nserve = true'
        )
    )
    with world.serve() as server, Running(world, server) as daemon:
        daemon.wait_for("serve")
        daemon.wait_for("checked")
        assert until(lambda: answers(port))
        os.kill(daemon.children()[0], signal.SIGKILL)
        assert "exit code -9" in daemon.wait_for("serve")["message"]
        daemon.signal(signal.SIGHUP)
        daemon.wait_for("reloaded")
    with world.serve() as server, Running(world, server) as daemon:
        daemon.wait_for("serve")
        assert until(lambda: answers(port))
        daemon.process.kill()  # and what it started ends with it
        assert until(lambda: not answers(port))
    with world.serve() as server, Running(world, server) as daemon:
        assert until(lambda: answers(port))
        assert daemon.stop() == ExitCode.DONE
        assert not answers(port)


def test_systemd_is_told_how_things_are(world: World, tmp_path: Path) -> None:
    address = tmp_path / "notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening, world.serve() as server:
        listening.bind(str(address))
        listening.settimeout(PATIENCE)
        told: list[str] = []

        def expect(text: str) -> None:
            while not (told and told[-1].startswith(text)):
                told.append(listening.recv(4096).decode())

        environment = {"NOTIFY_SOCKET": str(address), "WATCHDOG_USEC": "200000"}
        with Running(world, server, **environment) as daemon:
            expect("READY=1")
            expect("STATUS=checking")
            expect("STATUS=next check at")
            for _ in range(3):
                expect("WATCHDOG=1")
                told.append("")
            daemon.signal(signal.SIGHUP)
            expect("RELOADING=1\nMONOTONIC_USEC=")
            expect("READY=1")
            daemon.signal(signal.SIGTERM)
            expect("STOPPING=1")
            assert daemon.process.wait(PATIENCE) == ExitCode.DONE


def test_a_loop_that_is_stuck_gives_no_sign_of_life(world: World, tmp_path: Path) -> None:
    address = tmp_path / "notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening, world.serve() as server:
        listening.bind(str(address))
        listening.settimeout(PATIENCE)
        environment = {"NOTIFY_SOCKET": str(address), "WATCHDOG_USEC": "200000"}
        with Running(world, server, **environment) as daemon:
            daemon.wait_for("checked")
            while listening.recv(4096) != b"WATCHDOG=1":
                pass
            daemon.signal(signal.SIGSTOP)
            assert falls_silent(listening)
            daemon.signal(signal.SIGCONT)
            while listening.recv(4096) != b"WATCHDOG=1":
                pass


def answers(port: int) -> bool:
    """Tell whether somebody listens."""
    with socket.socket() as asking:
        return asking.connect_ex(("127.0.0.1", port)) == 0


def falls_silent(listening: socket.socket) -> bool:
    """Read what has been sent, and tell whether nothing more comes."""
    listening.settimeout(1.0)
    try:
        for _ in range(1000):
            listening.recv(4096)
    except TimeoutError:
        return True
    finally:
        listening.settimeout(PATIENCE)
    return False
