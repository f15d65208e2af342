"""Pairs of files as a publisher meets them, made small: a model and its next version."""

import json
import struct
from dataclasses import dataclass

from hypothesis import strategies as st

WIDTHS = {
    "F64": 8,
    "F32": 4,
    "F16": 2,
    "BF16": 2,
    "F8_E4M3": 1,
    "I64": 8,
    "I16": 2,
    "I8": 1,
    "U8": 1,
}
NAMES = ("encoder.weight", "encoder.bias", "head", "Ünïcode/τ", "scale")


@dataclass(frozen=True)
class Tensor:
    dtype: str
    rows: int
    columns: int
    data: bytes


def safetensors(tensors: dict[str, Tensor], metadata: str = "") -> bytes:
    """Return the file, its tensors in the order given."""
    header: dict = {"__metadata__": {"note": metadata}} if metadata else {}
    offset = 0
    for name, tensor in tensors.items():
        end = offset + tensor.rows * tensor.columns * WIDTHS[tensor.dtype]
        header[name] = {
            "dtype": tensor.dtype,
            "shape": [tensor.rows, tensor.columns],
            "data_offsets": [offset, end],
        }
        offset = end
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + b"".join(t.data for t in tensors.values())


@st.composite
def tensors(draw: st.DrawFn) -> Tensor:
    dtype = draw(st.sampled_from(sorted(WIDTHS)))
    rows, columns = draw(st.integers(0, 5)), draw(st.integers(1, 5))
    size = rows * columns * WIDTHS[dtype]
    return Tensor(dtype, rows, columns, draw(st.binary(min_size=size, max_size=size)))


@st.composite
def changed(draw: st.DrawFn, tensor: Tensor) -> Tensor:
    """A tensor as its next version may have it: the same, nudged, grown, or quite another."""
    kind = draw(st.sampled_from(("same", "nudged", "grown", "shrunk", "other")))
    if kind == "other":
        return draw(tensors())
    row = tensor.columns * WIDTHS[tensor.dtype]
    if kind == "grown":
        more = draw(st.binary(min_size=row, max_size=row))
        return Tensor(tensor.dtype, tensor.rows + 1, tensor.columns, tensor.data + more)
    if kind == "shrunk" and tensor.rows:
        return Tensor(tensor.dtype, tensor.rows - 1, tensor.columns, tensor.data[:-row])
    if kind == "nudged":
        data = bytearray(tensor.data)
        for position in draw(st.lists(st.integers(0, len(data) - 1), max_size=9)) if data else ():
            data[position] = (data[position] + draw(st.integers(1, 255))) % 256
        return Tensor(tensor.dtype, tensor.rows, tensor.columns, bytes(data))
    return tensor


@st.composite
def safetensors_pairs(draw: st.DrawFn) -> tuple[bytes, bytes]:
    """Two safetensors files: tensors moved, inserted, removed, resized, retyped, changed."""
    old = draw(st.dictionaries(st.sampled_from(NAMES), tensors(), max_size=5))
    names = draw(st.permutations(sorted(set(old) | draw(st.sets(st.sampled_from(NAMES))))))
    new = {
        name: draw(changed(old[name])) if name in old else draw(tensors())
        for name in names
        if draw(st.booleans()) or name not in old
    }
    metadata = draw(st.sampled_from(("", "x", "longer than it was before" * 9)))
    return safetensors(old), safetensors(new, metadata)


def any_pairs() -> st.SearchStrategy[tuple[bytes, bytes]]:
    """Two files of which nothing is known, or a file that only claims to be a model."""
    anything = st.binary(max_size=600)
    claimed = anything.map(lambda data: struct.pack("<Q", len(data) // 2) + data)
    return st.tuples(anything | claimed, anything | claimed)
