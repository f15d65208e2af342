"""modelward-repo status: show roles and expiries."""

from datetime import datetime, timedelta
from pathlib import Path

import click

from modelward.errors import ExitCode
from modelward.formats import strict
from modelward_repo.cli import options
from modelward_repo.publish.staging import Staging
from modelward_repo.publish.status import Standing, standings
from modelward_repo.storage.local import LocalStorage


@click.command()
@options.repository_option
@options.json_option
def status(repository: Path) -> int:
    """Show roles, versions, signatures and expiries; exit 1 if something has expired.

    \b
        modelward-repo status --repository my-repo
    """
    now = options.now()
    found = standings(Staging.of(LocalStorage(repository), now))
    options.say(f"{'role':<28} {'version':>7} {'signed':>16}   expires")
    for item in found:
        signed = f"{item.signed} ({item.threshold} of {item.keys})"
        version = "" if item.version is None else item.version
        options.say(f"{item.name:<28} {version:>7} {signed:>16}   {_expiry(item, now)}")
    wrong = [item for item in found if item.problem(now)]
    if wrong:
        names = ", ".join(item.name for item in wrong)
        options.say(f"\nDevices refuse this repository as it is, because of {names}.")
    options.result(
        {
            "ok": not wrong,
            "roles": [
                {
                    "name": item.name,
                    "version": item.version,
                    "threshold": item.threshold,
                    "signed": item.signed,
                    "keys": item.keys,
                    "expires": strict.rfc3339(item.expires),
                    "expires_in": int((item.expires - now).total_seconds()),
                    "problem": item.problem(now),
                }
                for item in found
            ],
        }
    )
    return ExitCode.ERROR if wrong else ExitCode.DONE


def _expiry(item: Standing, now: datetime) -> str:
    problem = item.problem(now)
    if problem:
        return f"{strict.rfc3339(item.expires)}  {problem.upper()}"
    return f"{strict.rfc3339(item.expires)}  (in {_span(item.expires - now)})"


def _span(left: timedelta) -> str:
    hours = int(left.total_seconds()) // 3600
    return f"{hours // 24} days" if hours >= 48 else f"{hours} hours"  # noqa: PLR2004 - two days
