"""modelward-repo reports: what devices say of themselves, as text."""

import json
from pathlib import Path
from typing import Any

import click

from modelward.errors import ExitCode, UsageError
from modelward.formats import report as formats
from modelward.formats.report import Report
from modelward_repo.cli import options
from modelward_repo.cli.device import fleet_option, open_fleet, text_time
from modelward_repo.fleet.store import Alarm, Stored
from modelward_repo.supply_chain.files import replace_file


@click.group()
def reports() -> None:
    """Show what devices report: what they run, what they refused, and what gives alarm.

    Reports are for people. A device that lies about itself changes nothing on any other.

    \b
        modelward-repo reports list --repository my-repo
        modelward-repo reports alarms --repository my-repo
    """


@reports.command("list")
@options.repository_option
@fleet_option
@options.json_option
def list_(repository: Path, fleet: Path) -> None:
    """Show the newest report of every device, a line each.

    \b
        modelward-repo reports list --repository my-repo --json
    """
    del repository
    with open_fleet(fleet).read() as turn:
        newest = turn.newest_reports()
        silent = [device.device for device in turn.devices() if not device.counter]
    parsed = [(stored, formats.read_envelope(stored.envelope)[1]) for stored in newest]
    options.result(
        {"reports": [_to_dict(stored, report) for stored, report in parsed], "silent": silent}
    )
    for stored, report in parsed:
        options.say(f"{stored.device}: {_line(stored, report)}")
    for device in silent:
        options.say(f"{device}: has not reported yet")


@reports.command()
@click.argument("device")
@click.option("--counter", type=click.IntRange(1), help="Which report. Default: the newest.")
@options.repository_option
@fleet_option
@options.json_option
def show(device: str, counter: int | None, repository: Path, fleet: Path) -> None:
    """Show a report of a DEVICE whole, and which others are kept.

    \b
        modelward-repo reports show camera-12 --repository my-repo
    """
    del repository
    with open_fleet(fleet).read() as turn:
        kept = turn.reports(device)
    chosen = [stored for stored in kept if counter in (None, stored.counter)]
    if not chosen:
        raise UsageError(f"there is no such report of {device!r}")
    _, report = formats.read_envelope(chosen[0].envelope)
    told = _to_dict(chosen[0], report)
    options.result(told | {"kept": [stored.counter for stored in kept]})
    options.say(json.dumps(told["report"], indent=2, ensure_ascii=True))


@reports.command()
@click.option("--all", "everything", is_flag=True, help="Also those that were dismissed.")
@click.option(
    "--to",
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder for what was kept with them: evidence for `log judge`, rejected reports.",
)
@options.repository_option
@fleet_option
@options.json_option
def alarms(everything: bool, to: Path | None, repository: Path, fleet: Path) -> int:
    """Show what somebody must look at. Exit code 3 if there is anything.

    \b
        modelward-repo reports alarms --repository my-repo --to evidence
    """
    del repository
    with open_fleet(fleet).read() as turn:
        found = [alarm for alarm in turn.alarms() if everything or alarm.dismissed is None]
    options.result({"alarms": [_alarm_dict(alarm) for alarm in found]})
    for alarm in found:
        times = f", {alarm.count} times, last {text_time(alarm.last)}" if alarm.count > 1 else ""
        options.say(
            f"{alarm.number}. {alarm.kind}: {alarm.device or 'somebody'}: {alarm.reason} "
            f"({text_time(alarm.first)}{times})"
        )
        if to is not None and alarm.document is not None:
            to.mkdir(parents=True, exist_ok=True)
            replace_file(to / f"alarm-{alarm.number}.json", alarm.document)
    if not found:
        options.say("nothing gives alarm")
    waiting = any(alarm.dismissed is None for alarm in found)
    return ExitCode.REFUSED if waiting else ExitCode.DONE


@reports.command()
@click.argument("number", type=click.IntRange(1))
@options.repository_option
@fleet_option
@options.json_option
def dismiss(number: int, repository: Path, fleet: Path) -> None:
    """Note that somebody has looked at the alarm NUMBER. It comes back if it happens again.

    \b
        modelward-repo reports dismiss 3 --repository my-repo
    """
    del repository
    with open_fleet(fleet).write() as turn:
        if not turn.dismiss(number, int(options.now().timestamp())):
            raise UsageError(f"there is no alarm {number}")
    options.say(f"alarm {number} is dismissed")
    options.result({"number": number, "dismissed": True})


def _line(stored: Stored, report: Report) -> str:
    models = ", ".join(f"{name} {running.version}" for name, running in report.models.items())
    parts = [
        f"runs {models or 'nothing'}",
        f"report {report.counter} of {text_time(stored.received)}",
    ]
    if report.refused is not None:
        where = f" at {report.refused.gate}" if report.refused.gate else ""
        parts.append(f"{report.refused.outcome}{where}: {report.refused.reason}")
    if stored.missing:
        parts.append(f"{stored.missing} reports before it are missing")
    parts += [f"ALARM: {alarm.reason}" for alarm in report.alarms]
    return "; ".join(parts)


def _to_dict(stored: Stored, report: Report) -> dict[str, Any]:
    return {
        "device": stored.device,
        "received": text_time(stored.received),
        "missing": stored.missing,
        "sha256": stored.sha256,
        "report": report.to_dict(),
    }


def _alarm_dict(alarm: Alarm) -> dict[str, Any]:
    return {
        "number": alarm.number,
        "kind": alarm.kind,
        "device": alarm.device or None,
        "reason": alarm.reason,
        "first": text_time(alarm.first),
        "last": text_time(alarm.last),
        "count": alarm.count,
        "dismissed": text_time(alarm.dismissed) or None,
        "document": alarm.document is not None,
    }
