"""`modelward completion`: a completion script for a shell."""

import argparse
import sys
from typing import Any

from modelward.cli.options import EXIT_CODES
from modelward.errors import ExitCode

_HELP = """\
Print a script that lets your shell complete the commands and options of modelward.

example:
  modelward completion bash > /etc/bash_completion.d/modelward
"""


def add(commands: Any) -> None:
    """Add the command."""
    completion = commands.add_parser(
        "completion",
        help="print a completion script for your shell",
        description=_HELP,
        epilog=EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    completion.add_argument("shell", choices=("bash", "zsh", "fish"))
    completion.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> ExitCode:
    from modelward import cli, completion  # noqa: PLC0415 - this is a part of cli

    sys.stdout.write(completion.script(cli.parser(), options.shell))
    return ExitCode.DONE
