"""Tensors are found where the formats' own libraries find them, and nothing else is one."""

import json
import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from modelward_repo.publish.delta.files import opened
from modelward_repo.publish.delta.tensors import parts_of, tensors_of
from tests.transfer.patch.pairs import Tensor, safetensors

OVERLAPPING = (
    '{"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]},'
    '"b": {"dtype": "F32", "shape": [1], "data_offsets": [2, 6]}}'
)


@pytest.fixture
def found(tmp_path):
    """Return a file's tensors, and their bytes by name."""

    def read(data: bytes):
        path = tmp_path / "file"
        path.write_bytes(data)
        with opened(path) as file:
            tensors = tensors_of(file)
            parts = parts_of(file)
        assert [part.start for part in parts] == [0, *(part.end for part in parts)][: len(parts)]
        assert not parts or parts[-1].end == len(data)
        return tensors, {tensor.name: data[tensor.start : tensor.end] for tensor in tensors}

    return read


def test_safetensors(found):
    tensors = {
        "a": Tensor("BF16", 2, 3, bytes(range(12))),
        "empty": Tensor("F32", 0, 3, b""),
        "b": Tensor("I64", 1, 2, bytes(range(16))),
    }
    listed, contents = found(safetensors(tensors, "a note"))
    assert contents == {"a": bytes(range(12)), "b": bytes(range(16))}
    assert [(one.type, one.shape, one.width, one.is_float) for one in listed] == [
        ("BF16", (2, 3), 2, True),
        ("I64", (1, 2), 8, False),
    ]


@pytest.mark.parametrize(
    "header",
    [
        "[]",
        '{"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 400]}}',
        '{"a": {"dtype": "F32", "shape": [1], "data_offsets": [-8, 4]}}',
        '{"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 3]}}',
        '{"a": {"dtype": "F32", "shape": [1], "data_offsets": [0]}}',
        OVERLAPPING,
        '{"a": {"dtype": ["F32"], "shape": [1], "data_offsets": [0, 4]}}',
        '{"a": "b"}',
        "[" * 5_000,
    ],
)
def test_a_header_that_lies_has_no_tensors(found, header):
    data = struct.pack("<Q", len(header)) + header.encode() + bytes(16)
    assert found(data) == ([], {})


def graph(name: str, initializers, nodes=()):
    outputs = [helper.make_tensor_value_info("out", TensorProto.FLOAT, [1])]
    return helper.make_graph(list(nodes), name, [], outputs, initializer=list(initializers))


def test_onnx_at_any_depth(found):
    numbers = np.random.default_rng(1)
    arrays = {
        "weights": numbers.standard_normal((4, 5), np.float32),
        "half": numbers.standard_normal(7).astype(np.float16),
        "ids": numbers.integers(0, 9, (2, 2, 2)),
        "inner": numbers.standard_normal(3),
        "bytes": numbers.integers(0, 255, 300).astype(np.uint8),
    }
    tensors = {name: numpy_helper.from_array(array, name) for name, array in arrays.items()}
    constant = helper.make_node("Constant", [], ["c"], "const", value=tensors["bytes"])
    branch = graph("branch", [tensors["inner"]], [constant])
    choice = helper.make_node("If", ["x"], ["y"], "choice", then_branch=branch, else_branch=branch)
    listed = helper.make_tensor("listed", TensorProto.FLOAT, [2], [1.0, 2.0])  # as float_data
    top = graph("top", [tensors["weights"], tensors["half"], tensors["ids"], listed], [choice])
    listed, contents = found(helper.make_model(top).SerializeToString())
    assert contents.pop("listed") == struct.pack("<2f", 1, 2)
    assert contents == {name: array.tobytes() for name, array in arrays.items()}
    by_name = {one.name: one for one in listed}
    for name, array in arrays.items():
        assert by_name[name].shape == array.shape
        assert by_name[name].width == array.itemsize
        assert by_name[name].is_float == (array.dtype.kind == "f")
    assert sum(one.name == "inner" for one in listed) == 2  # one a branch


def test_unnamed_constants_are_known_by_their_place(found):
    nodes = [
        helper.make_node("Constant", [], [f"c{number}"], value=helper.make_tensor(
            "", TensorProto.FLOAT, [1], struct.pack("<f", number), raw=True
        ))
        for number in range(3)
    ]  # fmt: skip
    listed, _ = found(helper.make_model(graph("top", [], nodes)).SerializeToString())
    assert len({one.name for one in listed}) == 3


def test_a_model_that_is_too_deep_has_no_tensors(found):
    def field(number: int, content: bytes) -> bytes:
        length, tag = len(content), number << 3 | 2
        return bytes([tag, length & 0x7F | 0x80, length >> 7]) + content

    tensor = numpy_helper.from_array(np.ones(9, np.float32), "deep").SerializeToString()
    inner = field(5, tensor)  # GraphProto.initializer
    for depth in range(12):
        assert len(found(field(7, inner))[0]) == (depth <= 10)  # ModelProto.graph
        attribute = field(6, inner)  # AttributeProto.g
        inner = field(1, field(5, attribute))  # GraphProto.node, NodeProto.attribute


@pytest.mark.fuzz
@given(data=st.binary(max_size=300), json_text=st.recursive(
    st.none() | st.integers(-9, 99) | st.text(max_size=3) | st.sampled_from(("F32", "dtype")),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(st.sampled_from(("a", "dtype", "shape", "data_offsets")), inner),
))  # fmt: skip
def test_anything_may_be_read(tmp_path_factory, data, json_text):
    path = tmp_path_factory.getbasetemp() / "anything"
    header = json.dumps(json_text).encode()
    model = helper.make_model(graph("top", [])).SerializeToString()
    for content in (data, struct.pack("<Q", len(header)) + header + data, model + data):
        path.write_bytes(content)
        with opened(path) as file:
            parts = parts_of(file)
        assert sum(part.end - part.start for part in parts) == len(content)
        assert all(part.end > part.start for part in parts)
