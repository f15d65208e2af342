"""Running the server: granian, whose WSGI workers are written in Rust.

Measured on two cores: with two granian workers, 64 slow downloads did not hold up devices that
poll `timestamp.json`; with gunicorn's synchronous workers, or few threads, they blocked every one.
So a worker keeps its many threads (granian's own default for WSGI): a device on a bad line holds
a thread, not the server.
"""

import http.client
import os
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from granian.constants import Interfaces
from granian.log import LogLevels
from granian.server.mp import MPServer

from modelward.errors import ModelwardError, UsageError
from modelward_repo.server.app import DIRECTORY
from modelward_repo.server.reports import FLEET, fleet_folder
from modelward_repo.server.witness import SETTINGS, Settings

READY_SECONDS = 30.0


def serve(  # noqa: PLR0913, PLR0917 - what a server is told
    directory: Path,
    host: str,
    port: int,
    workers: int,
    ready: Callable[[str], None],
    fleet: Path | None = None,
) -> None:
    """Serve a repository until SIGTERM or SIGINT.

    Args:
        directory: The repository.
        host: Address to listen on.
        port: Port to listen on; 0 for any that is free.
        workers: Number of processes.
        ready: Told the server's URL once it answers.
        fleet: Private folder for device reports; None for the one beside the repository.

    Raises:
        UsageError: The port is taken, or the address is not one of this machine.
    """
    os.environ[DIRECTORY] = str(directory.resolve())
    os.environ[FLEET] = str((fleet or fleet_folder(directory)).resolve())
    _run("app", "/metadata/timestamp.json", host, port, workers, ready)


def serve_witness(
    settings: Settings, host: str, port: int, workers: int, ready: Callable[[str], None]
) -> None:
    """Serve a witness until SIGTERM or SIGINT.

    Args:
        settings: The witness.
        host: Address to listen on.
        port: Port to listen on; 0 for any that is free.
        workers: Number of processes.
        ready: Told the server's URL once it answers.

    Raises:
        UsageError: The port is taken, or the address is not one of this machine.
    """
    os.environ[SETTINGS] = settings.to_json()
    _run("witness", "/", host, port, workers, ready)


def _run(  # noqa: PLR0913, PLR0917 - what, and the five of `serve`
    module: str, page: str, host: str, port: int, workers: int, ready: Callable[[str], None]
) -> None:
    port = _check_port(host, port)
    server = _Server(
        f"modelward_repo.server.{module}:from_environment",
        address=host,
        port=port,
        interface=Interfaces.WSGI,
        workers=workers,
        factory=True,
        log_level=LogLevels.error,
        workers_kill_timeout=5,
    )
    shown = f"[{host}]" if ":" in host else host
    server.page = page
    server.when_ready = lambda: ready(f"http://{shown}:{port}")
    server.serve()


class _Server(MPServer):
    """Granian, which has no hook for the moment when its workers answer."""

    when_ready: Callable[[], None]
    page: str  # is there once the server answers

    def startup(self, *args: Any) -> None:
        """Start the workers, then wait until one answers."""
        super().startup(*args)  # type: ignore[no-untyped-call] # granian's is not annotated
        deadline = time.monotonic() + READY_SECONDS
        while not self.main_loop_interrupt.is_set():  # told to stop, or a worker died
            if _answers(self.bind_addr, self.bind_port, self.page):
                self.when_ready()
                return
            if time.monotonic() > deadline:
                self.shutdown()  # type: ignore[no-untyped-call]
                raise ModelwardError("the server's workers do not answer")
            time.sleep(0.02)


def _answers(host: str, port: int, page: str) -> bool:
    # A server on all addresses is asked on this machine's own.
    own = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 - not bound here
    connection = http.client.HTTPConnection(own, port, timeout=5)
    try:
        connection.request("GET", page)
        return connection.getresponse().status == http.client.OK
    except OSError:
        return False
    finally:
        connection.close()


def _check_port(host: str, port: int) -> int:
    """Return the port, or a free one for 0.

    Granian shares ports between processes (SO_REUSEPORT), so it would silently take turns with
    a server that is already there.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except (OSError, OverflowError) as error:
            why = error.strerror if isinstance(error, OSError) else str(error)
            raise UsageError(
                f"cannot listen on {host}:{port}: {why}",
                "stop what listens there, or choose another with --port (0 takes any free one)",
            ) from error
        return int(probe.getsockname()[1])
