"""ONNX models that are well-formed, whose runtime loads them, and that are unfit all the same."""

from collections.abc import Sequence

import onnx
from onnx import TensorProto, helper

OPSET = 17
IR_VERSION = 9
LARGEST = 2**63 - 1


def adder() -> bytes:
    """Return a model that answers twice what it is asked: not what its golden outputs say."""
    return _model([helper.make_node("Add", ["x", "x"], ["y"])])


def hang() -> bytes:
    """Return a model that goes round a loop for some thousand years."""
    again, value = (
        helper.make_tensor_value_info(name, kind, shape)
        for name, kind, shape in (("again", TensorProto.BOOL, []), ("v", TensorProto.FLOAT, [1]))
    )
    body = helper.make_graph(
        [
            helper.make_node("Identity", ["again"], ["again_out"]),
            helper.make_node("Identity", ["v"], ["v_out"]),
        ],
        "body",
        [helper.make_tensor_value_info("i", TensorProto.INT64, []), again, value],
        [
            helper.make_tensor_value_info("again_out", TensorProto.BOOL, []),
            helper.make_tensor_value_info("v_out", TensorProto.FLOAT, [1]),
        ],
    )
    return _model(
        [helper.make_node("Loop", ["times", "yes", "x"], ["y"], body=body)],
        [
            helper.make_tensor("times", TensorProto.INT64, [], [LARGEST]),
            helper.make_tensor("yes", TensorProto.BOOL, [], [True]),
        ],
    )


def glutton() -> bytes:
    """Return a model of a few bytes that wants 64 GiB to answer."""
    one = helper.make_tensor("one", TensorProto.FLOAT, [1], [1.0])
    return _model(
        [
            helper.make_node("ConstantOfShape", ["shape"], ["huge"], value=one),
            helper.make_node("ReduceSum", ["huge"], ["sum"], keepdims=0),
            helper.make_node("Add", ["x", "sum"], ["y"]),
        ],
        [helper.make_tensor("shape", TensorProto.INT64, [1], [1 << 34])],
    )


def crasher() -> bytes:
    """Return a model that divides the least integer by -1, which x86 processors do not survive."""
    return _model(
        [
            helper.make_node("Floor", ["x"], ["zero"]),
            helper.make_node("Cast", ["zero"], ["whole"], to=TensorProto.INT64),
            helper.make_node("Add", ["whole", "least"], ["lowest"]),
            helper.make_node("Div", ["lowest", "minus"], ["quotient"]),
            helper.make_node("Cast", ["quotient"], ["y"], to=TensorProto.FLOAT),
        ],
        [
            helper.make_tensor("least", TensorProto.INT64, [1], [-LARGEST - 1]),
            helper.make_tensor("minus", TensorProto.INT64, [1], [-1]),
        ],
    )


def unknown_operator() -> bytes:
    """Return a model with an operator that only its author's library has."""
    nodes = [helper.make_node("Secret", ["x"], ["y"], domain="com.example")]
    return _model(nodes, domains=["com.example"])


def _model(
    nodes: Sequence[onnx.NodeProto],
    weights: Sequence[onnx.TensorProto] = (),
    domains: Sequence[str] = (),
) -> bytes:
    ask, answer = (
        helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in ("x", "y")
    )
    graph = helper.make_graph(nodes, "hostile", [ask], [answer], list(weights))
    opsets = [helper.make_opsetid("", OPSET), *(helper.make_opsetid(name, 1) for name in domains)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=IR_VERSION)
    content: bytes = model.SerializeToString()
    return content
