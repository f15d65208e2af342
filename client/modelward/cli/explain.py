"""`modelward explain`: why an installed model is trusted."""

import argparse
from typing import Any

from modelward.cli import files
from modelward.cli.options import command, device_of
from modelward.cli.terminal import say
from modelward.errors import ExitCode

_HELP = """\
Show why an installed model is trusted: which roles vouch for it and until when, who did every
step from data to package, and the digests. The proof is verified again; no network is used.

example:
  modelward explain meter-reader --svg why.svg
"""


def add(commands: Any) -> None:
    """Add the command."""
    explain = command(commands, "explain", _run, "show why a model is trusted", _HELP)
    explain.add_argument("model", metavar="MODEL")
    explain.add_argument("--svg", metavar="FILE", help="also write the picture to FILE")


def _run(options: argparse.Namespace) -> ExitCode:
    from modelward import explain, picture  # noqa: PLC0415

    device = device_of(options)
    explanation = explain.explain(device, options.model)
    if options.svg:
        files.write(options.svg, picture.svg(explanation).encode())
    say(options, explain.to_dict(explanation), explain.to_text(explanation))
    return ExitCode.DONE
