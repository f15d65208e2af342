"""Making golden.json: what a model answers here, for devices to be held against (gate 12)."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from modelward.errors import UsageError
from modelward.formats.golden import KINDS, Case, Golden, Tensor

Arrays = Mapping[str, npt.NDArray[Any]]

SEED = 0
MAX_ANY = 2  # the length of a dimension that the model leaves open


def make(
    model: Path, name: str, inputs: Sequence[Arrays], absolute: float, relative: float
) -> Golden:
    """Run a model on inputs and write down its answers.

    Args:
        model: An ONNX file.
        name: Its path in the release.
        inputs: Cases, each an array by the name of the input; empty to make one up.
        absolute: How far an output may be off on devices.
        relative: How far besides, as a part of its own size.

    Raises:
        UsageError: There is no onnxruntime here, or the model does not take the inputs.
    """
    session = _open(model)
    cases = []
    for arrays in inputs or [made_up(session)]:
        outputs = [output.name for output in session.get_outputs()]
        try:
            answers = session.run(outputs, dict(arrays))
        except Exception as error:  # onnxruntime has no public base class for its errors
            raise UsageError(
                f"{model} does not take these inputs: {str(error).splitlines()[0]}",
                f"it takes {_signature(session)}",
            ) from error
        answered = {
            output: _tensor(output, np.asarray(answer))
            for output, answer in zip(outputs, answers, strict=True)
        }
        asked = {key: _tensor(key, array) for key, array in arrays.items()}
        cases.append(Case(name, asked, answered))
    return Golden.parse(Golden(tuple(cases), absolute, relative).to_bytes())


def read_inputs(path: Path) -> Arrays:
    """Read one case from an .npz file, an array for each input.

    Raises:
        UsageError: It is none.
    """
    try:
        with np.load(path, allow_pickle=False) as arrays:
            return {name: arrays[name] for name in arrays.files}
    except (OSError, ValueError, AttributeError, TypeError) as error:
        raise UsageError(
            f"{path} cannot be read: {error}", "write it with numpy.savez(path, input_name=array)"
        ) from error


def made_up(session: Any) -> Arrays:
    """Return numbers from 0 to 1, the same every time, in the shapes that a model asks for.

    Raises:
        UsageError: It asks for something that numbers are not.
    """
    random = np.random.default_rng(SEED)
    found: dict[str, npt.NDArray[Any]] = {}
    for one in session.get_inputs():
        kind = {"float": "float32", "double": "float64"}.get(inner := one.type[7:-1], inner)
        if kind not in KINDS:
            raise UsageError(
                f"the input {one.name!r} is {one.type}: nothing can be made up for it",
                "give --inputs",
            )
        shape = [length if isinstance(length, int) else MAX_ANY for length in one.shape]
        found[one.name] = np.asarray(random.random(shape)).astype(kind)
    return found


def _open(model: Path) -> Any:
    try:
        import onnxruntime  # noqa: PLC0415 - only this command needs it
    except ImportError as error:
        raise UsageError(
            "there is no onnxruntime here to run the model with", "pip install onnxruntime"
        ) from error
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    try:
        return onnxruntime.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime has no public base class for its errors
        raise UsageError(f"{model} cannot be loaded: {str(error).splitlines()[0]}") from error


def _tensor(name: str, array: npt.NDArray[Any]) -> Tensor:
    if str(array.dtype) not in KINDS:
        raise UsageError(
            f"{name!r} is {array.dtype}, which golden.json cannot hold",
            f"it holds {', '.join(KINDS)}",
        )
    data = np.ascontiguousarray(array).astype(array.dtype.newbyteorder("<")).tobytes()
    return Tensor(str(array.dtype), tuple(array.shape), data)


def _signature(session: Any) -> str:
    return ", ".join(f"{one.name}: {one.type} {one.shape}" for one in session.get_inputs())
