"""Models that everybody may have signed, and that do not work on a device all the same."""

from onnx import NodeProto, TensorProto, helper

_ASK, _ANSWER = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in "xy")


def greedy(size: int) -> bytes:
    """Return a model that answers what it is asked, by way of so many bytes of memory."""
    shape = helper.make_tensor("shape", TensorProto.INT64, [1], [size // 4])
    nodes = [
        helper.make_node("Expand", ["x", "shape"], ["wide"]),
        helper.make_node("ReduceMean", ["wide"], ["y"], keepdims=1),
    ]
    return _model(nodes, [shape])


def endless() -> bytes:
    """Return a model that answers what it is asked, after 2^62 rounds."""
    rounds = helper.make_tensor("rounds", TensorProto.INT64, [], [1 << 62])
    going = helper.make_tensor("going", TensorProto.BOOL, [], [True])
    kinds = {"round": TensorProto.INT64, "on": TensorProto.BOOL, "was": TensorProto.FLOAT}
    kinds |= {"still": TensorProto.BOOL, "is": TensorProto.FLOAT}
    value = {
        name: helper.make_tensor_value_info(name, kind, [1] if kind == TensorProto.FLOAT else [])
        for name, kind in kinds.items()
    }
    body = helper.make_graph(
        [
            helper.make_node("Identity", ["on"], ["still"]),
            helper.make_node("Identity", ["was"], ["is"]),
        ],
        "round",
        [value["round"], value["on"], value["was"]],
        [value["still"], value["is"]],
    )
    return _model(
        [helper.make_node("Loop", ["rounds", "going", "x"], ["y"], body=body)], [rounds, going]
    )


def _model(nodes: list[NodeProto], weights: list[TensorProto]) -> bytes:
    graph = helper.make_graph(nodes, "ill", [_ASK], [_ANSWER], weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return bytes(model.SerializeToString())
