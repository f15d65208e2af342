"""`modelward run`: the daemon."""

import argparse
import os
import sys
from datetime import UTC, datetime
from typing import Any

from modelward.cli.options import command, overrides_of, state_of
from modelward.cli.terminal import report_error, say
from modelward.errors import ExitCode, ModelwardError

_HELP = """\
Look for updates for as long as the machine runs, and take each through the gates. When, and when
something may change, is said in the table [run] of modelward.toml; docs/device.md has a unit for
systemd. A check that fails is repeated ever more seldom, a server that asks for time is given it.

  SIGTERM, SIGINT  stop at a point where nothing is left half done
  SIGHUP           read modelward.toml again; one that makes no sense changes nothing
  SIGUSR1          check now

example:
  modelward run --state /var/lib/modelward --json
"""

_SYSTEMD_HELP = """\
Print a unit for systemd that runs the daemon for this device, as the user who owns its state
directory, confined to what it needs.

example:
  modelward systemd --state /var/lib/modelward > /etc/systemd/system/modelward.service
  systemctl daemon-reload && systemctl enable --now modelward
"""


def add(commands: Any) -> None:
    """Add the command."""
    added = command(commands, "run", _run, "keep models up to date, as a daemon", _HELP)
    added.add_argument("--once", action="store_true", help="check once, as it would, and end")
    added.add_argument(
        "--wait", action="store_true", help="wait for another one on this device to end"
    )
    added.add_argument("--debug", action="store_true", help="log checks that find nothing, too")
    added.add_argument("--repository", metavar="URL", help="another address")
    added.add_argument("--channel", help="another channel")
    added.add_argument("--device-id", metavar="ID", help="another id")

    command(commands, "systemd", _systemd, "print a unit that runs the daemon", _SYSTEMD_HELP)


def _systemd(options: argparse.Namespace) -> ExitCode:
    from modelward import systemd  # noqa: PLC0415

    text = systemd.unit(state_of(options))
    say(options, {"outcome": "printed", "name": systemd.SERVICE, "unit": text}, text.rstrip("\n"))
    return ExitCode.DONE


def _run(options: argparse.Namespace) -> ExitCode:
    from modelward import config  # noqa: PLC0415
    from modelward.daemon.log import Level, Log, is_journal  # noqa: PLC0415
    from modelward.daemon.loop import Daemon  # noqa: PLC0415 - each command loads what it needs
    from modelward.daemon.notify import Notifier  # noqa: PLC0415

    state = state_of(options)
    log = Log(
        sys.stdout,
        lambda: datetime.now(UTC),
        as_json=options.json,
        journal=is_journal(sys.stdout, os.environ),
        most=Level.DEBUG if options.debug or options.once else Level.INFO,
    )
    daemon = Daemon(
        state,
        load=lambda: config.merged(state, os.environ, overrides_of(options)),
        log=log,
        notifier=Notifier.of(os.environ, os.getpid()),
    )
    try:
        return daemon.once() if options.once else daemon.run(wait=options.wait)
    except ModelwardError as error:
        if not options.json:
            raise
        log(Level.ERROR, "failed", error.reason, **error.to_dict())  # a line, as everything else
        report_error(error, as_json=False)
        return error.exit_code
    finally:
        log.close()
