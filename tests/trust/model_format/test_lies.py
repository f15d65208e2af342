"""Attack row 24: files that are not what their suffix says, and headers that lie."""

import json
import pickle
import struct

import numpy as np
import pytest

from modelward.errors import FormatError
from modelward.trust.model_format import CHECKS
from tests.simulator.model_files import gguf_file, message, onnx_file, safetensors_file, tensor
from tests.trust.model_format.samples import look, npy, samples


def refused(file_format: str, data: bytes) -> str:
    with pytest.raises(FormatError) as refusal:
        look(file_format, data)
    return refusal.value.reason


# --- not at all what it says

BOMB = {"weights": [1, 2, 3]}
DISGUISES = {
    "a pickle": pickle.dumps(BOMB, 4),
    "a pickle of protocol 2": pickle.dumps(BOMB, 2),
    "a zip archive": b"PK\x03\x04" + bytes(100),
    "a program": b"\x7fELF" + bytes(100),
    "a script": b"#!/bin/sh\nrm -rf /\n",
    "an HDF5 file": b"\x89HDF\r\n\x1a\n" + bytes(100),
    "compressed": b"\x1f\x8b" + bytes(100),
}


@pytest.mark.parametrize("file_format", CHECKS)
@pytest.mark.parametrize("what", DISGUISES)
def test_disguise(file_format, what):
    assert what.partition(" of ")[0] in refused(file_format, DISGUISES[what])


def test_a_pickle_without_a_magic():
    assert "is a pickle" in refused("text", pickle.dumps(BOMB, 0))
    assert "is a pickle" in refused("text", b"cos\nsystem\n(S'true'\ntR.")


@pytest.mark.parametrize("file_format", sorted(CHECKS.keys() - {"text"}))
def test_nothing(file_format):
    refused(file_format, b"")


@pytest.mark.parametrize("name", sorted(samples().keys() - {"nothing"}))
def test_cut_short(name):
    file_format, data = samples()[name]
    if file_format == "text" or name == "json of a number":
        pytest.skip("a shorter text is a text")
    refused(file_format, data[:-1] if file_format != "signature" else data[:-2])


# --- safetensors


def header(entries: object, data: bytes = b"") -> bytes:
    text = entries if isinstance(entries, bytes) else json.dumps(entries).encode()
    return struct.pack("<Q", len(text)) + text + data


def entry(dtype="F32", shape=(1,), offsets=(0, 4)):
    return {"dtype": dtype, "shape": list(shape), "data_offsets": list(offsets)}


FOUR = b"1234"
SAFETENSORS = {
    "longer than the file": (struct.pack("<Q", 100) + b"{}", "claims bytes 8 to 108 of a file"),
    "huge": (struct.pack("<Q", 1 << 62) + b"{}", "at most 8388608 is allowed"),
    "not JSON": (header(b"{weights}"), "is not JSON"),
    "a list": (header([]), "does not begin with {"),
    "a name twice": (
        header(b'{"a":{"dtype":"U8","shape":[0],"data_offsets":[0,0]},"a":{}}'),
        "appears twice",
    ),
    "an unknown type": (header({"a": entry("F33")}, FOUR), "'F33' is not known"),
    "too few bytes": (header({"a": entry(shape=[2])}, FOUR), "dtype and shape make it 8"),
    "beyond the end": (header({"a": entry(shape=[2], offsets=[0, 8])}, FOUR), "accounts for"),
    "bytes that nobody accounts for": (header({"a": entry()}, FOUR * 2), "accounts for"),
    "an overlap": (
        header({"a": entry(), "b": entry(offsets=[2, 6])}, FOUR * 2),
        "b: overlaps with the one before",
    ),
    "a gap": (header({"a": entry(), "b": entry(offsets=[6, 10])}, FOUR * 3), "leaves a gap"),
    "backwards": (header({"a": entry(offsets=[4, 0])}, FOUR), "where it begins and where it ends"),
    "a negative length": (header({"a": entry(shape=[-1])}, FOUR), "integers from 0"),
    "a length that is no integer": (header({"a": entry(shape=[1.0])}, FOUR), "integers from 0"),
    "a product that overflows": (
        header({"a": entry(shape=[1 << 40, 1 << 40])}, FOUR),
        "more elements than the file has bits",
    ),
    "metadata that is no text": (header({"__metadata__": {"a": 1}}), "must be texts by name"),
    "deep": (header(b'{"a":' + b"[" * 100 + b"]" * 100 + b"}"), "nested deeper"),
}


@pytest.mark.parametrize("lie", SAFETENSORS)
def test_safetensors(lie):
    data, reason = SAFETENSORS[lie]
    assert reason in refused("safetensors", data)


# --- ONNX


def model(graph: bytes, *more: tuple[int, int | bytes]) -> bytes:
    return message((1, 8), (7, graph), (8, message((2, 17))), *more)


def deep(levels: int) -> bytes:
    """Return graphs in attributes of nodes of graphs."""
    graph = message((2, b"innermost"))
    for _ in range(levels):
        graph = message((1, message((4, b"If"), (5, message((6, graph))))))
    return model(graph)


def weights(*fields: tuple[int, int | bytes]) -> bytes:
    return model(message((5, message(*fields))))


HUGE = b"\x3a\xff\xff\xff\xff\x7f"  # field 7, 34 GB long
ONNX = {
    "a graph longer than the file": (HUGE + b"x", "claims 34359738367 bytes of 1"),
    "an integer that does not end": (b"\x08" + b"\xff" * 20, "does not end"),
    "a group": (b"\x0b\x0c", "this is not protobuf"),
    "noise": (bytes(range(200, 256)), "does not end"),
    "no graph": (message((1, 8), (8, message((2, 17)))), "graph: is missing"),
    "no version": (message((7, b""), (8, b"")), "this is no ONNX model"),
    "no operators' versions": (message((1, 8), (7, b"")), "opset_import: is missing"),
    "two graphs": (model(b"", (7, b"")), "stands there twice"),
    "a graph written as a number": (message((1, 8), (7, 1)), "is written as varint"),
    "too deep": (deep(40), "nested deeper than 64 levels"),
    "weights in another file": (
        weights((1, 1), (2, 1), (13, message((1, b"location"), (2, b"../../etc/passwd")))),
        "says that its weights are in another file",
    ),
    "weights said to be elsewhere": (weights((1, 1), (2, 1), (14, 1)), "in another file"),
    "more weights than there are": (
        weights((1, 1 << 30), (2, 2), (9, b"1234")),
        "has more elements than the file has bits",
    ),
    "fewer weights than there are": (weights((1, 3), (2, 2), (9, b"1234")), "has 4 of what"),
    "no weights": (weights((1, 5), (2, 1)), "has 0 of what its type and dimensions make 5"),
    "a negative dimension": (weights((1, 2**64 - 1), (2, 1)), "negative dimension"),
    "an unknown type": (weights((1, 1), (2, 99)), "data type 99"),
    "many dimensions": (weights(*[(1, 1)] * 70, (2, 2), (9, b"1")), "has 70 dimensions"),
    "an operator that runs Python": (
        model(message((1, message((4, b"PyOp"), (7, b"ai.onnx.contrib"))))),
        "PyOp runs or loads what is not in this file",
    ),
    "a lie deep down": (
        model(message((1, message((4, b"Constant"), (5, message((5, message((1, 9), (2, 2))))))))),
        "has 0 of what its type and dimensions make 9",
    ),
    "something after the end": (onnx_file(b"x") + b"\x00", "is not protobuf"),
}


@pytest.mark.parametrize("lie", ONNX)
def test_onnx(lie):
    data, reason = ONNX[lie]
    assert reason in refused("onnx", data)


def test_onnx_tensor_by_hand_is_honest():
    assert look("onnx", model(message((5, tensor(b"1234"))))) == "0 operators, 1 tensors"


# --- GGUF


def patched(data: bytes, old: bytes, new: bytes) -> bytes:
    assert data.count(old) == 1
    return data.replace(old, new)


def gguf(version: int = 3, tensors: int = 0, pairs: int = 0, rest: bytes = b"") -> bytes:
    return b"GGUF" + struct.pack("<IQQ", version, tensors, pairs) + rest


def text(value: bytes) -> bytes:
    return struct.pack("<Q", len(value)) + value


HONEST = gguf_file(b"weights")
TABLE = struct.pack("<IQIQ", 1, 7, 24, 0)  # dimensions, type and offset of its one tensor
ALIGNMENT = text(b"general.alignment") + struct.pack("<I", 4)
GGUF = {
    "another magic": (b"GGML" + HONEST[4:], "is not that of GGUF"),
    "big-endian": (b"GGUF" + struct.pack(">I", 3) + HONEST[8:], "not 2 or 3"),
    "countless tensors": (gguf(tensors=1 << 60), "at most 131072 are allowed"),
    "countless pairs": (gguf(pairs=1 << 60), "at most 65536 are allowed"),
    "a key longer than the file": (gguf(pairs=1, rest=struct.pack("<Q", 60_000)), "claims bytes"),
    "a huge key": (gguf(pairs=1, rest=struct.pack("<Q", 1 << 50)), "at most 65535 are allowed"),
    "a value of an unknown type": (gguf(pairs=1, rest=text(b"k") + b"\x63\0\0\0"), "type 99"),
    "a text longer than the file": (
        gguf(pairs=1, rest=text(b"k") + struct.pack("<IQ", 8, 1 << 40)),
        "claims bytes",
    ),
    "an array longer than the file": (
        gguf(pairs=1, rest=text(b"k") + struct.pack("<IIQ", 9, 10, 1 << 61)),
        "claims bytes",
    ),
    "countless texts": (
        gguf(pairs=1, rest=text(b"k") + struct.pack("<IIQ", 9, 8, 1 << 40)),
        "which is too much",
    ),
    "arrays in arrays": (
        gguf(pairs=1, rest=text(b"k") + struct.pack("<I", 9) + struct.pack("<IQ", 9, 1) * 9),
        "which is too much",
    ),
    "a key twice": (
        gguf(pairs=2, rest=(text(b"k") + struct.pack("<IB", 0, 1)) * 2),
        "stands there twice",
    ),
    "an alignment of 0": (gguf(pairs=1, rest=ALIGNMENT + bytes(4)), "is 0, not a power of two"),
    "an alignment of 3": (gguf(pairs=1, rest=ALIGNMENT + b"\x03\0\0\0"), "not a power of two"),
    "a tensor beyond the end": (
        patched(HONEST, TABLE, struct.pack("<IQIQ", 1, 70, 24, 0)),
        "claims bytes",
    ),
    "a tensor shorter than its bytes": (
        patched(HONEST, TABLE, struct.pack("<IQIQ", 1, 7, 24, 64)),
        "leaves a gap before it",
    ),
    "an offset that is not aligned": (
        patched(HONEST, TABLE, struct.pack("<IQIQ", 1, 7, 24, 3)),
        "not at a multiple of 32",
    ),
    "an unknown type": (patched(HONEST, TABLE, struct.pack("<IQIQ", 1, 7, 99, 0)), "type 99"),
    "half a block": (
        patched(HONEST, TABLE, struct.pack("<IQIQ", 1, 7, 2, 0)),
        "not whole blocks of 32",
    ),
    "many dimensions": (
        patched(HONEST, TABLE, struct.pack("<IQIQ", 9, 7, 24, 0)),
        "has 9 dimensions",
    ),
    "something after the end": (HONEST + bytes(64), "goes on after its last tensor"),
}


@pytest.mark.parametrize("lie", GGUF)
def test_gguf(lie):
    data, reason = GGUF[lie]
    assert reason in refused("gguf", data)


# --- TensorFlow Lite, npy, sentencepiece, texts

TFLITE = samples()["tflite"][1]


def test_tflite():
    assert "identifier" in refused("tflite", TFLITE[:4] + b"TFL2" + TFLITE[8:])
    assert "claims bytes" in refused("tflite", struct.pack("<I", 1 << 31) + TFLITE[4:])
    length = struct.pack("<I", len(b"weights!"))
    assert "buffer" in refused("tflite", patched(TFLITE, length + b"weights!", b"\xff" * 12))


ARRAY = npy(np.ones((2, 3)))
NPY = {
    "objects": (npy(np.array([{}], object)), "Python objects, which are a pickle"),
    "fields": (npy(np.zeros(2, [("a", "<i4"), ("b", "<f8")])), "not that of a plain array"),
    "another shape": (patched(ARRAY, b"(2, 3)", b"(9, 3)"), "makes 216 bytes, the file has 48"),
    "code": (patched(ARRAY, b"False", b"exit("), "not that of a plain array"),
    "another version": (ARRAY[:6] + b"\x09" + ARRAY[7:], "must be 1.0, 2.0 or 3.0"),
    "something after the end": (ARRAY + b"x", "makes 48 bytes, the file has 49"),
}


@pytest.mark.parametrize("lie", NPY)
def test_npy(lie):
    data, reason = NPY[lie]
    assert reason in refused("npy", data)


def test_sentencepiece():
    assert "pieces: are missing" in refused("sentencepiece", message((2, b"")))
    assert "is written as" in refused("sentencepiece", message((1, message((1, 7)))))


JSON = {
    "not UTF-8": (b'{"a": "\xff"}', "is not UTF-8"),
    "a NUL": (b'{"a": "\0"}', "has a NUL"),
    "deep": (b"[" * 65 + b"]" * 65, "nested deeper than 64 levels"),
    "a bracket too many": (b'{"a": 1}}', "goes on after its end"),
    "the wrong bracket": (b'{"a": [1}]', "has a } that closes nothing"),
    "a bracket too few": (b'{"a": [1]', "ends too early"),
    "an open text": (b'{"a": "b\\"', "ends too early"),
    "more after the end": (b'{"a": 1} cos', "goes on after its end"),
    "two documents": (b'"a" "b"', "goes on after its end"),
    "blank": (b" \n", "ends too early"),
    "a word": (b"model", "does not begin as JSON does"),
}


@pytest.mark.parametrize("lie", JSON)
def test_json(lie):
    data, reason = JSON[lie]
    assert reason in refused("json", data)


@pytest.mark.parametrize("before", range(65530, 65540))
def test_json_escapes_across_blocks(before):
    data = b'"' + b"x" * before + b'\\"\\\\"'
    assert look("json", data)
    assert "ends too early" in refused("json", data[:-1])


def test_text():
    assert "is not UTF-8" in refused("text", b"caf\xe9")
    assert "has a NUL" in refused("text", b"a\0b")


def test_safetensors_by_hand_is_honest():
    assert look("safetensors", safetensors_file(b"x")) == "1 tensors"
