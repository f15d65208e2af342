"""The process in which a new model is tried: `python -I -m modelward.install.try_model`.

Reads one JSON object, confines itself, loads the files it was given open, runs the golden cases,
and writes one JSON object a line: where it is, and at the end what it found. It may crash or be
killed anywhere: whoever started it (`modelward.install.health`) reads where it was.

Nothing of this project is imported but `confine`: what is tried here must not slow it down.
"""

import base64
import importlib
import io
import json
import mmap  # noqa: F401 - numpy imports it late
import os
import statistics
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, TextIO

from modelward.install.confine import Limits, confine, leave

RUNS = 5  # of every golden case, of which the median counts
READ = 1 << 20


def main() -> None:
    """Try what standard input asks for."""
    request = json.load(sys.stdin)
    # Libraries print what they like: to standard error, where nobody takes it for a result.
    with os.fdopen(os.dup(1), "w", buffering=1, encoding="ascii") as result:
        os.dup2(2, 1)
        _try(request, result)


def _try(request: Mapping[str, Any], result: TextIO) -> None:
    left = leave()  # runtimes make threads as they are imported
    runtimes = {name: _load_runtime(name) for name in request["runtimes"]}
    _rehearse(runtimes.get("numpy"))
    user = request["user"]
    limits = Limits(request["memory"], request["seconds"], tuple(user) if user else None)
    held = confine(limits, left)
    _say(result, at="confined", **asdict(held))
    loaded: dict[str, Any] = {}
    for file in request["files"]:
        _say(result, at=f"loading {file['path']}")
        runtime = runtimes.get(file["runtime"])
        if runtime is None:
            _read(file["descriptor"])
        else:
            loaded[file["path"]] = LOADERS[file["runtime"]](runtime, file["descriptor"])
    milliseconds = []
    cases = [case for case in request["cases"] if case["file"] in loaded]
    for number, case in enumerate(cases, 1):
        _say(result, at=f"running golden case {number} of {len(cases)}")
        milliseconds.append(_run(loaded[case["file"]], runtimes["numpy"], case))
    _say(
        result,
        at="done",
        versions={name: module.__version__ for name, module in runtimes.items() if module},
        cases=len(cases),
        milliseconds=max(milliseconds, default=None),
        memory=_peak_memory(),
    )


def _say(result: TextIO, **what: Any) -> None:
    result.write(json.dumps(what) + "\n")


def _load_runtime(name: str) -> Any:
    """Import what loads a format, if this device has it; before privileges are dropped."""
    try:
        return importlib.import_module(name)
    except ImportError:
        return None


def _rehearse(numpy: Any) -> None:
    """Have loaded what loading and comparing import late: it may be out of reach afterwards."""
    if numpy is not None:
        array = io.BytesIO()
        numpy.save(array, numpy.zeros(1))
        array.seek(0)
        numpy.isclose(numpy.load(array, allow_pickle=False), 0.0, equal_nan=True)


def _read(descriptor: int) -> None:
    offset = 0
    while block := os.pread(descriptor, READ, offset):
        offset += len(block)


def _path(descriptor: int) -> str:
    """Return a path under which a library can open the very file that this process was given."""
    return f"/proc/self/fd/{descriptor}"


def _load_onnx(onnxruntime: Any, descriptor: int) -> Any:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 4
    return onnxruntime.InferenceSession(
        _path(descriptor), options, providers=["CPUExecutionProvider"]
    )


def _load_safetensors(safetensors: Any, descriptor: int) -> None:
    with safetensors.safe_open(_path(descriptor), framework="numpy") as opened:
        for name in opened.keys():  # noqa: SIM118 - it is no dictionary
            opened.get_slice(name)


def _load_npy(numpy: Any, descriptor: int) -> None:
    numpy.load(_path(descriptor), mmap_mode="r", allow_pickle=False)


LOADERS = {"onnxruntime": _load_onnx, "safetensors": _load_safetensors, "numpy": _load_npy}


class UnlikeError(Exception):
    """An output is not the golden one."""


def _run(session: Any, numpy: Any, case: Mapping[str, Any]) -> float:
    """Run a golden case; return the median of milliseconds."""
    inputs = {name: _tensor(numpy, item) for name, item in case["inputs"].items()}
    expected = {name: _tensor(numpy, item) for name, item in case["outputs"].items()}
    times = []
    outputs: list[Any] = []
    for _ in range(RUNS):
        begun = time.perf_counter()
        outputs = session.run(list(expected), inputs)
        times.append((time.perf_counter() - begun) * 1000)
    for (name, golden), output in zip(expected.items(), outputs, strict=True):
        _compare(numpy, name, golden, output, case)
    return statistics.median(times)


def _tensor(numpy: Any, item: Mapping[str, Any]) -> Any:
    kind = numpy.dtype(item["dtype"]).newbyteorder("<")
    data = base64.b64decode(item["data"])
    return numpy.frombuffer(data, kind).reshape(item["shape"]).astype(item["dtype"])


def _compare(numpy: Any, name: str, golden: Any, output: Any, case: Mapping[str, Any]) -> None:
    output = numpy.asarray(output)
    if (output.shape, output.dtype) != (golden.shape, golden.dtype):
        raise UnlikeError(
            f"the output {name!r} is {output.dtype} {list(output.shape)}, "
            f"golden is {golden.dtype} {list(golden.shape)}"
        )
    output, golden = numpy.atleast_1d(output), numpy.atleast_1d(golden)
    # Equal, or near: as numbers of 64 bits, large integers would all be near.
    wrong = (output != golden) & ~numpy.isclose(
        output.astype("float64"),
        golden.astype("float64"),
        rtol=case["relative"],
        atol=case["absolute"],
        equal_nan=True,
    )
    if wrong.any():
        place = tuple(int(index[0]) for index in wrong.nonzero())
        raise UnlikeError(
            f"the output {name!r} differs from the golden one in {int(wrong.sum())} of "
            f"{golden.size} elements; at {list(place)} it is {output[place]}, not {golden[place]}"
        )


def _peak_memory() -> int | None:
    """Return the most bytes of memory that this process ever took."""
    try:
        status = Path("/proc/self/status").read_text("ascii", "replace")
    except OSError:
        return None
    (line,) = (line for line in status.splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) * 1024


if __name__ == "__main__":
    try:
        main()
    except ImportError as error:  # a part of the runtime is missing: that is not the model's fault
        sys.stderr.write(f"{error}\n")
        sys.stderr.flush()
        os._exit(os.EX_TEMPFAIL)
    except Exception as error:  # noqa: BLE001 - whatever a runtime raises is a finding
        why = (str(error).splitlines() or [""])[0]
        sys.stderr.write(f"{type(error).__name__}: {why[:500]}\n")
        sys.stderr.flush()
        os._exit(1)
