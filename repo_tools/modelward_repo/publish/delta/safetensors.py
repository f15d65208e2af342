"""Tensors of a safetensors file: 8 bytes of length, a JSON header, the elements."""

import json

from modelward_repo.publish.delta.files import File
from modelward_repo.publish.delta.tensor import Tensor

MOST_HEADER = 100_000_000  # bytes, as in the format
_TYPES = {
    "F64": (8, True), "F32": (4, True), "F16": (2, True), "BF16": (2, True),
    "F8_E4M3": (1, True), "F8_E5M2": (1, True), "C64": (4, True),
    "I64": (8, False), "I32": (4, False), "I16": (2, False), "I8": (1, False),
    "U64": (8, False), "U32": (4, False), "U16": (2, False), "U8": (1, False), "BOOL": (1, False),
}  # fmt: skip


def tensors(file: File) -> list[Tensor]:
    """Return the tensors of a file; none if it is not a safetensors file."""
    length = int.from_bytes(file.read(0, 8), "little")
    if not 2 <= length <= min(MOST_HEADER, file.length - 8):  # noqa: PLR2004 - at least {}
        return []
    start = 8 + length
    try:
        header = json.loads(file.read(8, length))
        return [
            _tensor(name, entry, start)
            for name, entry in header.items()
            if name != "__metadata__" and entry["dtype"] in _TYPES
        ]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return []


def _tensor(name: str, entry: dict[str, object], start: int) -> Tensor:
    kind, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(kind, str) or not isinstance(shape, list) or not isinstance(offsets, list):
        raise TypeError
    begin, end = map(int, offsets)
    width, is_float = _TYPES[kind]
    if not 0 <= begin <= end or (end - begin) % width:
        raise ValueError
    return Tensor(start + begin, start + end, name, kind, tuple(map(int, shape)), width, is_float)
