"""Models and their next versions, for the delta benchmark: from a real base and a real fine-tune.

All are safetensors files of one tensor a name, written with numpy alone.
"""

import json
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Change = Callable[[str, Array], tuple[str, Array]]
HEAD = "encoder.layer.5.output."  # the last dense layer: a head trained alone
_DTYPES = {"F32": "<f4", "I64": "<i8", "BF16": "<u2", "I8": "<i1"}


@dataclass(frozen=True)
class Model:
    """Tensors by name, each with the type that the file gives it."""

    tensors: dict[str, tuple[str, Array]]

    @classmethod
    def read(cls, path: Path) -> "Model":
        """Read a safetensors file."""
        data = path.read_bytes()
        (length,) = struct.unpack_from("<Q", data)
        header = json.loads(data[8 : 8 + length])
        tensors = {}
        for name, entry in header.items():
            if name != "__metadata__":
                start, end = (8 + length + offset for offset in entry["data_offsets"])
                array = np.frombuffer(data[start:end], _DTYPES[entry["dtype"]])
                tensors[name] = (entry["dtype"], array.reshape(entry["shape"]))
        return cls(tensors)

    def write(self, path: Path, metadata: str = "") -> Path:
        """Write a safetensors file, tensors in their order."""
        header: dict[str, Any] = {"__metadata__": {"format": "pt", "note": metadata}}
        offset = 0
        for name, (dtype, array) in self.tensors.items():
            header[name] = {
                "dtype": dtype,
                "shape": list(array.shape),
                "data_offsets": [offset, offset + array.nbytes],
            }
            offset += array.nbytes
        text = json.dumps(header).encode()
        with path.open("wb") as file:
            file.write(struct.pack("<Q", len(text)) + text)
            for _, array in self.tensors.values():
                file.write(array.tobytes())
        return path

    def each_float(self, change: Change) -> "Model":
        """Return the model with every F32 tensor changed: `change` returns type and array."""
        return Model(
            {
                name: change(name, array) if dtype == "F32" else (dtype, array)
                for name, (dtype, array) in self.tensors.items()
            }
        )


def bf16(_name: str, array: Array) -> tuple[str, Array]:
    """Round to bfloat16, to even."""
    bits = array.view("<u4")
    return "BF16", ((bits + 0x7FFF + (bits >> 16 & 1)) >> 16).astype("<u2")


def int8(_name: str, array: Array) -> tuple[str, Array]:
    """Quantise symmetrically, one scale a row, which is not kept: this is about bytes."""
    scale = np.abs(array).max(axis=-1, keepdims=True) / 127
    return "I8", np.rint(array / np.where(scale, scale, 1)).astype("<i1")


def pairs(base: Model, tuned: Model | None, folder: Path) -> Iterator[tuple[str, Path, Path]]:
    """Write and yield each kind of change: what it is, the old file, the new file.

    Args:
        base: The base, fp32.
        tuned: The same after a full fine-tune; None to leave out what needs it.
        folder: Where the files go; each pair overwrites the one before.
    """
    old, new = folder / "old.safetensors", folder / "new.safetensors"
    if tuned:
        yield from _tuned(base, tuned, old, new)
    noise = np.random.default_rng(2)

    def noisy(_name: str, array: Array) -> tuple[str, Array]:
        return "F32", array + array.std() * 0.01 * noise.standard_normal(array.shape, np.float32)

    shaken = base.each_float(noisy)
    base.each_float(bf16).write(old)
    yield "1 % noise on every weight, bf16", old, shaken.each_float(bf16).write(new)
    base.write(old)
    yield "1 % noise on every weight, fp32", old, shaken.write(new)
    yield "metadata longer, everything shifts", old, base.write(new, "trained a second time " * 20)
    names = list(base.tensors)
    added = ("F32", noise.standard_normal((64, 384), np.float32) * np.float32(0.02))
    middle = {name: base.tensors[name] for name in names[: len(names) // 2]}
    middle["adapter.weight"] = added
    yield "tensor inserted in the middle", old, Model(middle | base.tensors).write(new)
    yield "fp32 -> int8", old, base.each_float(int8).write(new)

    def other(_name: str, array: Array) -> tuple[str, Array]:
        return "F32", noise.permutation(array.ravel()).reshape(array.shape)

    yield "trained from scratch (weights permuted), fp32", old, base.each_float(other).write(new)


def _tuned(base: Model, tuned: Model, old: Path, new: Path) -> Iterator[tuple[str, Path, Path]]:
    base.each_float(bf16).write(old)
    yield "full fine-tune, bf16", old, tuned.each_float(bf16).write(new)
    base.each_float(int8).write(old)
    yield "full fine-tune, int8", old, tuned.each_float(int8).write(new)
    base.write(old)
    yield "full fine-tune, fp32", old, tuned.write(new)
    head = {
        name: tuned.tensors[name] if name.startswith(HEAD) else kept
        for name, kept in base.tensors.items()
    }
    yield "one head retrained, fp32", old, Model(head).write(new)
