"""Honest files of every format, made by the libraries that people make them with."""

import io
import json
import struct
from functools import cache

import flatbuffers
import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from safetensors.numpy import save

from modelward.trust.model_format import Reader, check
from tests.simulator.model_files import gguf_file, message, onnx_file


def reader(data: bytes, name: str = "file") -> Reader:
    """Return a reader of bytes."""
    return Reader(name, len(data), lambda offset, length: data[offset : offset + length])


def look(file_format: str, data: bytes) -> str:
    """Walk bytes as a file of a format."""
    return check(file_format, reader(data))


def onnx_branching() -> bytes:
    """Return a model with a graph in an attribute of a node, and a function of its own."""
    one = helper.make_tensor("one", TensorProto.FLOAT, [1], [1.0])
    two = numpy_helper.from_array(np.arange(6, dtype=np.float32).reshape(2, 3), "two")
    branch = helper.make_graph(
        [helper.make_node("Constant", [], ["b"], value=one)],
        "branch",
        [],
        [helper.make_tensor_value_info("b", TensorProto.FLOAT, [1])],
    )
    graph = helper.make_graph(
        [
            helper.make_node("If", ["c"], ["y"], then_branch=branch, else_branch=branch),
            helper.make_node("Twice", ["y"], ["z"], domain="own"),
        ],
        "branching",
        [helper.make_tensor_value_info("c", TensorProto.BOOL, [])],
        [helper.make_tensor_value_info("z", TensorProto.FLOAT, [1])],
        initializer=[
            two,
            helper.make_tensor("ints", TensorProto.INT64, [3], [-1, 2, 3]),
            helper.make_tensor("halves", TensorProto.FLOAT16, [2], [0.5, 0.25]),
            helper.make_tensor("bools", TensorProto.BOOL, [2], [True, False]),
            helper.make_tensor("words", TensorProto.STRING, [2], [b"a", b"b"]),
            helper.make_tensor("four", TensorProto.INT4, [3], [1, -2, 3]),
            helper.make_tensor("none", TensorProto.FLOAT, [0], []),
            helper.make_tensor("complex", TensorProto.COMPLEX64, [1], [1 + 2j]),
        ],
    )
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("own", 1)]
    double = helper.make_function(
        "own", "Twice", ["x"], ["y"], [helper.make_node("Add", ["x", "x"], ["y"])], opsets[:1]
    )
    model = helper.make_model(graph, opset_imports=opsets, functions=[double], ir_version=10)
    onnx.checker.check_model(model)
    content: bytes = model.SerializeToString()
    return content


def tflite() -> bytes:
    """Return a model of one graph and two buffers."""
    build = flatbuffers.Builder(0)
    data = build.CreateByteVector(b"weights!")

    def table(*fields: tuple[int, int]) -> int:
        build.StartObject(8)
        for number, offset in fields:
            build.PrependUOffsetTRelativeSlot(number, offset, 0)
        return int(build.EndObject())

    def vector(*tables: int) -> int:
        build.StartVector(4, len(tables), 4)
        for offset in reversed(tables):
            build.PrependUOffsetTRelative(offset)
        return int(build.EndVector())

    codes = vector(table())
    graphs = vector(table())
    buffers = vector(table(), table((0, data)))
    build.StartObject(8)
    build.PrependUint32Slot(0, 3, 0)
    for number, offset in ((1, codes), (2, graphs), (4, buffers)):
        build.PrependUOffsetTRelativeSlot(number, offset, 0)
    build.Finish(build.EndObject(), file_identifier=b"TFL3")
    return bytes(build.Output())


def npy(array: np.ndarray) -> bytes:
    """Return an array as numpy saves it."""
    stream = io.BytesIO()
    np.save(stream, array)
    return stream.getvalue()


def sentencepiece() -> bytes:
    """Return a vocabulary of two pieces."""
    score = b"\x15" + struct.pack("<f", -1.5)  # field 2, 32 bits
    pieces = [message((1, text)) + score for text in (b"<unk>", b"the")]
    return message(*((1, piece) for piece in pieces), (2, message((3, 1))))


@cache
def samples() -> dict[str, tuple[str, bytes]]:
    """Return honest files: format and content by name."""
    tensors = {"a": np.ones((3, 4)), "b": np.zeros((0, 2), np.int8), "c": np.array(3.0, np.float16)}
    words = {f'word {number} \\ "é"': [number, None, True] for number in range(50)}
    return {
        "onnx by hand": ("onnx", onnx_file(b"weights")),
        "onnx": ("onnx", onnx_branching()),
        "safetensors": ("safetensors", save(tensors, {"made by": "tests"})),
        "safetensors without tensors": ("safetensors", save({})),
        "gguf": ("gguf", gguf_file(bytes(range(32)))),
        "tflite": ("tflite", tflite()),
        "npy": ("npy", npy(np.ones((2, 3)))),
        "npy of one number": ("npy", npy(np.array(7))),
        "npy of texts": ("npy", npy(np.array(["a", "bcd"]))),
        "npy in another order": ("npy", npy(np.asfortranarray(np.ones((2, 3), ">i2")))),
        "sentencepiece": ("sentencepiece", sentencepiece()),
        "json": ("json", json.dumps(words).encode()),
        "json of a number": ("json", b" -1.5e3\n"),
        "json of a text": ("json", b'"a\\"b"'),
        "signature": ("signature", b'{"mediaType": "x"}\n'),
        "text": ("text", "eins\ttwo\r\nünf\x0c".encode()),
        "nothing": ("text", b""),
        "words that begin like a pickle": ("text", b"cat\ndog\n"),
    }
