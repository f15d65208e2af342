"""ONNX: one Protocol Buffers message with a graph of operators and the weights within it.

Field numbers are those of onnx.proto (https://github.com/onnx/onnx, IR version 3 and later).
"""

from modelward.trust.model_format.protobuf import Found, Message, Tally, Wire, varint, walk
from modelward.trust.model_format.reader import Reader, count_elements

MIN_IR = 3
MAX_IR = 64
MAX_NAME = 256  # bytes of an operator's name that are looked at
# Operators that run Python, or load a file or a device's program that the model names.
FOREIGN_OPS = frozenset({"PyOp", "PythonOp", "PythonOpGrad", "EPContext"})

_BITS = {
    **dict.fromkeys((1, 6, 12), 32),  # float, int32, uint32
    **dict.fromkeys((2, 3, 9, 17, 18, 19, 20, 24), 8),  # (u)int8, bool, float8 of five kinds
    **dict.fromkeys((4, 5, 10, 16), 16),  # (u)int16, float16, bfloat16
    **dict.fromkeys((7, 11, 13, 14), 64),  # (u)int64, double, complex64
    15: 128,  # complex128
    **dict.fromkeys((21, 22, 23), 4),  # (u)int4, float4
    **dict.fromkeys((25, 26), 2),  # (u)int2
}
_STRING = 8
_PARTS = {14: 2, 15: 2}  # a complex number is two
_INTEGER = (Wire.VARINT,)
_INTEGERS = (Wire.VARINT, Wire.BYTES)  # one by one, or packed
_FLOATS = (Wire.FIXED32, Wire.BYTES)
_DOUBLES = (Wire.FIXED64, Wire.BYTES)
_TEXT = (Wire.BYTES,)

# TensorProto
_DIMS, _TYPE, _FLOAT, _INT32, _STRINGS, _INT64, _RAW, _DOUBLE, _UINT64 = 1, 2, 4, 5, 6, 7, 9, 10, 11
_EXTERNAL, _LOCATION = 13, 14
_LISTS = {_FLOAT: 4, _INT32: 1, _INT64: 1, _DOUBLE: 8, _UINT64: 1}  # least bytes of an element


def check(reader: Reader) -> str:
    """Walk an ONNX file.

    Raises:
        FormatError: It is none; a tensor is not as long as its type and dimensions say; weights
            are said to be in another file; an operator runs foreign code.
    """
    totals = _Totals()
    walk(reader, _MODEL, totals)
    return f"{totals.nodes} operators, {totals.tensors} tensors"


class _Totals:
    """What was counted in a whole file."""

    nodes = 0
    tensors = 0


def _judge_model(reader: Reader, found: Found) -> None:
    if not MIN_IR <= found.integer(1) <= MAX_IR:
        raise reader.wrong("ir_version", f"is {found.integer(1)}: this is no ONNX model")
    if not found.spans(7):
        raise reader.wrong("graph", "is missing")
    if not found.spans(8):
        raise reader.wrong("opset_import", "is missing")


def _judge_node(reader: Reader, found: Found) -> None:
    found.context.nodes += 1
    for offset, length in found.spans(4):
        name = reader.read(offset, min(length, MAX_NAME), "op_type").decode("utf-8", "replace")
        if name in FOREIGN_OPS:
            raise reader.wrong(
                f"operator at byte {found.at}", f"{name} runs or loads what is not in this file"
            )


def _judge_tensor(reader: Reader, found: Found) -> None:
    found.context.tensors += 1
    part = f"tensor at byte {found.at}"
    if found.spans(_EXTERNAL) or found.integer(_LOCATION):
        raise reader.wrong(part, "says that its weights are in another file")
    kind = found.integer(_TYPE)
    if kind != _STRING and kind not in _BITS:
        raise reader.wrong(part, f"has the data type {kind}, which is not known")
    elements = count_elements(reader, _dims(reader, found), part)
    if kind == _STRING:
        have, need = found.tallies.get(_STRINGS, Tally()).packed, elements
    elif found.spans(_RAW):
        have, need = found.spans(_RAW)[-1][1], -(-elements * _BITS[kind] // 8)
    else:
        # How many bytes an integer of a list takes is its own affair: it is one at least.
        need = -(-elements * _BITS[kind] // 8) if _BITS[kind] < 8 else elements  # noqa: PLR2004
        need *= _PARTS.get(kind, 1)
        have = min(need, sum(_most(found, number, least) for number, least in _LISTS.items()))
    if have != need:
        raise reader.wrong(part, f"has {have} of what its type and dimensions make {need}")


def _most(found: Found, number: int, least: int) -> int:
    """Return the most numbers that a list can have, each of at least that many bytes."""
    tally = found.tallies.get(number, Tally())
    return tally.single + tally.length // least


def _dims(reader: Reader, found: Found) -> list[int]:
    dims: list[int] = []
    for item in found.fields.get(_DIMS, []):
        if isinstance(item, int):
            dims.append(_signed(item))
            continue
        at, length = item
        end = at + length
        while at < end:
            if len(dims) > 64:  # noqa: PLR2004 - `count_elements` says so
                break
            value, at = varint(reader, at, end)
            dims.append(_signed(value))
    return dims


def _signed(value: int) -> int:
    return value - 2**64 if value >= 2**63 else value


def _messages() -> Message:
    """Return what an ONNX file is, with the messages in it that hold graphs or weights."""
    tensor = Message(
        "TensorProto",
        wires={
            _DIMS: _INTEGERS,
            _TYPE: _INTEGER,
            _LOCATION: _INTEGER,
            _EXTERNAL: _TEXT,
            _FLOAT: _FLOATS,
            _INT32: _INTEGERS,
            _STRINGS: _TEXT,
            _INT64: _INTEGERS,
            _RAW: _TEXT,
            _DOUBLE: _DOUBLES,
            _UINT64: _INTEGERS,
        },
        watch=frozenset((_DIMS, _LOCATION, _EXTERNAL)),
        tally=frozenset((_STRINGS, *_LISTS)),
        once=frozenset((_TYPE, _RAW)),
        judge=_judge_tensor,
    )
    sparse = Message("SparseTensorProto", children={1: tensor, 2: tensor})
    # A graph has nodes, whose attributes have graphs: these two are filled in below.
    nodes: dict[int, Message] = {}
    attributes: dict[int, Message] = {}
    attribute = Message(
        "AttributeProto",
        wires={1: _TEXT, 2: (Wire.FIXED32,), 3: _INTEGER, 4: _TEXT, 7: _FLOATS, 8: _INTEGERS},
        children=attributes,
    )
    node = Message(
        "NodeProto",
        wires={1: _TEXT, 2: _TEXT, 3: _TEXT, 4: _TEXT, 7: _TEXT},
        children={5: attribute},
        once=frozenset((4,)),
        judge=_judge_node,
    )
    graph = Message("GraphProto", wires={2: _TEXT}, children=nodes)
    nodes.update({1: node, 5: tensor, 15: sparse})
    attributes.update({5: tensor, 6: graph, 10: tensor, 11: graph, 22: sparse, 23: sparse})
    function = Message("FunctionProto", children={7: node, 11: attribute})
    training = Message("TrainingInfoProto", children={1: graph, 2: graph})
    return Message(
        "ModelProto",
        wires={1: _INTEGER, 2: _TEXT, 3: _TEXT, 4: _TEXT, 5: _INTEGER, 6: _TEXT, 8: _TEXT},
        children={7: graph, 20: training, 25: function},
        watch=frozenset((8,)),
        once=frozenset((1, 7)),
        judge=_judge_model,
    )


_MODEL = _messages()
