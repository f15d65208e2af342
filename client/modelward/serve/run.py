"""Running the server beside whatever else this process does."""

import contextlib
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Thread

from modelward import log_memory
from modelward.device import Device
from modelward.install import neighbours
from modelward.install.owner import check_owner
from modelward.install.targets import TargetStore
from modelward.serve import discovery
from modelward.serve.server import Server
from modelward.serve.shelf import Shelf


@contextmanager
def serving(device: Device, host: str, port: int) -> Iterator[str]:
    """Serve neighbours until the block ends; yield the address.

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

    TargetStore(device.config.state).prepare()
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


@contextmanager
def _discovered(device: Device, port: int) -> Iterator[None]:
    """Announce this device and note who else is there, where the configuration says so."""
    if not device.config.neighbours.discover:
        yield
        return
    state = device.config.state

    def tell(urls: tuple[str, ...]) -> None:
        with contextlib.suppress(OSError):
            neighbours.write(state, urls)

    try:
        with discovery.announced(f"modelward-{secrets.token_hex(6)}", port, tell):
            yield
    finally:
        with contextlib.suppress(OSError):
            neighbours.clear(state)
