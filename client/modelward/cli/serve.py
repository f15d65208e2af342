"""`modelward serve`: hand neighbours what this device has."""

import argparse
import signal
import sys
import threading
from contextlib import ExitStack
from typing import Any

from modelward.cli.options import command, device_of
from modelward.cli.terminal import say
from modelward.errors import ExitCode

_HELP = """\
Serve what this device has to its neighbours on the local network, until told to stop: verified
blobs, current metadata, the newest checkpoint of the log. Read-only. Neighbours name this address
in [neighbours] of their modelward.toml, or find it by mDNS where both say `discover = true`.
Neither has to trust the other: whatever is fetched is verified as if the repository had sent it.

example:
  modelward serve --port 8648
"""


def add(commands: Any) -> None:
    """Add the command."""
    serve = command(commands, "serve", _run, "hand neighbours what this device has", _HELP)
    serve.add_argument("--host", metavar="ADDRESS", help="address to listen on (default: any)")
    serve.add_argument("--port", metavar="PORT", type=int, help="port to listen on (default: 8648)")


def _run(options: argparse.Namespace) -> ExitCode:
    from modelward.serve import run  # noqa: PLC0415 - each command loads what it needs

    device = device_of(options)
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    settings = device.config.neighbours
    host = options.host or settings.host
    port = settings.port if options.port is None else options.port
    with ExitStack() as stack:
        url = stack.enter_context(run.serving(device, host, port))
        say(options, {"outcome": "serving", "url": url}, f"serving neighbours on {url}")
        sys.stdout.flush()
        stop.wait()
    return ExitCode.DONE
