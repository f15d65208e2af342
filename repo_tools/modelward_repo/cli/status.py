"""modelward-repo status: show roles, who signed them, and when they expire."""

import os
import shutil
from datetime import datetime
from pathlib import Path

import click

from modelward.errors import ExitCode, ModelwardError, UsageError
from modelward_repo.cli import options
from modelward_repo.publish.staging import Staging
from modelward_repo.publish.status import repository_id, standings
from modelward_repo.roles.expiry import (
    Standing,
    Urgency,
    attention,
    by_urgency,
    table,
    worst,
)
from modelward_repo.roles.holders import folder_names
from modelward_repo.roles.ical import calendar
from modelward_repo.storage.local import LocalStorage
from modelward_repo.supply_chain.files import replace_file

MOST_WIDTH = 160
_COLOURS = {Urgency.FINE: None, Urgency.SOON: "yellow", Urgency.NOW: "red"}


class DamagedError(ModelwardError):
    """The repository cannot even be read: as urgent as can be."""

    exit_code = ExitCode.REFUSED
    outcome = "damaged"


@click.command()
@click.option(
    "--ics",
    metavar="FILE",
    help="Also write the expiries as an iCalendar file; - prints it, and nothing else.",
)
@options.repository_option
@options.keys_option
@options.json_option
def status(ics: str | None, repository: Path, keys: Path) -> int:
    """Show every role and layout: who may sign, who has signed, how long that lasts.

    What must be seen to first stands first. For monitoring, the exit code says how urgent it is:

    \b
        0  all is fine
        1  something needs attention soon: it is in the last quarter of its time; what takes
           a ceremony (root, targets, layouts) asks at least 30 days before its end
        2  there is no repository, or the command line makes no sense
        3  devices refuse something now: expired, too few signatures, or damaged

    Names of holders are those signed with the keys, else those of the folders in KEYS that hold
    the .pub files. No private key is read.

    \b
        modelward-repo status --repository my-repo
        modelward-repo status --repository my-repo --ics expiries.ics
    """
    now = options.now()
    try:
        staging = Staging.of(LocalStorage(repository), now)
        found = by_urgency(standings(staging, folder_names(keys)), now)
        identity = repository_id(staging)
    except UsageError:
        raise
    except ModelwardError as error:
        raise DamagedError(error.reason, error.advice) from error
    urgency = worst(found, now)
    if ics:
        text = calendar(found, repository.resolve().name, identity, now)
        if ics == "-":
            click.echo(text, nl=False)
            return urgency.value
        replace_file(Path(ics), text.encode())
    _show(found, urgency, now)
    if staging.waiting:
        options.say("\nA change is logged and waits for witnesses: modelward-repo log publish")
    options.result(
        {
            "waiting": staging.waiting,
            "ok": urgency is Urgency.FINE,
            "urgency": urgency.name.lower(),
            "exit_code": urgency.value,
            "repository_id": identity,
            "roles": [item.to_dict(now) for item in found],
        }
    )
    return urgency.value


def _show(found: list[Standing], urgency: Urgency, now: datetime) -> None:
    width = min(shutil.get_terminal_size((100, 24)).columns, MOST_WIDTH)
    for level, line in table(found, now, width):
        colour = None if "NO_COLOR" in os.environ else _COLOURS[level]
        options.say(click.style(line, fg=colour) if colour else line)  # kept on a terminal only
    if urgency is not Urgency.FINE:
        options.say()
    for item in found:
        if item.urgency(now) is not Urgency.FINE:
            options.say(attention(item, now))
    if urgency is Urgency.NOW:
        names = ", ".join(item.name for item in found if item.problem(now))
        options.say(f"\nDevices refuse this repository as it is, because of {names}.")
