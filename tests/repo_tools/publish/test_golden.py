"""golden.json as the command makes it: what the model answers here, held against it by gate 12."""

import json
from pathlib import Path

import numpy as np
import pytest

from modelward.config.health import HealthSettings
from modelward.errors import ExitCode, RolledBack
from modelward.formats.golden import Golden
from modelward.formats.policy import HealthGate
from modelward.install import health
from tests.attacks import hostile_models
from tests.install.site import Site as Device
from tests.install.site import chain
from tests.repo_tools.site import run
from tests.simulator.model_files import onnx_file

MODEL = "model.onnx"


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / MODEL
    path.write_bytes(onnx_file(b"weights"))
    return path


def probe(place: Path, weights: bytes, golden: bytes) -> str:
    device = Device(place / "state")
    item = chain("1.0.0", 1, **{MODEL: weights, "golden.json": golden})
    folder = device.slots.directory(item.model, device.stage(item)) / "files"
    release = type(item.release)(**{**vars(item.release), "golden": "golden.json"})
    policy = type(item.policy)(**{**vars(item.policy), "health": HealthGate(required=True)})
    return health.probe(release, folder, policy, HealthSettings())


def test_what_it_answers_here_it_must_answer_there(model: Path, tmp_path: Path) -> None:
    done = run("golden", model, "--json")
    assert done.code == 0, done
    written = (tmp_path / "golden.json").read_bytes()
    assert json.loads(done.out) == {"path": str(tmp_path / "golden.json"), "cases": 1}
    assert run("golden", model, "-o", tmp_path / "again.json").code == 0
    assert (tmp_path / "again.json").read_bytes() == written
    assert "1 golden cases answered" in probe(tmp_path, model.read_bytes(), written)
    with pytest.raises(RolledBack, match="differs from the golden one"):
        probe(tmp_path / "other", hostile_models.adder(), written)


def test_inputs_of_ones_own(model: Path, tmp_path: Path) -> None:
    for number in (1, 2):
        np.savez(tmp_path / f"{number}.npz", x=np.full(1, number, np.float32))
    inputs = ("--inputs", tmp_path / "1.npz", "--inputs", tmp_path / "2.npz")
    assert run("golden", model, *inputs, "--absolute", "0.5", "--as", "a/m.onnx").code == 0
    golden = Golden.parse((tmp_path / "golden.json").read_bytes())
    assert [case.outputs["y"].data for case in golden.cases] == [
        np.float32(number).tobytes() for number in (1, 2)
    ]
    assert (golden.absolute, {case.file for case in golden.cases}) == (0.5, {"a/m.onnx"})


def test_what_makes_no_sense(model: Path, tmp_path: Path) -> None:
    np.savez(tmp_path / "wrong.npz", z=np.zeros(1, np.float32))
    (tmp_path / "none.npz").write_bytes(b"none")
    (tmp_path / "none.onnx").write_bytes(b"none")
    for arguments, reason in (
        ((model, "--inputs", tmp_path / "wrong.npz"), "does not take these inputs"),
        ((model, "--inputs", tmp_path / "none.npz"), "cannot be read"),
        ((tmp_path / "none.onnx",), "cannot be loaded"),
    ):
        done = run("golden", *arguments)
        assert done.code == ExitCode.USAGE, done
        assert reason in done.err
    assert not (tmp_path / "golden.json").exists()
