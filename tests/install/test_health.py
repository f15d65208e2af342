"""Gate 12: what is tried before a model may run."""

import resource
import struct
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from modelward.config.health import HealthSettings
from modelward.errors import ExitCode, Gate, RolledBack, Unavailable
from modelward.formats.golden import Case, Golden, Tensor
from modelward.formats.policy import HealthGate
from modelward.install import health, process
from tests.install.site import Site, chain
from tests.simulator.model_files import onnx_file, safetensors_file
from tests.trust.model_format.samples import npy

FOLDER = Path("/slots/meter-reader/files")
ENVIRONMENT = {"PATH": "/usr/bin:/bin"}


def run_command(*command, **settings):
    settings = HealthSettings(command=command, **settings)
    return health.run_command(chain("1.0.0", 1).release, FOLDER, settings, ENVIRONMENT)


def test_no_command():
    assert run_command() is None


def test_a_command_is_told_what_it_judges():
    script = 'test "$MODELWARD_MODEL $MODELWARD_VERSION $MODELWARD_PATH" = "$0"'
    told = f"meter-reader 1.0.0 {FOLDER}"
    assert run_command("sh", "-c", script, told) == "sh is content"


def test_a_command_says_no():
    with pytest.raises(RolledBack, match=r"says no: exit status 3: reads 7 as 1\n") as refusal:
        run_command("sh", "-c", "echo reads 7 as 1 >&2; exit 3")
    assert (refusal.value.exit_code, refusal.value.gate) == (ExitCode.ROLLED_BACK, Gate.HEALTH)


def test_a_command_hangs():
    with pytest.raises(RolledBack, match="took longer than 1 seconds"):
        run_command("sleep", "600", timeout=1)


def test_a_command_that_is_not_there():
    with pytest.raises(RolledBack, match="cannot be run: No such file"):
        run_command("/no/such/command")


# --- the probe


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path / "state")


def probe(site: Site, policy: HealthGate | None = None, settings=None, **files: bytes) -> str:
    item = chain("1.0.0", 1, **files)
    slot = site.stage(item)
    release = replace(item.release, golden="golden.json" if "golden.json" in files else None)
    return health.probe(
        release,
        site.slots.directory(item.model, slot) / "files",
        replace(item.policy, health=policy or HealthGate()),
        settings or HealthSettings(),
    )


def golden(value: float = 0.5, **tolerance: float) -> bytes:
    ask = Tensor("float32", (1,), struct.pack("<f", 0.5))
    answer = Tensor("float32", (1,), struct.pack("<f", value))
    return Golden((Case("model.onnx", {"x": ask}, {"y": answer}),), **tolerance).to_bytes()


ECHO = {"model.onnx": onnx_file(b"weights")}


def test_a_model_that_works(site: Site):
    found = probe(site, **ECHO, **{"golden.json": golden()})
    assert "model.onnx loaded by onnxruntime" in found
    assert "1 golden cases answered as expected" in found
    assert "no network: " in found


def test_every_format_with_a_runtime_is_loaded(site: Site):
    files = {"w.safetensors": safetensors_file(b"x"), "a.npy": npy(np.ones(3))}
    found = probe(site, **ECHO, **files)
    for path, runtime in (("w.safetensors", "safetensors"), ("a.npy", "numpy")):
        assert f"{path} loaded by {runtime}" in found
    assert "no golden outputs to compare with" in found


def test_outputs_within_tolerance(site: Site):
    assert probe(site, **ECHO, **{"golden.json": golden(0.51, absolute=0.02)})


@pytest.mark.parametrize(
    ("tolerance", "gate"), [({}, None), ({"absolute": 0.02}, HealthGate(tolerance=0.001))]
)
def test_outputs_beyond_tolerance(site: Site, tolerance, gate):
    """The policy's tolerance is the most that golden.json may allow."""
    with pytest.raises(RolledBack, match=r"'y' differs .* in 1 of 1 elements; at \[0\] it is 0.5"):
        probe(site, gate, **ECHO, **{"golden.json": golden(0.51, **tolerance)})


def test_a_model_of_another_shape(site: Site):
    ask = Tensor("float32", (1,), bytes(4))
    answer = Tensor("float64", (1,), bytes(8))
    case = Golden((Case("model.onnx", {"x": ask}, {"y": answer}),)).to_bytes()
    with pytest.raises(RolledBack, match=r"'y' is float32 \[1\], golden is float64 \[1\]"):
        probe(site, **ECHO, **{"golden.json": case})


def test_budgets(site: Site):
    files = {**ECHO, "golden.json": golden()}
    with pytest.raises(RolledBack, match=r"a run takes .* ms, at most 1e-09 are allowed"):
        probe(site, HealthGate(latency_ms=1e-9), **files)
    with pytest.raises(RolledBack, match="bytes of memory, at most 1000 are allowed"):
        probe(site, HealthGate(memory=1000), **files)
    assert probe(site, HealthGate(required=True, latency_ms=60_000, memory=4 << 30), **files)


def test_a_runtime_that_is_not_here(site: Site, monkeypatch):
    monkeypatch.setattr(health, "RUNTIMES", {**health.RUNTIMES, "onnx": "onnxruntime_for_mars"})
    files = {**ECHO, "golden.json": golden()}
    found = probe(site, **files)
    assert "model.onnx read, not loaded: no onnxruntime_for_mars here" in found
    assert "1 golden cases not run: no onnxruntime_for_mars here" in found
    with pytest.raises(RolledBack, match="its policy demands that it is run, but 1 golden cases"):
        probe(site, HealthGate(required=True), **files)


def test_a_trial_that_cannot_be_held_says_nothing_of_the_model(site: Site, monkeypatch):
    monkeypatch.setattr(health.os, "geteuid", lambda: 0)
    with pytest.raises(Unavailable, match="there is no user 'nobody-at-all'") as refusal:
        probe(site, settings=HealthSettings(user="nobody-at-all"), **ECHO)
    assert refusal.value.gate is Gate.HEALTH
    monkeypatch.undo()
    monkeypatch.setattr(health.sys, "executable", "/no/such/python")
    with pytest.raises(Unavailable, match="no process could be started: No such file"):
        probe(site, **ECHO)
    monkeypatch.undo()
    monkeypatch.setattr(health, "TRIAL", "modelward.no_such_module")
    with pytest.raises(Unavailable, match="No module named"):
        probe(site, **ECHO)


def done(versions: str = "{}", **numbers: str) -> str:
    told = {"cases": "0", "milliseconds": "null", "memory": "null", **numbers}
    found = "".join(f', "{name}": {value}' for name, value in told.items())
    return f'{{"at": "done", "versions": {versions}{found}}}'


HUGE = "9" * 4300  # digits: as many as `int` reads, and no sum of it can be written


@pytest.mark.attack(30)
@pytest.mark.parametrize(
    "said",
    [
        '{"at": "done"}',
        done('{"x": "\\u001b[2J"}'),
        done(cases='"9"'),
        done(cases="true"),
        done(cases="-1"),
        done(cases=f"-{HUGE}"),
        done(cases=HUGE),
        done(memory="-1"),
        done(memory="false"),
        done(memory=HUGE),
        done(milliseconds="-1.0"),
        done(milliseconds="NaN"),
        done(milliseconds="Infinity"),
        done(milliseconds="1e300"),
        "[" * 60_000,
        '["at"]',
    ],
)
def test_a_model_that_took_over_its_process_ends_no_update(site: Site, monkeypatch, said):
    """What it says then is believed as little as it is trusted: nothing but a finding is one."""
    held = '{"at": "confined", "network": ["none"], "others": []}'
    script = f"print({held!r}); print({said!r})"
    run = process.run
    monkeypatch.setattr(
        process, "run", lambda _, *rest, **more: run([sys.executable, "-Ic", script], *rest, **more)
    )
    with pytest.raises(RolledBack, match="confined failed: exit status 0"):
        probe(site, **ECHO, **{"golden.json": golden()})


def test_a_model_of_many_files(site: Site):
    """What is said of each of them is heard, up to the end."""
    files = {f"part-{number:04}-{'x' * 120}.json": b"{}" for number in range(600)}
    assert "603 files read" in probe(site, **ECHO, **files)


def test_a_model_of_more_files_than_may_be_open(site: Site):
    """What the administrator allows is asked for; most are started with less."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    files = {f"part-{number:04}.json": b"{}" for number in range(300)}
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard))
    try:
        assert "303 files read" in probe(site, **ECHO, **files)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_secrets_of_the_updater_are_not_handed_on(site: Site, monkeypatch):
    """The trial's process gets an environment of its own, and no descriptor but the files'."""
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "x")
    monkeypatch.setenv("LD_PRELOAD_OF_OURS", "x")
    started = []
    run = process.run

    def spy(arguments, environment, timeout, **options):
        started.append((dict(environment), options))
        return run(arguments, environment, timeout, **options)

    monkeypatch.setattr(process, "run", spy)
    probe(site, **ECHO)
    ((environment, options),) = started
    assert set(environment) <= {"PATH", "LC_ALL", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"}
    assert len(options["descriptors"]) == len(chain("1.0.0", 1, **ECHO).release.files)
