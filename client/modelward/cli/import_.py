"""`modelward import`: an update from a stick."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from modelward.cli.options import command, device_of
from modelward.cli.terminal import Terminal
from modelward.cli.update import attend
from modelward.errors import ExitCode

if TYPE_CHECKING:
    from modelward.update import Outcome

_HELP = """\
Bring models up to date from a bundle that `modelward-repo export` made: a directory such as a USB
stick, or a tar archive. It passes the same gates as an update from a server, and uses no network.
Updates from sticks and servers may be mixed in any order: what is older than what came here
before is refused.

example:
  modelward import /media/usb/bundle --dry-run
  modelward import /media/usb/bundle
"""


def add(commands: Any) -> None:
    """Add the command."""
    added = command(commands, "import", _run, "bring models up to date from a stick", _HELP)
    added.add_argument("path", metavar="PATH", help="the bundle: a directory or a tar archive")
    added.add_argument("models", nargs="*", metavar="MODEL", help="only these models")
    added.add_argument("--dry-run", action="store_true", help="decide everything, install nothing")


def _run(options: argparse.Namespace) -> ExitCode:
    from modelward import offline  # noqa: PLC0415 - each command loads what it needs

    device, path = device_of(options), Path(options.path)

    def act(watch: Terminal) -> "Outcome":
        return offline.bring(device, path, options.models, watch, only_check=options.dry_run)

    return attend(options, device, act, only_check=options.dry_run)
