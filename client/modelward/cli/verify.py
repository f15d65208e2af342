"""`modelward verify`: is everything here as it was approved? With `--repair`: make it so."""

import argparse
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from modelward.cli.options import command, device_of
from modelward.cli.terminal import REPAIR, Terminal, say
from modelward.errors import ExitCode, UsageError

if TYPE_CHECKING:
    from modelward.scan import Damage, Scanned

_HELP = """\
Hash every file of every installed model again and verify its proof; so too the release that is
kept to fall back to, all blobs, and the small files that this device remembers by. Exit code 3 if
anything is not as it was approved; of a model, the alarm is raised.

With --repair, mend it: from a copy that is here, else from wherever this device fetches; with
--from, from a bundle that `modelward-repo export` made, and without any network. Versions
do not change, and programs that have a model open are not disturbed. Exit code 3 if damage remains.

example:
  modelward verify --repair --state /var/lib/modelward
  modelward verify --repair --from /media/usb/bundle
"""


def add(commands: Any) -> None:
    """Add the command."""
    verify = command(commands, "verify", _run, "re-hash everything installed", _HELP)
    verify.add_argument("models", nargs="*", metavar="MODEL", help="only these models")
    verify.add_argument("--repair", action="store_true", help="mend what is damaged")
    verify.add_argument(
        "--from", dest="bundle", metavar="PATH", help="a bundle to mend from: a directory or a tar"
    )


def _run(options: argparse.Namespace) -> ExitCode:
    if options.bundle and not options.repair:
        raise UsageError("--from says what to mend from", "say --repair, too")
    return _repair(options) if options.repair else _verify(options)


def _verify(options: argparse.Namespace) -> ExitCode:
    from modelward import alarm, scan  # noqa: PLC0415 - each command loads what it needs

    terminal = Terminal(quiet=options.json)
    device = device_of(options)
    found = scan.scan(device, options.models, terminal.hashing)
    terminal.end()
    alarm.raise_about(device, found)
    text = [*_slots(found), *map(_problem, found.damage)]
    if found.damage:
        text.append(f"what to do: {REPAIR}")
    say(options, found.to_dict(), "\n".join(text) or "nothing is installed")
    return ExitCode.REFUSED if found.damage else ExitCode.DONE


def _repair(options: argparse.Namespace) -> ExitCode:
    from modelward import offline, repair  # noqa: PLC0415

    terminal = Terminal(quiet=options.json)
    device, models = device_of(options), options.models
    if options.bundle:
        done = offline.mend(device, Path(options.bundle), models, terminal.hashing, terminal)
    else:
        done = repair.repair(device, models, terminal.hashing, terminal)
    terminal.end()
    text = [
        *_slots(done.scanned),
        *(f"{_problem(damage)}: mended" for damage in done.mended),
        *(f"{_problem(damage)}: NOT mended: {why}" for damage, why in done.remaining),
    ]
    if done.fetched:
        text.append(f"{done.fetched} bytes were fetched")
    say(
        options,
        {
            "outcome": "damaged" if done.remaining else "repaired" if done.mended else "intact",
            "checked": done.scanned.to_dict()["checked"],
            "mended": [damage.to_dict() for damage in done.mended],
            "problems": [damage.to_dict() | {"why": why} for damage, why in done.remaining],
            "fetched": done.fetched,
        },
        "\n".join(text) or "nothing is installed",
    )
    return ExitCode.REFUSED if done.remaining else ExitCode.DONE


def _slots(found: "Scanned") -> Iterable[str]:
    for model, slot in found.slots:
        yield f"{model} {slot.version}: {'intact' if found.is_intact(model, slot) else 'DAMAGED'}"


def _problem(damage: "Damage") -> str:
    of = f"{damage.model} {damage.slot.version}: " if damage.slot else ""
    return f"  {of}{damage.path}: {damage.problem}"
