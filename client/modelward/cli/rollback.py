"""`modelward rollback`: go back to the release before."""

import argparse
from typing import TYPE_CHECKING, Any

from modelward.cli.options import command, device_of
from modelward.cli.terminal import Terminal, say
from modelward.errors import ExitCode

if TYPE_CHECKING:
    from modelward.local import Move

_HELP = """\
Go back to the release that is kept to fall back to, in one switch, without any network. The models
are pinned, so that the next update does not undo it: `modelward unpin` lets them move again. What
is on trial goes back whole; to a release that is revoked, with a warning and not pinned, if nothing
else is kept.

example:
  modelward rollback meter-reader
"""


def add(commands: Any) -> None:
    """Add the command."""
    added = command(commands, "rollback", _run, "go back to the release before", _HELP)
    added.add_argument("models", nargs="*", metavar="MODEL", help="only these (default: all)")


def _run(options: argparse.Namespace) -> ExitCode:
    from modelward import local  # noqa: PLC0415 - each command loads what it needs

    terminal = Terminal(quiet=options.json)
    moves = local.roll_back(device_of(options), options.models, terminal.hashing)
    terminal.end()
    say(
        options,
        {
            "outcome": "rolled back",
            "changes": [
                {
                    "model": move.model,
                    "before": move.before,
                    "after": move.after,
                    "revoked": move.revoked,
                }
                for move in moves
            ],
        },
        "\n".join(map(_text, moves)),
    )
    return ExitCode.DONE


def _text(move: "Move") -> str:
    if move.after is None:
        return f"{move.model} {move.before} no longer runs; there was none before it"
    now = f"{move.model} is now {move.after} (was {move.before})"
    if move.revoked:
        return (
            f"{now}\nWARNING: {move.model} {move.after} is revoked, and runs only as nothing else "
            "is kept here; updates may leave it"
        )
    return f"{now}; it stays there until `modelward unpin {move.model}`"
