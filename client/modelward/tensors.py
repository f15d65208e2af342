"""The tensors of an open safetensors file, without reading it: views into its mapped bytes.

Neither numpy nor the safetensors library is needed. Where numpy is installed, every tensor is an
array to it: `numpy.asarray(tensor)` copies nothing.
"""

import math
import mmap
import os
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from modelward.errors import FormatError
from modelward.formats import strict

HEADER_CAP = 8 << 20  # bytes; 50,000 tensors take less
_PREFIX = struct.Struct("<Q")
_METADATA = "__metadata__"
# Per type: bits an element, and what numpy calls it. bfloat16 and the small floats are not its.
_TYPES: Mapping[str, tuple[int, str | None]] = {
    "BOOL": (8, "?"), "U8": (8, "u1"), "I8": (8, "i1"),
    "U16": (16, "<u2"), "I16": (16, "<i2"), "F16": (16, "<f2"), "BF16": (16, None),
    "U32": (32, "<u4"), "I32": (32, "<i4"), "F32": (32, "<f4"),
    "U64": (64, "<u8"), "I64": (64, "<i8"), "F64": (64, "<f8"), "C64": (64, "<c8"),
    "F8_E5M2": (8, None), "F8_E4M3": (8, None), "F8_E8M0": (8, None),
    "F6_E2M3": (6, None), "F6_E3M2": (6, None), "F4": (4, None),
}  # fmt: skip


@dataclass(frozen=True)
class Tensor:
    """One tensor of an open model.

    Attributes:
        dtype: Its type, as safetensors names it, such as ``F32`` or ``BF16``.
        shape: Its extents; empty for a single number.
        data: Its bytes, little-endian, row by row: read-only, and read from disk when touched.
    """

    dtype: str
    shape: tuple[int, ...]
    data: memoryview

    def __array__(self, dtype: Any = None, copy: Any = None) -> Any:
        """Return it as numpy's array, which calls this; nothing is copied unless that is asked.

        Raises:
            TypeError: numpy has no such type. `data` has the bits.
        """
        import numpy as np  # noqa: PLC0415 - it is what calls this; nothing else needs it

        name = _TYPES[self.dtype][1]
        if name is None:
            raise TypeError(f"numpy has no {self.dtype}: read the bits from `data`")
        array: Any = np.frombuffer(self.data, name).reshape(self.shape)
        if dtype is not None:
            array = array.astype(dtype, copy=False)
        return array.copy() if copy else array


class Tensors(Mapping[str, Tensor]):
    """The tensors of one file, by name. Stays readable when the model is closed.

    Args:
        name: What to call the file in errors.
        descriptor: The file, open for reading.

    Raises:
        FormatError: It is not a safetensors file, or its header does not fit it.
    """

    def __init__(self, name: str, descriptor: int) -> None:
        size = os.fstat(descriptor).st_size
        prefix = os.pread(descriptor, _PREFIX.size, 0)
        length = _PREFIX.unpack(prefix)[0] if len(prefix) == _PREFIX.size else size
        start = _PREFIX.size + length
        if start > size:
            raise FormatError(name, "header length", f"is {length} in a file of {size} bytes")
        header = os.pread(descriptor, min(length, HEADER_CAP + 1), _PREFIX.size)
        fields = strict.Fields(name, strict.load(name, header, HEADER_CAP))
        self._places = {
            tensor: _place(fields.fields(tensor), start, size)
            for tensor in fields.raw
            if tensor != _METADATA
        }
        self._bytes = memoryview(mmap.mmap(descriptor, size, prot=mmap.PROT_READ))

    def __getitem__(self, name: str) -> Tensor:
        dtype, shape, begin, end = self._places[name]
        return Tensor(dtype, shape, self._bytes[begin:end])

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def __len__(self) -> int:
        return len(self._places)


def _place(entry: strict.Fields, start: int, size: int) -> tuple[str, tuple[int, ...], int, int]:
    """Return a tensor's type, shape and where in the file it begins and ends."""
    dtype = entry.text("dtype", most=16)
    if dtype not in _TYPES:
        raise entry.wrong("dtype", f"{dtype!r} is not known")
    shape = _integers(entry, "shape")
    offsets = _integers(entry, "data_offsets")
    if len(offsets) != 2 or not offsets[0] <= offsets[1] <= size - start:  # noqa: PLR2004 - a pair
        raise entry.wrong("data_offsets", "must be where it begins and ends inside the file")
    if math.prod(shape) * _TYPES[dtype][0] != (offsets[1] - offsets[0]) * 8:
        raise entry.wrong("data_offsets", "is not as long as dtype and shape make it")
    return dtype, shape, start + offsets[0], start + offsets[1]


def _integers(entry: strict.Fields, name: str) -> tuple[int, ...]:
    items = entry.items(name, most=64)
    if not all(type(item) is int and 0 <= item <= strict.MAX_INT for item in items):
        raise entry.wrong(name, "must be a list of integers from 0")
    return tuple(items)
