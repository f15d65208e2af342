"""`modelward update` and `check`: take an update through the gates."""

import contextlib
import os
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from modelward import fastpath, settings
from modelward.cli.options import command, device_of, overrides_of, state_of
from modelward.cli.terminal import Terminal, say
from modelward.errors import ExitCode, Gate, ModelwardError, UsageError

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Iterator
    from typing import TextIO

    from modelward.device import Device
    from modelward.update import Outcome

_UPDATE_HELP = """\
Bring models up to date. Every gate is named as it is passed; a refusal says which gate, why, and
what to do next, and leaves the running model alone.

example:
  modelward update --state /var/lib/modelward meter-reader
  modelward update --json --events - 2>events.jsonl
"""
_CHECK_HELP = """\
Take an update through gates 1 to 9 and stop there: decide everything, fetch and install nothing.

example:
  modelward check --json
"""


def add(commands: Any) -> None:
    """Add the commands."""
    for name, run, summary, text in (
        ("update", update, "bring models up to date", _UPDATE_HELP),
        ("check", check, "find out what an update would do", _CHECK_HELP),
    ):
        added = command(commands, name, run, summary, text)
        added.add_argument("models", nargs="*", metavar="MODEL", help="only these models")
        added.add_argument("--repository", metavar="URL", help="another address, this time")
        added.add_argument("--channel", help="another channel, this time")
        added.add_argument("--device-id", metavar="ID", help="another id, this time")
        added.add_argument(
            "--events", metavar="FILE",
            help="write a JSON object a line about what happens; - for standard error",
        )  # fmt: skip
        added.add_argument(
            "--retry", action="store_true", help="try again what failed on this device lately"
        )


def update(options: "argparse.Namespace") -> ExitCode:
    """Run `modelward update`."""
    return _run_update(options, only_check=False)


def check(options: "argparse.Namespace") -> ExitCode:
    """Run `modelward check`."""
    return _run_update(options, only_check=True)


def _run_update(options: "argparse.Namespace", *, only_check: bool) -> ExitCode:
    if _nothing_new(options):
        return ExitCode.DONE
    from modelward.update import update as bring_up_to_date  # noqa: PLC0415

    device = device_of(options)

    def act(watch: Terminal) -> "Outcome":
        return bring_up_to_date(
            device, options.models, watch, only_check=only_check, retry=options.retry
        )

    return attend(options, device, act, only_check=only_check)


def attend(
    options: "argparse.Namespace",
    device: "Device",
    act: "Callable[[Terminal], Outcome]",
    *,
    only_check: bool,
) -> ExitCode:
    """Show an update while it goes, say how it ended, and note that down if it was for real."""
    for model in options.models:
        _check_model(model)
    alarms = device.alarms.pending()
    with _events(getattr(options, "events", None)) as events:
        watch = Terminal(quiet=options.json, events=events)
        for alarm in alarms:
            watch.alarm(alarm.to_text())
        try:
            outcome = act(watch)
        except ModelwardError as error:
            watch.end()
            watch.tell({"event": "end", **error.to_dict()})
            if not only_check:
                _note(device, error.to_dict())
            raise
        watch.end()
        raised = [alarm for alarm in device.alarms.pending() if alarm not in alarms]
        for alarm in raised:
            watch.alarm(alarm.to_text())
        alarms = (*alarms, *raised)
        result = outcome.to_dict(only_check=only_check)
        if alarms:
            result["alarms"] = [alarm.to_dict() for alarm in alarms]
        watch.tell({"event": "end", **result})
    if not only_check:
        _note(device, result)
    say(options, result, _outcome_text(outcome, only_check=only_check))
    return ExitCode.DONE


def _check_model(name: str) -> None:
    from modelward.formats.names import check_name  # noqa: PLC0415 - seldom is one named

    try:
        check_name(name)
    except ValueError as error:
        raise UsageError(str(error), "see `modelward status`") from error


@contextlib.contextmanager
def _events(name: str | None) -> "Iterator[TextIO | None]":
    """Open where events go: a file, made or appended to, or standard error for ``-``."""
    if name is None or name == "-":
        yield sys.stderr if name else None
        return
    try:
        file = Path(name).open("a", encoding="utf-8")  # noqa: SIM115 - closed below
    except OSError as error:
        raise UsageError(f"events cannot be written: {error}", "name another file") from error
    try:
        yield file
    finally:
        with contextlib.suppress(OSError):  # a full disk, a reader that is gone: as in `tell`
            file.close()


def _note(device: "Device", result: Mapping[str, Any]) -> None:
    """Note how an update ended, if possible: the note must not hide what it is about."""
    from modelward.install import last  # noqa: PLC0415

    with contextlib.suppress(OSError):
        last.write(device.config.state, device.clock(), result)


def _nothing_new(options: "argparse.Namespace") -> bool:
    """Take the fast path of gate 3, before anything slow is loaded."""
    state = state_of(options)
    if options.retry:
        return False  # what was given up is at rest, too
    try:
        if any((state / "alarms").glob("*.json")):
            return False  # somebody has to be told; `install.alarms` is too much to load here
        file = settings.read(state)
    except OSError:
        return False  # which is explained when it is read again
    fingerprint = settings.fingerprint(file, os.environ, overrides_of(options))
    asked = settings.asked(fingerprint, options.models)

    def fetch_unless(url: str, limit: int, sha256: str) -> bytes | None:
        """Ask a repository that takes more than a plain connection."""
        from modelward.cli.options import config_of  # noqa: PLC0415
        from modelward.transfer.http import Http  # noqa: PLC0415

        with Http.of(config_of(options).transfer) as http:
            return http.fetch_unless(url, limit, sha256)

    rest = fastpath.nothing_new(state, asked, datetime.now(UTC), fetch_unless)
    if rest is None:
        return False
    result = {
        "outcome": "unchanged",
        "exit_code": 0,
        "changes": [],
        "reasons": dict.fromkeys(
            rest.running, "the repository has not changed since the last check"
        ),
        "fetched": 0,
        "running": dict(rest.running),
    }
    say(
        options,
        result,
        f"{Gate.METADATA}: the repository has not changed since the last check\n"
        f"nothing to do; running: {_running(rest.running)}",
    )
    return True


def _running(running: Mapping[str, str]) -> str:
    return ", ".join(f"{model} {version}" for model, version in running.items()) or "nothing"


def _outcome_text(outcome: "Outcome", *, only_check: bool) -> str:
    if not outcome.changes:
        running = {model: slot.version for model, slot in outcome.installed.active.items()}
        return f"nothing to do; running: {_running(running)}"
    verb = "would become" if only_check else "is now"
    return "\n".join(
        f"{change.model} {verb} {change.after} (was {change.before or 'not installed'})"
        for change in outcome.changes
    )
