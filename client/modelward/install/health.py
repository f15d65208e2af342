"""Gate 12: does the new model work on this device?

A model is tried twice. `probe` loads the staged release in a process of its own, confined, before
anything is switched, and runs the golden cases that came with it. `run_command` lets the operator
judge, once it is switched to. What a model is *meant* to answer is decided by neither.
"""

import json
import math
import os
import pwd
import resource
import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from modelward.config.health import HealthSettings
from modelward.errors import Gate, RolledBack, Unavailable
from modelward.formats.golden import MAX_CASES, Case, Golden
from modelward.formats.policy import HealthGate, ModelPolicy
from modelward.formats.release import Release, ReleaseFile
from modelward.install import process
from modelward.install.opened import open_file

TRIAL = "modelward.install.try_model"
RUNTIMES: Mapping[str, str] = {
    "onnx": "onnxruntime",
    "safetensors": "safetensors",
    "npy": "numpy",
}
# Nothing of the updater's environment: no secret, and nothing that changes what is loaded.
ENVIRONMENT: Mapping[str, str] = {
    "PATH": "/usr/bin:/bin",
    "LC_ALL": "C.UTF-8",
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
}
MOST_MILLISECONDS = 1e12  # of a run: decades
MOST_MEMORY = 1 << 50  # bytes: more than any device has
SPARE = 128  # files that may be open besides those of a release
_TELL = "tell whoever publishes this model; the model that ran before is untouched"
_LOOK = "find out why on this device; the model that ran before is untouched"


@dataclass(frozen=True)
class _Heard:
    """What the trial's process said.

    Attributes:
        at: Where it was last.
        confined: What was taken away from it; None if it did not come that far.
        done: What it found; None if it did not come to its end.
    """

    at: str
    confined: Mapping[str, Any] | None
    done: Mapping[str, Any] | None

    @classmethod
    def parse(cls, output: bytes) -> "_Heard":
        """Read what it wrote, as far as it came: it may have been killed within a line."""
        at, confined, done = "starting", None, None
        for line in output.split(b"\n"):
            said = _parse(line)
            match said:
                case {"at": "confined", "network": network, "others": others}:
                    if _are_texts(network, others):
                        at, confined = "confined", said
                case {"at": "done"}:
                    if _is_finding(said):
                        at, done = "done", said
                case {"at": str(text)}:
                    at = text
        return cls(at, confined, done)


def _parse(line: bytes) -> dict[str, Any]:
    """Return what a line says: what was tried may have taken over the process that writes it."""
    with suppress(ValueError, RecursionError):
        said = json.loads(line)
        if isinstance(said, dict):
            return said
    return {}


def _is_finding(said: Mapping[str, Any]) -> bool:
    match said:
        case {
            "versions": dict(versions),
            "cases": int(cases),
            "milliseconds": None | float() as milliseconds,
            "memory": None | int() as memory,
        }:
            return (
                _are_texts([*versions, *versions.values()])
                and _is_within(cases, MAX_CASES)
                and _is_within(milliseconds, MOST_MILLISECONDS)
                and _is_within(memory, MOST_MEMORY)
            )
    return False


def _is_within(number: float | None, most: float) -> bool:
    """Tell whether a number makes sense, if it is given: one of thousands of digits, say, does not.

    Such a one can be read, but not written.
    """
    return number is None or (not isinstance(number, bool) and 0 <= number <= most)


def _are_texts(*lists: object) -> bool:
    return all(
        isinstance(texts, list)
        and all(isinstance(text, str) and text.isprintable() for text in texts)
        for texts in lists
    )


def probe(release: Release, folder: Path, policy: ModelPolicy, settings: HealthSettings) -> str:
    """Try a staged release before it may run.

    Its files must have passed gate 8: they are handed to the parsers of their runtimes here.

    Args:
        release: The release.
        folder: Its files, in the staged slot.
        policy: What the security team demands of the model.
        settings: What this device allows the trial.

    Returns:
        What was found, for people.

    Raises:
        RolledBack: The model does not work here.
        Unavailable: It could not be tried, which says nothing of the model.
    """
    golden = _golden(release, folder)
    _allow_open(len(release.files) + SPARE)
    with ExitStack() as stack:
        descriptors = {
            file.path: stack.enter_context(_open(folder, file)).fileno() for file in release.files
        }
        request = _request(release, golden, policy.health, settings, descriptors)
        try:
            ended = process.run(
                [sys.executable, "-I", "-m", TRIAL],
                ENVIRONMENT,
                settings.timeout,
                stdin=json.dumps(request).encode(),
                keep=process.BLOCK + sum(map(_line_length, descriptors)),
                descriptors=tuple(descriptors.values()),
            )
        except OSError as error:
            raise _untried(f"no process could be started: {error.strerror}") from error
    heard = _Heard.parse(ended.output)
    if heard.confined is None or ended.code == os.EX_TEMPFAIL:
        raise _untried(ended.says() if ended.in_time else "its process did not start in time")
    _check_end(ended, heard, settings)
    return _judge(release, golden, policy.health, settings, heard)


def _line_length(path: str) -> int:
    """Return how many bytes the trial's process may write about a file."""
    return len(json.dumps(path)) + len('{"at": "loading "}\n')


def _golden(release: Release, folder: Path) -> Golden | None:
    if release.golden is None:
        return None
    file = release.file(release.golden)
    if file is None:
        return None
    with _open(folder, file) as opened:
        return Golden.parse(opened.read(file.blob.length))


def _allow_open(count: int) -> None:
    """Let this process have so many files open at once, or as many as its administrator allows."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < count:
        most = count if hard == resource.RLIM_INFINITY else min(count, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))


def _open(folder: Path, file: ReleaseFile) -> Any:
    try:
        return open_file(folder, file.path)
    except OSError as error:
        raise _untried(f"{file.path} cannot be read: {error.strerror}") from error


def _untried(reason: str) -> Unavailable:
    return Unavailable(f"the model could not be tried: {reason}", _LOOK, Gate.HEALTH)


def _request(
    release: Release,
    golden: Golden | None,
    gate: HealthGate,
    settings: HealthSettings,
    descriptors: Mapping[str, int],
) -> dict[str, Any]:
    files = [
        {
            "path": file.path,
            "runtime": RUNTIMES.get(file.format),
            "descriptor": descriptors[file.path],
        }
        for file in release.files
    ]
    runtimes = sorted({file["runtime"] for file in files if file["runtime"]})
    return {
        "files": files,
        # Golden cases are compared, and npy and safetensors read, by numpy.
        "runtimes": ["numpy", *(name for name in runtimes if name != "numpy")] if runtimes else [],
        "cases": [_case(case, golden, gate) for case in golden.cases] if golden else [],
        "memory": settings.memory,
        "seconds": math.ceil(settings.timeout) + 1,
        "user": _user(settings),
    }


def _case(case: Case, golden: Golden, gate: HealthGate) -> dict[str, Any]:
    most = math.inf if gate.tolerance is None else gate.tolerance
    return {
        "file": case.file,
        "inputs": {name: tensor.to_dict() for name, tensor in case.inputs.items()},
        "outputs": {name: tensor.to_dict() for name, tensor in case.outputs.items()},
        "absolute": min(golden.absolute, most),
        "relative": min(golden.relative, most),
    }


def _user(settings: HealthSettings) -> tuple[int, int] | None:
    """Return whom the trial's process becomes: nobody else, unless the updater is root."""
    if os.geteuid() != 0:
        return None
    try:
        entry = pwd.getpwnam(settings.user)
    except KeyError as error:
        raise _untried(f"there is no user {settings.user!r}, which [health] names") from error
    return entry.pw_uid, entry.pw_gid


def _check_end(ended: process.Ended, heard: _Heard, settings: HealthSettings) -> None:
    """Roll back a model at which the trial's process did not come to its end (attack row 30)."""
    if not ended.in_time:
        raise RolledBack(f"{heard.at} took longer than {settings.timeout:g} seconds", _TELL)
    if heard.done is None or ended.code != 0:
        raise RolledBack(f"{heard.at} failed: {ended.says()}", _TELL)


def _judge(
    release: Release,
    golden: Golden | None,
    gate: HealthGate,
    settings: HealthSettings,
    heard: _Heard,
) -> str:
    """Hold what the trial found against the policy; return it for people."""
    done, confined = heard.done or {}, heard.confined or {}
    if settings.isolated and not confined["network"]:
        raise _untried("its process could not be cut off from the network, as [health] demands")
    findings = [_loaded(release, done["versions"])]
    cases, milliseconds, memory = done["cases"], done["milliseconds"], done["memory"]
    if golden is None:
        findings.append("no golden outputs to compare with")
    elif cases < len(golden.cases):
        missing = _missing(release, golden, done["versions"])
        findings.append(f"{len(golden.cases) - cases} golden cases not run: no {missing} here")
    else:
        findings.append(f"{cases} golden cases answered as expected")
    if gate.required and (golden is None or cases < len(golden.cases)):
        raise RolledBack(
            f"its policy demands that it is run, but {findings[-1]}",
            "install the runtime where modelward runs, or have the model's policy changed",
        )
    if milliseconds is not None:
        findings.append(f"{milliseconds:.3g} ms a run")
        if gate.latency_ms is not None and milliseconds > gate.latency_ms:
            raise RolledBack(
                f"a run takes {milliseconds:.3g} ms, at most {gate.latency_ms:g} are allowed",
                _TELL,
            )
    if memory is not None:
        findings.append(f"{memory >> 20} MiB of memory at most")
        if gate.memory is not None and memory > gate.memory:
            raise RolledBack(
                f"it takes {memory} bytes of memory, at most {gate.memory} are allowed", _TELL
            )
    how = " and ".join(confined["network"])
    findings.append(f"no network: {how}" if how else "network could not be cut off")
    findings += confined["others"]
    return "; ".join(findings)


def _loaded(release: Release, versions: Mapping[str, str]) -> str:
    by_runtime: dict[str, list[str]] = {}
    for file in release.files:
        name = RUNTIMES.get(file.format)
        if name is None:
            how = "read"
        elif name in versions:
            how = f"loaded by {name} {versions[name]}"
        else:
            how = f"read, not loaded: no {name} here"
        by_runtime.setdefault(how, []).append(file.path)
    return "; ".join(
        f"{paths[0] if len(paths) == 1 else f'{len(paths)} files'} {how}"
        for how, paths in sorted(by_runtime.items(), key=lambda item: item[0] == "read")
    )


def _missing(release: Release, golden: Golden, versions: Mapping[str, str]) -> str:
    """Return what would run the golden cases that were not run."""
    files: Sequence[ReleaseFile | None] = [release.file(case.file) for case in golden.cases]
    names = {RUNTIMES.get(file.format, f"runtime for {file.format}") for file in files if file}
    return " or ".join(sorted(names - versions.keys()))


def run_command(
    release: Release, folder: Path, settings: HealthSettings, environment: Mapping[str, str]
) -> str | None:
    """Run the operator's own check of a release that was just switched to.

    Args:
        release: The release.
        folder: Its files, as MODELWARD_PATH.
        settings: What names the command.
        environment: The updater's environment, which the command gets, too.

    Returns:
        What was found, for people; None if there is no command.

    Raises:
        RolledBack: The command says no, takes too long or cannot be run.
    """
    if not settings.command:
        return None
    name = f"{release.model} {release.version}: the command {settings.command[0]!r}"
    told = {
        "MODELWARD_MODEL": release.model,
        "MODELWARD_VERSION": release.version,
        "MODELWARD_PATH": str(folder),
    }
    try:
        ended = process.run_leashed(settings.command, {**environment, **told}, settings.timeout)
    except OSError as error:
        raise RolledBack(
            f"{name} cannot be run: {error.strerror}", "correct `command` in [health]"
        ) from error
    if not ended.in_time:
        raise RolledBack(f"{name} took longer than {settings.timeout:g} seconds", _LOOK)
    if ended.code:
        raise RolledBack(f"{name} says no: {ended.says()}", _LOOK)
    return f"{settings.command[0]} is content"
