"""Weights as training leaves them: small, but real safetensors."""

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save

from tests.simulator.model_files import onnx_file

Tensors = dict[str, NDArray[np.float32]]


def trained(layers: int = 4, side: int = 256) -> Tensors:
    """Return the tensors of a first version: 256 KiB a layer."""
    random = np.random.default_rng(1)
    return {
        f"layer{n}.weight": random.normal(0, 0.02, (side, side)).astype(np.float32)
        for n in range(layers)
    }


def fine_tuned(tensors: Tensors, seed: int = 2) -> Tensors:
    """Return the tensors of a next version: every weight moved a little."""
    random = np.random.default_rng(seed)
    return {
        name: (tensor + random.normal(0, 1e-5, tensor.shape)).astype(np.float32)
        for name, tensor in tensors.items()
    }


def retrained_head(tensors: Tensors, seed: int = 3) -> Tensors:
    """Return the tensors of a next version: the last layer is another one."""
    *_, last = tensors
    return tensors | {
        last: np.random.default_rng(seed).normal(0, 1, tensors[last].shape).astype("f4")
    }


def file_of(tensors: Tensors) -> bytes:
    """Return the file."""
    return bytes(save(tensors))


def onnx_of(tensors: Tensors) -> bytes:
    """Return an ONNX model that carries all tensors as one."""
    return onnx_file(b"".join(tensor.tobytes() for tensor in tensors.values()), width=4)
