"""Tensors of an ONNX model: a walk over its protobuf fields that only notes where data lie.

Initialisers, and the tensors that nodes have as attributes, at any depth of subgraphs. No message
is built and no data is read, so that a model of gigabytes costs as little as a small one.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field

from modelward_repo.publish.delta.files import File
from modelward_repo.publish.delta.tensor import Tensor

# Field numbers of onnx.proto that lead to tensors, by message.
_GRAPH, _NODE, _ATTRIBUTE, _TENSOR = "graph", "node", "attribute", "tensor"
_INSIDE = {
    "model": {7: _GRAPH},
    _GRAPH: {1: _NODE, 5: _TENSOR},
    _NODE: {5: _ATTRIBUTE},
    _ATTRIBUTE: {5: _TENSOR, 6: _GRAPH, 10: _TENSOR, 11: _GRAPH},
}
_NAMES = {_NODE: 3, _ATTRIBUTE: 1}  # field numbers of names
# TensorProto.DataType: bytes of an element, and whether it is a float.
_TYPES = {
    1: (4, True), 2: (1, False), 3: (1, False), 4: (2, False), 5: (2, False), 6: (4, False),
    7: (8, False), 9: (1, False), 10: (2, True), 11: (8, True), 12: (4, False), 13: (8, False),
    16: (2, True), 17: (1, True), 18: (1, True), 19: (1, True), 20: (1, True), 21: (1, False),
    22: (1, False),
}  # fmt: skip
_LISTS = {4: (4, True), 10: (8, True)}  # float_data and double_data say themselves what they are
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_DEPTH = 32
_MOST_FIELDS = 5_000_000
_WINDOW = 64 << 10  # bytes


class _NotOnnxError(Exception):
    pass


def tensors(file: File) -> list[Tensor]:
    """Return the tensors of a model; none if it is not an ONNX file."""
    walk = _Walk(file)
    try:
        walk.message("model", 0, file.length, "", 0)
    except _NotOnnxError:
        return []
    return walk.found


@dataclass
class _Walk:
    file: File
    found: list[Tensor] = field(default_factory=list)
    _fields: int = 0
    _offset: int = 0
    _window: bytes = b""

    def message(self, kind: str, start: int, end: int, path: str, depth: int) -> None:
        """Note the tensors in a message."""
        if depth > _DEPTH:
            raise _NotOnnxError
        if kind == _TENSOR:
            self._tensor(start, end, path)
            return
        inside = []
        for number, wire, value, begin, stop in self._each(start, end):
            if wire == _BYTES and number in _INSIDE[kind]:
                inside.append((_INSIDE[kind][number], begin, stop))
            elif wire == _BYTES and number == _NAMES.get(kind):
                path += "/" + self._text(begin, stop)
            elif kind == "model" and number == 1 and not (wire == _VARINT and value < 1000):  # noqa: PLR2004 - ir_version
                raise _NotOnnxError
        for index, (inner, begin, stop) in enumerate(inside):
            # A node without a name is known by where it stands.
            self.message(
                inner, begin, stop, f"{path}.{inner}{index if inner == _NODE else ''}", depth + 1
            )

    def _tensor(self, start: int, end: int, path: str) -> None:
        kind, name = 0, ""
        dims: list[int] = []
        data: dict[int, tuple[int, int]] = {}
        for number, wire, value, begin, stop in self._each(start, end):
            match number, wire:
                case (1, 0):  # dims
                    dims.append(value)
                case (1, 2):  # dims, packed
                    dims += self._varints(begin, stop)
                case (2, 0):  # data_type
                    kind = value
                case (8, 2):
                    name = self._text(begin, stop)
                case ((4 | 9 | 10), 2):  # float_data, raw_data, double_data
                    data[number] = (begin, stop)
        for number, (begin, stop) in data.items():
            width, is_float = _LISTS.get(number) or _TYPES.get(kind, (1, False))
            if not (stop - begin) % width:
                known = name or path
                shape = tuple(dims)
                self.found.append(Tensor(begin, stop, known, str(kind), shape, width, is_float))

    def _varints(self, position: int, end: int) -> Iterator[int]:
        while position < end:
            value, position = self._varint(position, end)
            yield value

    def _each(self, start: int, end: int) -> Iterator[tuple[int, int, int, int, int]]:
        """Yield each field: its number and wire type, its value, or where its bytes lie."""
        position = start
        while position < end:
            self._fields += 1
            if self._fields > _MOST_FIELDS:
                raise _NotOnnxError
            tag, position = self._varint(position, end)
            number, wire = tag >> 3, tag & 7
            value, begin = 0, position
            if wire == _VARINT:
                value, position = self._varint(position, end)
            elif wire == _FIXED64:
                position += 8
            elif wire == _FIXED32:
                position += 4
            elif wire == _BYTES:
                length, begin = self._varint(position, end)
                position = begin + length
            else:
                raise _NotOnnxError
            if not number or position > end:
                raise _NotOnnxError
            yield number, wire, value, begin, position

    def _text(self, start: int, end: int) -> str:
        return self._bytes(start, min(end - start, 4096)).decode("utf-8", "replace")

    def _varint(self, position: int, end: int) -> tuple[int, int]:
        number = 0
        for index, byte in enumerate(self._bytes(position, min(10, end - position))):
            number |= (byte & 0x7F) << 7 * index
            if byte < 0x80:  # noqa: PLR2004 - the bit that says: more follows
                return number, position + index + 1
        raise _NotOnnxError

    def _bytes(self, start: int, length: int) -> bytes:
        at = start - self._offset
        if not 0 <= at <= len(self._window) - length:
            self._offset, self._window = start, self.file.read(start, max(length, _WINDOW))
            at = 0
        return self._window[at : at + length]
