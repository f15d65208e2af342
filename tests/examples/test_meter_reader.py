"""The meter reader's pipeline, run as its CI runs it: one process a step, in a workspace."""

import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import onnx
import pytest

EXAMPLE = Path(__file__).parents[2] / "examples" / "meter-reader"
PACKAGE = (
    "package.py --edge edge --metrics metrics/edge/metrics.json --golden metrics/edge/golden.json"
    " --float-metrics metrics/float/metrics.json --ticket ticket.json bundle"
)
PIPELINE = (
    "ingest.py data",
    "train.py data/train model",
    "evaluate.py model data/holdout metrics/float/metrics.json",
    "convert.py model edge",
    "evaluate_edge.py edge data/holdout metrics/edge/metrics.json metrics/edge/golden.json",
    PACKAGE,
)
TICKET = b'{"model": "meter-reader", "version": "1.0.0"}\n'
ACCURACY_FLOOR = 0.95


def run(
    command: str, workspace: Path, environment: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run `python code/<command>` in `workspace`."""
    script, *arguments = command.split()
    variables = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    variables.pop("PYTHONDONTWRITEBYTECODE", None)
    return subprocess.run(
        [sys.executable, f"code/{script}", *arguments],
        cwd=workspace,
        env=variables | (environment or {}),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def new_workspace(directory: Path) -> Path:
    sources = shutil.ignore_patterns("__pycache__")
    shutil.copytree(EXAMPLE / "code", directory / "code", ignore=sources)
    (directory / "ticket.json").write_bytes(TICKET)
    return directory


def contents(directory: Path) -> dict[str, bytes]:
    files = (path for path in directory.rglob("*") if path.is_file())
    return {str(path.relative_to(directory)): path.read_bytes() for path in files}


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace after the whole pipeline; tests only read it."""
    directory = new_workspace(tmp_path_factory.mktemp("pipeline"))
    outputs = []
    for command in PIPELINE:
        step = run(command, directory)
        assert step.returncode == 0, step.stderr
        assert step.stderr == ""
        assert step.stdout.count("\n") == 1
        outputs.append(step.stdout)
    (directory.parent / "pipeline.log").write_text("".join(outputs))
    return directory


@pytest.fixture(scope="module")
def read_meter() -> ModuleType:
    specification = importlib.util.spec_from_file_location("read_meter", EXAMPLE / "read_meter.py")
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


def test_a_step_leaves_its_outputs_and_nothing_else(workspace: Path) -> None:
    written = {name for name in contents(workspace) if not name.startswith("code/")}
    arrays = {f"model/{kind}-{n}.npy" for kind in ("weights", "biases") for n in range(3)}
    splits = {
        f"data/{split}/{kind}.npy"
        for split in ("train", "holdout")
        for kind in ("images", "labels")
    }
    bundle = {"model.onnx", "metrics.json", "golden.json", "float/metrics.json", "ticket.json"}
    assert written == {
        "ticket.json",
        *splits,
        "model/model.json",
        *arrays,
        "metrics/float/metrics.json",
        "edge/model.onnx",
        "metrics/edge/metrics.json",
        "metrics/edge/golden.json",
        *(f"bundle/{name}" for name in bundle),
    }
    assert not list((workspace / "code").rglob("__pycache__"))


def test_the_holdout_set_shares_no_image_with_the_training_set(workspace: Path) -> None:
    train, holdout = (
        {image.tobytes() for image in np.load(workspace / "data" / split / "images.npy")}
        for split in ("train", "holdout")
    )
    assert len(train) + len(holdout) == 1797
    assert not train & holdout


def test_every_digit_is_held_out_in_proportion(workspace: Path) -> None:
    train, holdout = (
        np.bincount(np.load(workspace / "data" / split / "labels.npy"))
        for split in ("train", "holdout")
    )
    shares = holdout / (train + holdout)
    assert len(shares) == 10
    assert np.all(np.abs(shares - 0.2) < 0.01)


@pytest.mark.parametrize("kind", ["float", "edge"])
def test_the_model_reads_digits_it_has_not_seen(workspace: Path, kind: str) -> None:
    metrics = json.loads((workspace / "metrics" / kind / "metrics.json").read_bytes())
    assert list(metrics) == ["accuracy", "macro_f1", "worst_digit_recall", "samples"]
    assert metrics["accuracy"] >= ACCURACY_FLOOR
    assert metrics["macro_f1"] >= ACCURACY_FLOOR
    assert 0.85 <= metrics["worst_digit_recall"] <= 1
    assert metrics["samples"] == 355


def test_int8_makes_the_model_less_than_a_third(workspace: Path) -> None:
    log = (workspace.parent / "pipeline.log").read_text()
    as_float, as_int8 = re.search(
        r"convert: (\d+) bytes as float32 ONNX, (\d+) bytes as int8", log
    ).groups()
    assert int(as_int8) == (workspace / "edge" / "model.onnx").stat().st_size
    assert int(as_int8) < int(as_float) / 3


def test_the_onnx_file_keeps_its_interface_and_no_note_of_the_tools(workspace: Path) -> None:
    model = onnx.load(workspace / "edge" / "model.onnx")
    assert [value.name for value in model.graph.input] == ["image"]
    assert [value.name for value in model.graph.output] == ["digit", "probabilities"]
    versions = [(entry.domain, entry.version) for entry in model.opset_import]
    assert versions == [("", 17), ("ai.onnx.ml", 1)]  # sorted: the converter's order is by chance
    assert [model.producer_name, model.producer_version, *model.metadata_props] == ["", ""]
    weights = [tensor for tensor in model.graph.initializer if len(tensor.dims) == 2]
    int8 = [tensor for tensor in weights if tensor.data_type == onnx.TensorProto.INT8]
    assert len(int8) == 3


def test_the_same_inputs_give_the_same_bytes(workspace: Path, tmp_path: Path) -> None:
    again = new_workspace(tmp_path)
    # What differs between two people's machines, as far as one machine can show.
    elsewhere = {"PYTHONHASHSEED": "7", "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    for command in ("ingest.py data", "train.py data/train model", "convert.py model edge"):
        assert run(command, again, elsewhere).returncode == 0
    for directory in ("data", "model", "edge"):
        assert contents(again / directory) == contents(workspace / directory)


def test_the_bundle_holds_the_evaluated_files_byte_for_byte(workspace: Path) -> None:
    assert contents(workspace / "bundle") == {
        "model.onnx": (workspace / "edge" / "model.onnx").read_bytes(),
        "metrics.json": (workspace / "metrics" / "edge" / "metrics.json").read_bytes(),
        "golden.json": (workspace / "metrics" / "edge" / "golden.json").read_bytes(),
        "float/metrics.json": (workspace / "metrics" / "float" / "metrics.json").read_bytes(),
        "ticket.json": TICKET,
    }


def remove(path: Path) -> None:
    path.unlink()


def replace_by_pickle(path: Path) -> None:
    np.save(path, np.array([{"not": "numbers"}], dtype=object), allow_pickle=True)


def replace_by_rubbish(path: Path) -> None:
    path.write_bytes(b"rubbish\n")


def replace_by_other_shape(path: Path) -> None:
    np.save(path, np.zeros((3, 5), np.float32))


def make_file_of_directory(path: Path) -> None:
    shutil.rmtree(path)
    path.write_bytes(b"")


@pytest.mark.parametrize(
    ("damage", "victim", "command", "complaint"),
    [
        (make_file_of_directory, "data", "ingest.py data", "ingest: "),
        (remove, "data/train/labels.npy", PIPELINE[1], "train: .*No such file.*labels.npy"),
        (
            replace_by_pickle,
            "data/train/images.npy",
            PIPELINE[1],
            "images.npy: .*allow_pickle=False",
        ),
        (
            replace_by_other_shape,
            "data/holdout/images.npy",
            PIPELINE[2],
            r"instead of .*\(n, 8, 8\)",
        ),
        (replace_by_rubbish, "model/model.json", PIPELINE[2], "model.json: not a description"),
        (
            replace_by_pickle,
            "model/weights-1.npy",
            PIPELINE[3],
            "weights-1.npy: .*allow_pickle=False",
        ),
        (replace_by_other_shape, "model/weights-1.npy", PIPELINE[3], r"instead of .*\(256, 128\)"),
        (replace_by_rubbish, "edge/model.onnx", PIPELINE[4], "model.onnx: onnxruntime cannot load"),
        (remove, "ticket.json", PACKAGE, "package: no such file: ticket.json"),
        (remove, "bundle/ticket.json", PACKAGE, "package: bundle is not empty: remove it"),
    ],
)
def test_bad_input_is_refused_in_one_clear_line(
    workspace: Path, tmp_path: Path, *, damage, victim: str, command: str, complaint: str
) -> None:
    shutil.copytree(workspace, tmp_path, dirs_exist_ok=True)
    damage(tmp_path / victim)
    before = contents(tmp_path)
    step = run(command, tmp_path)
    assert step.returncode == 1
    assert re.search(complaint, step.stderr)
    assert "Traceback" not in step.stderr
    assert step.stdout == ""
    assert contents(tmp_path) == before


def test_environment_txt_names_the_versions_in_use(tmp_path: Path) -> None:
    run(f"environment.py {tmp_path / 'environment.txt'}", EXAMPLE)
    written = (tmp_path / "environment.txt").read_text()
    assert written == (EXAMPLE / "code" / "environment.txt").read_text(), (
        "run: python examples/meter-reader/code/environment.py"
        " examples/meter-reader/code/environment.txt"
    )


def test_the_sample_display_is_from_the_holdout_set(
    workspace: Path, read_meter: ModuleType
) -> None:
    holdout = zip(
        np.load(workspace / "data" / "holdout" / "images.npy"),
        np.load(workspace / "data" / "holdout" / "labels.npy"),
        strict=True,
    )
    labels = {image.tobytes(): int(label) for image, label in holdout}
    display = read_meter.sample_display()
    assert [labels[image.tobytes()] for image in display.images] == list(display.digits)


def test_the_device_reads_the_sample_display(workspace: Path, read_meter: ModuleType) -> None:
    display = read_meter.sample_display()
    readings = read_meter.read_digits(
        (workspace / "bundle" / "model.onnx").read_bytes(), display.images
    )
    assert [reading.digit for reading in readings] == list(display.digits)
    *picture, read, true, _ = read_meter.render(display, readings)
    assert len(picture) == 8
    assert re.findall(r"read (\d)", read) == re.findall(r"true (\d)", true) == list("0482")


def test_the_device_reads_photographs(workspace: Path, read_meter: ModuleType) -> None:
    display = read_meter.photographed_display(workspace / "data" / "holdout" / "images.npy")
    assert len(display.images) == 355
    assert display.digits is None
    with pytest.raises(ValueError, match="got int64"):
        read_meter.photographed_display(workspace / "data" / "holdout" / "labels.npy")


def test_the_readme_runs_the_commands_tested_here() -> None:
    readme = (EXAMPLE / "README.md").read_text().replace("\\\n    ", "")
    assert re.findall(r"^python code/(.*)$", readme, re.MULTILINE) == list(PIPELINE)
