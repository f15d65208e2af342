"""`modelward gc`: make room."""

import argparse
from typing import Any

from modelward.cli.options import command, device_of
from modelward.cli.terminal import say
from modelward.errors import ExitCode

_HELP = """\
Remove what neither runs nor is kept to fall back to: releases that failed, what an interrupted
download left behind. Updates do this by themselves once they succeed.

example:
  modelward gc --dry-run
"""


def add(commands: Any) -> None:
    """Add the command."""
    added = command(commands, "gc", _run, "remove what is not needed", _HELP)
    added.add_argument("--dry-run", action="store_true", help="remove nothing, only tell")


def _run(options: argparse.Namespace) -> ExitCode:
    from modelward import local  # noqa: PLC0415 - each command loads what it needs

    found = local.collect(device_of(options), dry_run=options.dry_run)
    verb = "would free" if options.dry_run else "freed"
    lines = [f"  {path}" for path in found.paths]
    say(
        options,
        {
            "outcome": "would collect" if options.dry_run else "collected",
            "paths": list(found.paths),
            "freed": found.freed,
        },
        "\n".join([*lines, f"{verb} {found.freed} bytes"]),
    )
    return ExitCode.DONE
