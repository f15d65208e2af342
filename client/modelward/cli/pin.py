"""`modelward pin` and `unpin`: let a model stay as it is, or move again."""

import argparse
from typing import Any

from modelward.cli.options import command, device_of
from modelward.cli.terminal import say
from modelward.errors import ExitCode

_PIN = """\
Let models stay at the release that they run, whatever the channel offers. A release that the
channel revokes is left all the same.

example:
  modelward pin meter-reader
"""
_UNPIN = """\
Let models be updated again, after `modelward pin` or `modelward rollback`.

example:
  modelward unpin meter-reader
"""


def add(commands: Any) -> None:
    """Add the commands."""
    for name, run, summary, text in (
        ("pin", _pin, "let a model stay as it is", _PIN),
        ("unpin", _unpin, "let a pinned model be updated again", _UNPIN),
    ):
        added = command(commands, name, run, summary, text)
        added.add_argument("models", nargs="*", metavar="MODEL", help="only these (default: all)")


def _pin(options: argparse.Namespace) -> ExitCode:
    from modelward import local  # noqa: PLC0415 - each command loads what it needs

    pinned = local.pin(device_of(options), options.models)
    text = "\n".join(f"{model} stays at {version}" for model, version in pinned.items())
    say(options, {"outcome": "pinned", "models": pinned}, text or "nothing is installed")
    return ExitCode.DONE


def _unpin(options: argparse.Namespace) -> ExitCode:
    from modelward import local  # noqa: PLC0415

    models = local.unpin(device_of(options), options.models)
    text = "\n".join(f"{model} is updated again" for model in models)
    say(options, {"outcome": "unpinned", "models": list(models)}, text or "nothing was pinned")
    return ExitCode.DONE
