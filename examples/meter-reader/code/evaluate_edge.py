"""Measure the int8 model on the holdout set, with the runtime that the device uses.

Runs EDGE_DIR/model.onnx in onnxruntime on the images in DATA_HOLDOUT_DIR; writes accuracy,
macro F1, the recall of the worst digit and the number of samples to OUT_METRICS_JSON, and a few
images with its answers to OUT_GOLDEN_JSON.
"""

import argparse
import sys
from pathlib import Path

import numpy as np
import onnxruntime

sys.dont_write_bytecode = True  # the workspace is attested: leave nothing beside the outputs

from dataset import load_split
from golden import save_golden
from metrics import measure, save_metrics

GOLDEN = 3  # images: enough to notice a device that computes otherwise
OUTPUTS = ["digit", "probabilities"]


def evaluate_edge(model: Path, data: Path, golden: Path) -> dict[str, float | int]:
    """Metrics of the ONNX file `model` on the split in `data`; writes `golden`.

    Raises:
        OSError: A file is missing or unreadable.
        ValueError: A file is not what the step before writes.
    """
    holdout = load_split(data)
    session = _open_session(model)
    # One image at a time, as the device does: the scale of the int8 activations is taken from
    # everything in a batch, so that images read together would change each other's answers.
    images = [row[np.newaxis] for row in holdout.pixels]
    answers = [session.run(OUTPUTS, {"image": image}) for image in images]
    cases = [
        ({"image": image}, dict(zip(OUTPUTS, answer, strict=True)))
        for image, answer in zip(images[:GOLDEN], answers, strict=False)
    ]
    save_golden("model.onnx", cases, golden)
    return measure(holdout.labels, np.concatenate([digit for digit, _ in answers]))


def _open_session(model: Path) -> onnxruntime.InferenceSession:
    content = model.read_bytes()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    try:
        return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime has no public base class for its errors
        raise ValueError(f"{model}: onnxruntime cannot load it: {error}") from error


def main() -> str | None:
    """Run the command; a returned text is the error."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("edge", metavar="EDGE_DIR", type=Path, help="what convert.py wrote")
    parser.add_argument("data", metavar="DATA_HOLDOUT_DIR", type=Path, help="the holdout set")
    parser.add_argument("out", metavar="OUT_METRICS_JSON", type=Path, help="file to write")
    parser.add_argument("golden", metavar="OUT_GOLDEN_JSON", type=Path, help="file to write")
    arguments = parser.parse_args()
    try:
        metrics = evaluate_edge(arguments.edge / "model.onnx", arguments.data, arguments.golden)
        save_metrics(metrics, arguments.out)
    except (OSError, ValueError) as error:
        return f"evaluate_edge: {error}"
    found = f"accuracy {metrics['accuracy']} on {metrics['samples']} images"
    print(f"evaluate_edge: {found}, int8 model")
    return None


if __name__ == "__main__":
    sys.exit(main())
