"""Running the server beside whatever else this process does."""

import contextlib
import os
import secrets
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Thread

from modelward import log_memory
from modelward.device import Device
from modelward.install import neighbours
from modelward.install.owner import check_owner, is_owner, owner_of
from modelward.install.targets import TargetStore
from modelward.serve import discovery
from modelward.serve.server import Server
from modelward.serve.shelf import Shelf


@contextmanager
def serving(device: Device, host: str, port: int) -> Iterator[str]:
    """Serve neighbours until the block ends; yield the address.

    What another user than the owner of the state directory cannot do is said on standard error.

    Args:
        device: The device.
        host: Address to listen on.
        port: Port; 0 for any that is free.

    Raises:
        UsageError: It cannot listen there, or mDNS is wanted and not installed; or this is root,
            and the state directory another user's.
    """
    if os.geteuid() == 0:  # who may write everywhere; others may read here, and serve
        check_owner(device.config.state)

    def hear(checkpoint: bytes) -> None:
        log_memory.gossip(device, checkpoint)

    _keep_targets(device.config.state)
    server = Server(host, port, Shelf(device), hear)
    thread = Thread(target=server.serve_forever, name="modelward-serve", daemon=True)
    thread.start()
    try:
        with _discovered(device, int(server.server_address[1])):
            yield server.url
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def _keep_targets(state: Path) -> None:
    """Have updates keep what there is to hand on; only the owner can begin with it."""
    targets = TargetStore(state)
    if is_owner(state):
        targets.prepare()
    elif not targets.is_kept():
        _warn(
            f"no releases are handed on, only blobs and metadata: {state} has no folder for them",
            f"let {owner_of(state)}, who owns it, run `modelward serve` once",
        )


def _warn(what: str, advice: str) -> None:
    """Say what does not work while the rest does."""
    with contextlib.suppress(OSError):
        sys.stderr.write(f"modelward: {what}\n  what to do: {advice}\n")
        sys.stderr.flush()


@contextmanager
def _discovered(device: Device, port: int) -> Iterator[None]:
    """Announce this device and note who else is there, where the configuration says so."""
    if not device.config.neighbours.discover:
        yield
        return
    state = device.config.state
    is_said = False
    written: tuple[str, ...] | None = None

    def tell(urls: tuple[str, ...]) -> None:
        nonlocal is_said, written
        if urls == written:
            return  # flash wears
        try:
            neighbours.write(state, urls)
            is_said, written = False, urls
        except OSError as error:
            if not is_said:
                _warn(
                    f"whom mDNS finds cannot be noted, and is not asked: {error}",
                    f"see that {owner_of(state)}, who owns {state}, can write there and runs this, "
                    "or name neighbours by `urls` in [neighbours]",
                )
            is_said = True

    def warn(why: str) -> None:
        _warn(
            f"neighbours cannot be found by mDNS for now: {why}",
            f"nothing, if a network comes later: it is tried every {discovery.LOOK:.0f} seconds",
        )

    try:
        with discovery.announced(f"modelward-{secrets.token_hex(6)}", port, tell, warn):
            yield
    finally:
        with contextlib.suppress(OSError):
            neighbours.clear(state)
