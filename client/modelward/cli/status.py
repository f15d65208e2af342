"""`modelward status`: what is installed, and how the last update ended."""

import argparse
from typing import TYPE_CHECKING, Any

from modelward.cli.options import command, device_of
from modelward.cli.terminal import REPAIR, say
from modelward.errors import ExitCode, Refused

if TYPE_CHECKING:
    from collections.abc import Mapping

    from modelward.device import Device
    from modelward.formats.installed import Installed, Slot
    from modelward.log_memory import Memory

_HELP = """\
Show what is installed, what it would fall back to, and how the last update ended. No network.

example:
  modelward status --json
"""


def add(commands: Any) -> None:
    """Add the command."""
    command(commands, "status", _run, "show what is installed", _HELP)


def _run(options: argparse.Namespace) -> ExitCode:
    from modelward.formats import strict  # noqa: PLC0415
    from modelward.install import device_key, last  # noqa: PLC0415
    from modelward.install.reports import ReportStore  # noqa: PLC0415

    device = device_of(options)
    installed, on_trial, damage = _installed(device)
    floors = device.known(device.floors.load)
    journal = device.trials.journal
    until = device.trials.until(device.clock())
    ended = last.read(device.config.state)
    memory = _log_memory(device)
    key = device_key.public_of(device.config.state)
    alarms = device.alarms.pending()
    waiting = len(ReportStore(device.config.state).pending())
    result = {
        "state": str(device.config.state),
        "repository": device.config.repository,
        "channel": device.config.channel,
        "device_id": device.config.device_id,
        "generation": installed.number,
        "models": {
            model: {
                "version": slot.version,
                "counter": slot.counter,
                "release_sha256": slot.sha256,
                "previous": installed.previous[model].version
                if model in installed.previous
                else None,
                "on_trial": model in on_trial,
                "pinned": model in journal.pins and journal.pins[model].slot == slot,
            }
            for model, slot in installed.active.items()
        },
        "floors": {
            "root": floors.root,
            "timestamp": floors.timestamp.version if floors.timestamp else None,
            "snapshot": floors.snapshot.version if floors.snapshot else None,
            "releases": dict(floors.releases),
            "time": strict.rfc3339(floors.time.at) if floors.time else None,
        }
        if floors
        else None,
        "on_trial_until": strict.rfc3339(until) if until else None,
        "failed": [failure.to_dict() for failure in journal.failed.values() if failure.times],
        "log": memory.to_dict() if memory else None,
        "reports": {
            "send": device.config.reports.send,
            "device_key": key,
            "sent": ReportStore(device.config.state).sent(),
            "waiting": waiting,
        },
        "alarms": [found.to_dict() for found in alarms],
        "damage": damage,
        "last": ended,
    }
    lines = [
        f"device {device.config.device_id}",
        f"follows {device.config.channel} of {device.config.repository}",
    ]
    for model, slot in installed.active.items():
        fallback = installed.previous.get(model)
        lines.append(
            f"  {model} {slot.version} runs"
            + (f"; {fallback.version} is kept to fall back to" if fallback else "")
            + ("; on trial" if model in on_trial else "")
        )
        if model in journal.pins and journal.pins[model].slot == slot:
            lines.append(f"    stays there: {journal.pins[model].reason}")
    lines += [
        f"  {failure.model} {failure}" for failure in journal.failed.values() if failure.times
    ]
    if damage:
        lines += [f"  DAMAGED: {damage}", f"  what to do: {REPAIR}"]
    elif not installed.active:
        lines.append("  nothing is installed yet: run `modelward update`")
    for found in alarms:
        lines += [f"ALARM: {found.to_text()}", f"  what to do: {REPAIR}"]
    lines += memory.lines() if memory else []
    if ended:
        reason = f": {ended['reason']}" if ended.get("reason") else ""
        lines.append(f"last update, {ended['time']}: {ended['outcome']}{reason}")
    if waiting:
        lines.append(f"reports that wait to be sent: {waiting}")
    say(options, result, "\n".join(lines))
    log_alarms = memory is not None and (memory.alarms or memory.freeze)
    return ExitCode.REFUSED if alarms or log_alarms or damage else ExitCode.DONE


def _installed(device: "Device") -> "tuple[Installed, Mapping[str, Slot], str | None]":
    """Return what can be read of what is installed, and of it on trial, and what is damaged."""
    from modelward.formats.installed import Installed  # noqa: PLC0415

    installed = Installed()
    try:
        installed = device.slots.installed()
        return installed, device.trials.on_trial(), None
    except Refused as error:
        return installed, {}, error.reason


def _log_memory(device: "Device") -> "Memory | None":
    """Return what the device knows of a log, if of any: most of what that needs loads slowly."""
    if device.log.is_empty():
        return None
    from modelward import log_memory  # noqa: PLC0415

    return log_memory.remember(device)
