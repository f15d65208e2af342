"""`modelward rollback`: go back to the release before."""

import argparse
from typing import Any

from modelward.cli.options import command, device_of
from modelward.cli.terminal import say
from modelward.errors import ExitCode

_HELP = """\
Go back to the release that is kept to fall back to, in one switch, without any network. The models
are pinned, so that the next update does not undo it: `modelward unpin` lets them move again. What
is on trial goes back whole.

example:
  modelward rollback meter-reader
"""


def add(commands: Any) -> None:
    """Add the command."""
    added = command(commands, "rollback", _run, "go back to the release before", _HELP)
    added.add_argument("models", nargs="*", metavar="MODEL", help="only these (default: all)")


def _run(options: argparse.Namespace) -> ExitCode:
    from modelward import local  # noqa: PLC0415 - each command loads what it needs

    moves = local.roll_back(device_of(options), options.models)
    say(
        options,
        {
            "outcome": "rolled back",
            "changes": [
                {"model": move.model, "before": move.before, "after": move.after} for move in moves
            ],
        },
        "\n".join(
            f"{move.model} is now {move.after} (was {move.before}); it stays there until "
            f"`modelward unpin {move.model}`"
            if move.after
            else f"{move.model} {move.before} no longer runs; there was none before it"
            for move in moves
        ),
    )
    return ExitCode.DONE
