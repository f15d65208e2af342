"""The trained network on disk: `model.json` (its shape) and a `.npy` file for each array.

Nothing in it is executable: no pickle, so reading a model cannot run code.
"""

import itertools
import json
from pathlib import Path

import numpy as np
from sklearn.neural_network import MLPClassifier

from dataset import CLASSES, SIDE, load_array

INPUTS = SIDE * SIDE
ACTIVATION = "relu"


def save_network(network: MLPClassifier, directory: Path) -> None:
    """Write `network` into `directory`, the same bytes for the same weights."""
    directory.mkdir(parents=True, exist_ok=True)
    shape = {
        "kind": "multilayer perceptron",
        "activation": network.activation,
        "layers": [INPUTS, *network.hidden_layer_sizes, CLASSES],
    }
    (directory / "model.json").write_text(json.dumps(shape, indent=2) + "\n", encoding="utf-8")
    for number, (weights, biases) in enumerate(
        zip(network.coefs_, network.intercepts_, strict=True)
    ):
        np.save(directory / f"weights-{number}.npy", weights, allow_pickle=False)
        np.save(directory / f"biases-{number}.npy", biases, allow_pickle=False)


def load_network(directory: Path) -> MLPClassifier:
    """Rebuild the network in `directory`, ready to predict.

    Raises:
        OSError: A file is missing or unreadable.
        ValueError: `model.json` or an array is not what `save_network` writes.
    """
    layers = _read_layers(directory / "model.json")
    network = MLPClassifier(hidden_layer_sizes=layers[1:-1], activation=ACTIVATION)
    # One step on blanks makes scikit-learn set up its private state; then the weights go in.
    digits = np.arange(CLASSES)
    network.partial_fit(np.zeros((CLASSES, INPUTS), np.float32), digits, classes=digits)
    widths = list(enumerate(itertools.pairwise(layers)))
    network.coefs_ = [
        load_array(directory / f"weights-{n}.npy", np.float32, pair) for n, pair in widths
    ]
    network.intercepts_ = [
        load_array(directory / f"biases-{n}.npy", np.float32, pair[1:]) for n, pair in widths
    ]
    return network


def _read_layers(path: Path) -> tuple[int, ...]:
    try:
        shape = json.loads(path.read_text(encoding="utf-8"))
        layers = tuple(int(width) for width in shape["layers"])
        activation = shape["activation"]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path}: not a description of a network: {error!r}") from error
    if activation != ACTIVATION:
        raise ValueError(f"{path}: activation {activation!r} instead of {ACTIVATION!r}")
    if layers[:1] + layers[-1:] != (INPUTS, CLASSES) or not layers[1:-1] or min(layers) < 1:
        raise ValueError(f"{path}: layers {list(layers)} instead of {INPUTS}, hidden, {CLASSES}")
    return layers
