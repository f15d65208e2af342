"""What the model must answer on every device: a few inputs, and its outputs for them."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

# Other processors round other sums: an answer may be off by so much, a digit may not.
ABSOLUTE = 0.01

Tensors = Mapping[str, npt.NDArray[Any]]


def save_golden(model: str, cases: Sequence[tuple[Tensors, Tensors]], path: Path) -> None:
    """Write golden.json: `cases` are inputs and outputs by name, of the release's file `model`."""
    document = {
        "schema": "modelward/golden/1",
        "cases": [
            {"file": model, "inputs": _tensors(inputs), "outputs": _tensors(outputs)}
            for inputs, outputs in cases
        ],
        "absolute": ABSOLUTE,
        "relative": 0.0,
        "critical": [],
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(document, allow_nan=False) + "\n", encoding="utf-8")


def _tensors(tensors: Tensors) -> dict[str, Any]:
    return {
        name: {
            "dtype": str(array.dtype),
            "shape": list(array.shape),
            "values": np.ravel(array).tolist(),
        }
        for name, array in tensors.items()
    }
