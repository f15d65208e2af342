"""`modelward verify`: is everything installed as it was approved?"""

import argparse
from typing import TYPE_CHECKING, Any

from modelward.cli.options import command, device_of
from modelward.cli.terminal import say
from modelward.errors import ExitCode, Refused, UsageError

if TYPE_CHECKING:
    from modelward.device import Device
    from modelward.formats.installed import Slot

_HELP = """\
Hash every file of every installed model again and verify its proof. Exit code 3 if anything is
not as it was approved.

example:
  modelward verify --state /var/lib/modelward
"""


def add(commands: Any) -> None:
    """Add the command."""
    verify = command(commands, "verify", _run, "re-hash everything installed", _HELP)
    verify.add_argument("models", nargs="*", metavar="MODEL", help="only these models")


def _run(options: argparse.Namespace) -> ExitCode:
    device = device_of(options)
    installed = device.slots.installed()
    problems: list[dict[str, str]] = []
    checked = []
    for model in options.models or sorted(installed.active):
        if model not in installed.active:
            raise UsageError(f"no model {model!r} is installed")
        slots = [installed.active[model]]
        slots += [installed.previous[model]] if model in installed.previous else []
        for slot in slots:
            found = _damage(device, model, slot)
            problems += [
                {"model": model, "version": slot.version, "path": path, "problem": problem}
                for path, problem in found
            ]
            checked.append({"model": model, "version": slot.version, "intact": not found})
    text = [
        f"{item['model']} {item['version']}: {'intact' if item['intact'] else 'DAMAGED'}"
        for item in checked
    ]
    text += [f"  {item['path']}: {item['problem']}" for item in problems]
    say(
        options,
        {"outcome": "damaged" if problems else "intact", "checked": checked, "problems": problems},
        "\n".join(text) or "nothing is installed",
    )
    return ExitCode.REFUSED if problems else ExitCode.DONE


def _damage(device: "Device", model: str, slot: "Slot") -> list[tuple[str, str]]:
    from modelward import explain  # noqa: PLC0415

    found: list[tuple[str, str]] = []
    try:
        found.extend(device.slots.problems(model, slot))
        explain.proof(device, model, slot)
    except Refused as error:
        found.append(("proof", error.reason))
    return found
