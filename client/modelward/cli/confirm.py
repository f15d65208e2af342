"""`modelward confirm`: what is on trial is healthy."""

import argparse
from typing import Any

from modelward.cli.options import command, device_of
from modelward.cli.terminal import Terminal, say
from modelward.errors import ExitCode

_HELP = """\
Say that what is on trial is healthy, before its soak period (`soak` in [health]) is over. The
application that uses the model may know best. From then on nothing older is accepted.

example:
  modelward confirm
"""


def add(commands: Any) -> None:
    """Add the command."""
    command(commands, "confirm", _run, "end a trial: the new release is healthy", _HELP)


def _run(options: argparse.Namespace) -> ExitCode:
    from modelward import local  # noqa: PLC0415 - each command loads what it needs

    terminal = Terminal(quiet=options.json)
    confirmed = local.confirm(device_of(options), terminal.hashing)
    terminal.end()
    text = "\n".join(f"{model} {version} is confirmed" for model, version in confirmed.items())
    say(options, {"outcome": "confirmed", "models": confirmed}, text)
    return ExitCode.DONE
