"""The device's command line: parse, call, print. Everything is decided elsewhere."""

import argparse
import contextlib
import json
import os
import secrets
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from modelward import config as configuration
from modelward.errors import ExitCode, Gate, ModelwardError, Refused, UsageError

if TYPE_CHECKING:
    from modelward.device import Device
    from modelward.install.slots import Slot
    from modelward.log_memory import Memory
    from modelward.update import Outcome

EXIT_CODES = """\
exit codes:
  0  done, or nothing to do        3  refused: a security check said no
  1  any other error               4  unavailable: try again later
  2  wrong usage                   5  rolled back to the previous model
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    options = _parser().parse_args(arguments)
    try:
        code = int(options.run(options))
        sys.stdout.flush()
    except ModelwardError as error:
        _report(error, as_json=getattr(options, "json", False))
        return int(error.exit_code)
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # Nobody reads on. Python flushes once more at exit: let that go nowhere.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return int(ExitCode.ERROR)
    except OSError as error:
        failure = ModelwardError(str(error), "check permissions and free space")
        _report(failure, as_json=getattr(options, "json", False))
        return int(failure.exit_code)
    return code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="modelward",
        description="Verified updates of AI models, on a device. Nothing is installed unless "
        "the security team's roles (TUF), the chain of training steps (in-toto) and the fleet's "
        "policy all agree; that is decided before a single weight is fetched.",
        epilog=_EXAMPLE + EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)

    init = _command(commands, "init", _init, "set this device up", _INIT_HELP)
    init.add_argument("--repository", metavar="URL", required=True, help="the repository's address")
    init.add_argument(
        "--root",
        metavar="FILE",
        required=True,
        help="root metadata to trust, got from the security team over a way you trust",
    )
    init.add_argument("--device-id", metavar="ID", help="this device's id (default: a random one)")
    init.add_argument("--channel", default="stable", help="the channel to follow (default: stable)")
    init.add_argument(
        "--model", action="append", default=[], metavar="MODEL",
        help="a model this device wants; give it again for more (default: all on the channel)",
    )  # fmt: skip
    init.add_argument(
        "--label", action="append", default=[], metavar="NAME=VALUE",
        help="what this device is or where it stands, such as site=plant-7",
    )  # fmt: skip

    for name, run, summary, text in (
        ("update", _update, "bring models up to date", _UPDATE_HELP),
        ("check", _check, "find out what an update would do", _CHECK_HELP),
    ):
        command = _command(commands, name, run, summary, text)
        command.add_argument("models", nargs="*", metavar="MODEL", help="only these models")
        command.add_argument("--repository", metavar="URL", help="another address, this time")
        command.add_argument("--channel", help="another channel, this time")
        command.add_argument("--device-id", metavar="ID", help="another id, this time")

    _command(commands, "status", _status, "show what is installed", _STATUS_HELP)

    explain = _command(commands, "explain", _explain, "show why a model is trusted", _EXPLAIN_HELP)
    explain.add_argument("model", metavar="MODEL")
    explain.add_argument("--svg", metavar="FILE", help="also write the picture to FILE")

    verify = _command(commands, "verify", _verify, "re-hash everything installed", _VERIFY_HELP)
    verify.add_argument("models", nargs="*", metavar="MODEL", help="only these models")

    evidence = _command(
        commands, "evidence", _evidence, "list or export evidence against the log", _EVIDENCE_HELP
    )
    evidence.add_argument("action", choices=("list", "export"))
    evidence.add_argument("name", nargs="?", metavar="NAME", help="which; the newest if not given")
    evidence.add_argument("--to", metavar="FILE", help="where to write it (default: print it)")

    gossip = _command(
        commands, "gossip", _gossip, "compare the log with what a neighbour saw", _GOSSIP_HELP
    )
    gossip.add_argument("checkpoint", metavar="FILE_OR_URL", help="a neighbour's checkpoint")

    proof = _command(
        commands, "verify-proof", _verify_proof, "verify that something was logged", _PROOF_HELP
    )
    proof.add_argument("proof", metavar="FILE", help="a tlog-proof file")
    proof.add_argument("--root", metavar="FILE", required=True, help="root metadata to trust")
    proof.add_argument(
        "documents", nargs="*", metavar="DOCUMENT",
        help="documents to follow from there: snapshot, role, release.json, a file",
    )  # fmt: skip

    completion = commands.add_parser(
        "completion",
        help="print a completion script for your shell",
        description=_COMPLETION_HELP,
        epilog=EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    completion.add_argument("shell", choices=("bash", "zsh", "fish"))
    completion.set_defaults(run=_completion, parser=parser)
    return parser


def _command(commands: Any, name: str, run: Any, summary: str, text: str) -> Any:
    command = commands.add_parser(
        name,
        help=summary,
        description=text,
        epilog=EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    command.add_argument(
        "--state",
        metavar="DIR",
        help=f"state directory (default: $MODELWARD_STATE, then {configuration.DEFAULT_STATE})",
    )
    command.add_argument("--json", action="store_true", help="print JSON, for scripts")
    command.set_defaults(run=run)
    return command


_EXAMPLE = """\
example:
  modelward init --repository https://models.example.com --root root.json
  modelward update

"""
_INIT_HELP = """\
Set this device up: a state directory, the root of trust, and modelward.toml.

Everything the device will ever trust follows from the root metadata file. Get it from the
security team over a way you trust (baked into the device's image, say), not from the repository.

example:
  modelward init --repository https://models.example.com --root root.json \\
      --state /var/lib/modelward --label site=plant-7
"""
_UPDATE_HELP = """\
Bring models up to date. Every gate is named as it is passed; a refusal says which gate, why, and
what to do next, and leaves the running model alone.

example:
  modelward update --state /var/lib/modelward meter-reader
"""
_CHECK_HELP = """\
Take an update through gates 1 to 9 and stop there: decide everything, fetch and install nothing.

example:
  modelward check --json
"""
_STATUS_HELP = """\
Show what is installed, what it would fall back to, and how the last update ended. No network.

example:
  modelward status --json
"""
_EXPLAIN_HELP = """\
Show why an installed model is trusted: which roles vouch for it and until when, who did every
step from data to package, and the digests. The proof is verified again; no network is used.

example:
  modelward explain meter-reader --svg why.svg
"""
_VERIFY_HELP = """\
Hash every file of every installed model again and verify its proof. Exit code 3 if anything is
not as it was approved.

example:
  modelward verify --state /var/lib/modelward
"""
_EVIDENCE_HELP = """\
List the evidence that this device keeps against the log, or export one: two checkpoints that the
log signed and that cannot both be true. Anyone can judge it, offline:
`modelward-repo log judge FILE`. Exit code 3 if it proves that the log of today lies.

example:
  modelward evidence export --to evidence.json
"""
_GOSSIP_HELP = """\
Compare a neighbour's checkpoint of the log with the one this device believes. Exit code 3 if both
cannot be true: a split view. The evidence is kept. One's own is in `modelward status --json`.

example:
  modelward gossip http://10.0.0.7:8000/log/checkpoint
"""
_PROOF_HELP = """\
Verify offline that a state of the repository was logged and cosigned, and that it vouches for the
documents given. No device is needed.

example:
  modelward verify-proof release.tlog-proof --root root.json
"""
_COMPLETION_HELP = """\
Print a script that lets your shell complete the commands and options of modelward.

example:
  modelward completion bash > /etc/bash_completion.d/modelward
"""


def _init(options: argparse.Namespace) -> ExitCode:
    from modelward.install import fsops  # noqa: PLC0415 - each command loads what it needs
    from modelward.trust import repository  # noqa: PLC0415

    state = configuration.state_directory(options.state, os.environ)
    if (state / configuration.FILE).exists():
        raise UsageError(f"{state} is set up already", "remove it to set the device up anew")
    try:
        root = Path(options.root).read_bytes()
    except OSError as error:
        raise UsageError(f"the root metadata {options.root} cannot be read: {error}") from error
    version = repository.check_root(root)
    settings = configuration.from_settings(
        state,
        {
            "repository": options.repository,
            "device_id": options.device_id or secrets.token_hex(16),
            "channel": options.channel,
            "models": options.model,
            "labels": _labels(options.label),
        },
    )
    fsops.make_directory(state)
    fsops.check_file_system(state)
    for folder in ("tuf", "store", "slots", "generations"):
        fsops.make_directory(state / folder)
    fsops.write_file(state / "root.json", root)
    fsops.write_file(state / configuration.FILE, settings.to_toml().encode())
    _say(
        options,
        {
            "outcome": "initialised",
            "state": str(state),
            "root_version": version,
            "device_id": settings.device_id,
        },
        f"{state} is set up: root version {version}, channel {settings.channel}, device "
        f"{settings.device_id}\nnext: modelward update --state {state}",
    )
    return ExitCode.DONE


def _labels(pairs: Sequence[str]) -> dict[str, str]:
    labels = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals or not name or not value:
            raise UsageError(f"{pair!r} is not a label", "labels are like site=plant-7")
        if name in labels:
            raise UsageError(f"the label {name!r} is given twice")
        labels[name] = value
    return labels


def _update(options: argparse.Namespace) -> ExitCode:
    return _run_update(options, only_check=False)


def _check(options: argparse.Namespace) -> ExitCode:
    return _run_update(options, only_check=True)


def _run_update(options: argparse.Namespace, *, only_check: bool) -> ExitCode:
    if _nothing_new(options):
        return ExitCode.DONE
    from modelward import update  # noqa: PLC0415 - each command loads what it needs

    device = _device(options)
    watch = _Terminal(quiet=options.json)
    try:
        outcome = update.update(device, options.models, watch, only_check=only_check)
    except ModelwardError as error:
        watch.end()
        if not only_check:
            _note(device, error.to_dict())
        raise
    watch.end()
    result = _outcome_dict(outcome, only_check=only_check)
    if not only_check:
        _note(device, result)
    _say(options, result, _outcome_text(outcome, only_check=only_check))
    return ExitCode.DONE


def _note(device: "Device", result: Mapping[str, Any]) -> None:
    """Note how an update ended, if possible: the note must not hide what it is about."""
    from modelward.install import last  # noqa: PLC0415

    with contextlib.suppress(OSError):
        last.write(device.config.state, device.clock(), result)


def _nothing_new(options: argparse.Namespace) -> bool:
    """Take the fast path of gate 3, before anything slow is loaded."""
    from modelward import fastpath  # noqa: PLC0415
    from modelward.install.slots import Slots  # noqa: PLC0415
    from modelward.install.store import Store  # noqa: PLC0415
    from modelward.transfer.http import Http, Patience  # noqa: PLC0415

    config = _config(options)
    with Http(Patience(tries=1)) as http:
        if not fastpath.nothing_new(config, options.models, datetime.now(UTC), http):
            return False
    active = Slots(config.state, Store(config.state / "store")).installed().active
    running = {model: slot.version for model, slot in active.items()}
    result = {
        "outcome": "unchanged",
        "exit_code": 0,
        "changes": [],
        "reasons": dict.fromkeys(running, "the repository has not changed since the last check"),
        "fetched": 0,
        "running": running,
    }
    _say(
        options,
        result,
        f"{Gate.METADATA}: the repository has not changed since the last check\n"
        f"nothing to do; running: {_running(running)}",
    )
    return True


def _running(running: Mapping[str, str]) -> str:
    return ", ".join(f"{model} {version}" for model, version in running.items()) or "nothing"


def _outcome_dict(outcome: "Outcome", *, only_check: bool) -> dict[str, Any]:
    would = "available" if only_check else "updated"
    return {
        "outcome": would if outcome.changes else "unchanged",
        "exit_code": 0,
        "changes": [
            {"model": change.model, "before": change.before, "after": change.after}
            for change in outcome.changes
        ],
        "reasons": dict(outcome.reasons),
        "fetched": outcome.fetched,
        "running": {model: slot.version for model, slot in outcome.installed.active.items()},
    }


def _outcome_text(outcome: "Outcome", *, only_check: bool) -> str:
    if not outcome.changes:
        running = {model: slot.version for model, slot in outcome.installed.active.items()}
        return f"nothing to do; running: {_running(running)}"
    verb = "would become" if only_check else "is now"
    return "\n".join(
        f"{change.model} {verb} {change.after} (was {change.before or 'not installed'})"
        for change in outcome.changes
    )


def _status(options: argparse.Namespace) -> ExitCode:
    from modelward.formats import strict  # noqa: PLC0415
    from modelward.install import last  # noqa: PLC0415

    device = _device(options)
    installed = device.slots.installed()
    floors = device.floors.load()
    ended = last.read(device.config.state)
    memory = _log_memory(device)
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
            }
            for model, slot in installed.active.items()
        },
        "floors": {
            "root": floors.root,
            "timestamp": floors.timestamp.version if floors.timestamp else None,
            "snapshot": floors.snapshot.version if floors.snapshot else None,
            "releases": dict(floors.releases),
            "time": strict.rfc3339(floors.time.at) if floors.time else None,
        },
        "log": memory.to_dict() if memory else None,
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
        )
    if not installed.active:
        lines.append("  nothing is installed yet: run `modelward update`")
    lines += memory.lines() if memory else []
    if ended:
        reason = f": {ended['reason']}" if ended.get("reason") else ""
        lines.append(f"last update, {ended['time']}: {ended['outcome']}{reason}")
    _say(options, result, "\n".join(lines))
    return ExitCode.REFUSED if memory and memory.alarms else ExitCode.DONE


def _log_memory(device: "Device") -> "Memory | None":
    """Return what the device knows of a log, if of any: most of what that needs loads slowly."""
    if device.log.is_empty():
        return None
    from modelward import log_memory  # noqa: PLC0415

    return log_memory.remember(device)


def _evidence(options: argparse.Namespace) -> ExitCode:
    from modelward import log_memory  # noqa: PLC0415

    memory = log_memory.remember(_device(options))
    chosen = [kept for kept in memory.evidence if options.name in (None, kept.name)]
    if options.action == "list":
        told = {"evidence": [log_memory.kept_dict(kept) for kept in chosen]}
        lines = [f"{kept.name}: {kept.judgement.reason}" for kept in chosen]
        _say(options, told, "\n".join(lines) or "no evidence is kept")
        return ExitCode.REFUSED if memory.alarms else ExitCode.DONE
    if not chosen:
        raise UsageError("there is no such evidence", "`modelward evidence list` shows what is")
    data = chosen[-1].evidence.to_bytes()
    if options.to:
        Path(options.to).write_bytes(data)
        _say(options, {"written": options.to} | log_memory.kept_dict(chosen[-1]), options.to)
    else:
        sys.stdout.write(data.decode())
    return ExitCode.DONE


def _gossip(options: argparse.Namespace) -> ExitCode:
    from modelward import log_memory  # noqa: PLC0415
    from modelward.formats import note  # noqa: PLC0415
    from modelward.transfer.http import Http  # noqa: PLC0415

    if "://" in options.checkpoint:
        with Http() as http:
            data = http.fetch(options.checkpoint, note.CAP)
    else:
        data = Path(options.checkpoint).read_bytes()
    found = log_memory.gossip(_device(options), data)
    _say(options, found.to_dict(), found.to_text())
    return ExitCode.DONE


def _verify_proof(options: argparse.Namespace) -> ExitCode:
    from modelward import verify_proof  # noqa: PLC0415

    documents = {path: Path(path).read_bytes() for path in options.documents}
    proven = verify_proof.verify_proof(
        Path(options.proof).read_bytes(), Path(options.root).read_bytes(), documents
    )
    _say(options, proven.to_dict(), proven.to_text())
    return ExitCode.DONE


def _explain(options: argparse.Namespace) -> ExitCode:
    from modelward import explain  # noqa: PLC0415

    device = _device(options)
    explanation = explain.explain(device, options.model)
    if options.svg:
        Path(options.svg).write_text(explain.to_svg(explanation), "utf-8")
    _say(options, explain.to_dict(explanation), explain.to_text(explanation))
    return ExitCode.DONE


def _verify(options: argparse.Namespace) -> ExitCode:
    device = _device(options)
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
    _say(
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


def _device(options: argparse.Namespace) -> "Device":
    from modelward.device import Device  # noqa: PLC0415

    return Device(_config(options))


def _config(options: argparse.Namespace) -> configuration.Config:
    overrides = {
        name: getattr(options, name, None) for name in ("repository", "channel", "device_id")
    }
    state = configuration.state_directory(options.state, os.environ)
    return configuration.load(state, os.environ, overrides)


class _Terminal:
    """Tells a person what happens: a line a gate, and a progress bar on a terminal."""

    def __init__(self, *, quiet: bool) -> None:
        self._quiet = quiet
        self._bar = not quiet and sys.stderr.isatty()
        self._open = False

    def passed(self, gate: Gate, detail: str) -> None:
        self.end()
        if self._quiet:
            return
        try:
            sys.stdout.write(f"{gate}: {detail}\n")
            sys.stdout.flush()
        except BrokenPipeError:
            # Nobody reads any more (`| head`): that must not stop an update half-way.
            self._quiet = True
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())

    def fetching(self, received: int, total: int) -> None:
        if self._bar and total:
            done = 30 * received // total
            sys.stderr.write(
                f"\r  [{'#' * done}{'.' * (30 - done)}] {100 * received // total:3d} % of "
                f"{total / 1e6:.1f} MB"
            )
            sys.stderr.flush()
            self._open = True

    def end(self) -> None:
        if self._open:
            sys.stderr.write("\n")
            self._open = False


def _say(options: argparse.Namespace, result: Mapping[str, Any], text: str) -> None:
    sys.stdout.write((json.dumps(result, indent=2) if options.json else text) + "\n")


def _report(error: ModelwardError, *, as_json: bool) -> None:
    if as_json:
        sys.stdout.write(json.dumps(error.to_dict(), indent=2) + "\n")
    where = f" at {error.gate}" if error.gate else ""
    label = {"refused": "REFUSED", "unavailable": "unavailable"}.get(error.outcome, "error")
    sys.stderr.write(f"modelward: {label}{where}: {error.reason}\n")
    if error.advice:
        sys.stderr.write(f"  what to do: {error.advice}\n")
    if isinstance(error, Refused):
        sys.stderr.write("  nothing was changed; what ran before still runs\n")


def _completion(options: argparse.Namespace) -> ExitCode:
    from modelward import completion  # noqa: PLC0415

    sys.stdout.write(completion.script(options.parser, options.shell))
    return ExitCode.DONE
