"""The smallest honest files of formats, written by hand: a world has hundreds of them."""

import json
import struct

Field = tuple[int, int | bytes]


def message(*fields: Field) -> bytes:
    """Return a Protocol Buffers message: integers as varints, the rest by length."""
    parts = []
    for number, value in fields:
        if isinstance(value, int):
            parts.append(varint(number << 3) + varint(value))
        else:
            parts.append(varint(number << 3 | 2) + varint(len(value)) + value)
    return b"".join(parts)


def varint(value: int) -> bytes:
    """Return an integer as Protocol Buffers write it."""
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def tensor(data: bytes, name: bytes = b"weights", width: int = 1) -> bytes:
    """Return data as an ONNX tensor of bytes; of floats, if an element has four of them."""
    return message((1, len(data) // width), (2, 2 if width == 1 else 1), (8, name), (9, data))


def onnx_file(weights: bytes, width: int = 1) -> bytes:
    """Return an ONNX model that answers what it is asked, and carries these weights besides."""
    shape = message((1, message((1, 1))))
    kind = message((1, message((1, 1), (2, shape))))
    ask, answer = (message((1, name), (2, kind)) for name in (b"x", b"y"))
    node = message((1, b"x"), (2, b"y"), (4, b"Identity"))
    graph = message(
        (1, node), (2, b"echo"), (5, tensor(weights, width=width)), (11, ask), (12, answer)
    )
    return message((1, 8), (7, graph), (8, message((2, 17))))


_HALF = {"dtype": "float32", "shape": [1], "values": [0.5]}
# What the model of `onnx_file` answers.
ECHO = json.dumps(
    {
        "schema": "modelward/golden/1",
        "cases": [{"file": "model.onnx", "inputs": {"x": _HALF}, "outputs": {"y": _HALF}}],
    }
).encode()


def gguf_file(weights: bytes) -> bytes:
    """Return a GGUF file with one tensor of these bytes."""
    text = [b"general.architecture", struct.pack("<I", 8), b"test"]
    head = b"GGUF" + struct.pack("<IQQ", 3, 1, 2)
    head += _text(text[0]) + text[1] + _text(text[2])
    head += _text(b"tokens") + struct.pack("<IIQ", 9, 8, 2) + _text(b"a") + _text(b"b")
    head += _text(b"weights") + struct.pack("<IQIQ", 1, len(weights), 24, 0)
    padding = bytes(-len(head) % 32)
    return head + padding + weights + bytes(-len(weights) % 32)


def _text(text: bytes) -> bytes:
    return struct.pack("<Q", len(text)) + text


def safetensors_file(weights: bytes) -> bytes:
    """Return a safetensors file with one tensor of these bytes."""
    return safetensors_head(len(weights)) + weights


def safetensors_head(length: int) -> bytes:
    """Return the beginning of a safetensors file, up to its one tensor of so many bytes."""
    entry = {"dtype": "U8", "shape": [length], "data_offsets": [0, length]}
    header = json.dumps({"weights": entry}).encode()
    return struct.pack("<Q", len(header)) + header
