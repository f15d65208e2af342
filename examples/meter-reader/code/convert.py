"""Convert the trained model to ONNX and quantise its weights to int8 for the device.

Reads the model in MODEL_DIR; writes OUT_DIR/model.onnx, the file that is deployed: input "image"
(float32, [N, 64]), outputs "digit" (int64, [N]) and "probabilities" (float32, [N, 10]). The same
model gives the same bytes.
"""

import argparse
import logging
import sys
import tempfile
from pathlib import Path

import onnx
from onnxruntime.quantization import QuantType, quantize_dynamic
from skl2onnx import to_onnx
from skl2onnx.common.data_types import FloatTensorType, Int64TensorType
from sklearn.neural_network import MLPClassifier

sys.dont_write_bytecode = True  # the workspace is attested: leave nothing beside the outputs

from dataset import CLASSES
from network import INPUTS, load_network

# Old enough for onnxruntime 1.17, so that devices need not run the newest one.
OPSET = 17
IR_VERSION = 8


def to_float_onnx(network: MLPClassifier) -> onnx.ModelProto:
    """`network` as a float32 ONNX model."""
    model: onnx.ModelProto = to_onnx(
        network,
        name="meter-reader",
        initial_types=[("image", FloatTensorType([None, INPUTS]))],
        final_types=[
            ("digit", Int64TensorType([None])),
            ("probabilities", FloatTensorType([None, CLASSES])),
        ],
        options={"zipmap": False},
        target_opset=OPSET,
    )
    return model


def to_int8_onnx(model: onnx.ModelProto) -> onnx.ModelProto:
    """`model` with int8 weights; activations are quantised as it runs."""
    # It warns that the model was not optimised first, which would tie the bytes to one CPU.
    logging.getLogger().setLevel(logging.ERROR)
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch, "model.onnx")
        # At full range, sums saturate on x86 without VNNI: answers would depend on the CPU.
        quantize_dynamic(model, path, weight_type=QuantType.QInt8, reduce_range=True)
        return onnx.load(path)


def canonical_bytes(model: onnx.ModelProto) -> bytes:
    """`model` without notes on the tools that wrote it, serialised the same way every time."""
    plain = onnx.ModelProto()
    plain.CopyFrom(model)
    plain.ir_version = IR_VERSION
    for field in ("producer_name", "producer_version", "doc_string", "metadata_props"):
        plain.ClearField(field)
    # The converter takes these from a set, whose order changes from one process to the next.
    plain.opset_import.sort(key=lambda entry: entry.domain)
    onnx.checker.check_model(plain, full_check=True)
    content: bytes = plain.SerializeToString(deterministic=True)
    return content


def main() -> str | None:
    """Run the command; a returned text is the error."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", metavar="MODEL_DIR", type=Path, help="what train.py wrote")
    parser.add_argument("out", metavar="OUT_DIR", type=Path, help="directory for model.onnx")
    arguments = parser.parse_args()
    try:
        as_float = to_float_onnx(load_network(arguments.model))
        as_int8 = canonical_bytes(to_int8_onnx(as_float))
        arguments.out.mkdir(parents=True, exist_ok=True)
        (arguments.out / "model.onnx").write_bytes(as_int8)
    except (OSError, ValueError) as error:
        return f"convert: {error}"
    before = len(canonical_bytes(as_float))
    print(f"convert: {before} bytes as float32 ONNX, {len(as_int8)} bytes as int8 ONNX")
    return None


if __name__ == "__main__":
    sys.exit(main())
