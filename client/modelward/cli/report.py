"""`modelward report`: what this device tells its operator, told now."""

import argparse
import json
import sys
from typing import Any

from modelward.cli.options import command, device_of
from modelward.cli.terminal import say
from modelward.errors import ExitCode

_HELP = """\
Make a signed report of what runs here and why, and send it to the repository's server (or to
`url` in [reports] of modelward.toml). Updates do so by themselves. What cannot be sent now waits:
exit code 4. Nothing that a server answers changes anything on this device.

example:
  modelward report --dry-run
"""


def add(commands: Any) -> None:
    """Add the command."""
    report = command(commands, "report", _run, "tell the operator what runs here", _HELP)
    report.add_argument(
        "--dry-run", action="store_true", help="print what would be sent, and send nothing"
    )
    report.add_argument("--repository", metavar="URL", help="another address, this time")


def _run(options: argparse.Namespace) -> ExitCode:
    from modelward import report  # noqa: PLC0415 - each command loads what it needs

    device = device_of(options)
    if options.dry_run:
        content = report.draft(device).to_dict()
        sys.stdout.write(json.dumps(content, indent=2, ensure_ascii=not sys.stdout.isatty()) + "\n")
        return ExitCode.DONE
    sent = report.now(device)
    code = ExitCode.UNAVAILABLE if sent.waiting else ExitCode.DONE
    code = ExitCode.REFUSED if sent.refused else code
    told = {
        "outcome": {ExitCode.DONE: "sent", ExitCode.REFUSED: "refused"}.get(code, "waiting"),
        "exit_code": int(code),
        **vars(sent),
    }
    text = f"{sent.received} sent, {sent.waiting} waiting"
    text += f", {sent.refused} refused by the server" if sent.refused else ""
    say(options, told, text + (f": {sent.problem}" if sent.problem else ""))
    return code
