"""Train the digit reader on a training set.

Reads images.npy and labels.npy in DATA_TRAIN_DIR; writes model.json and the weights as .npy files
into OUT_DIR. Seed and number of threads are fixed, so that the same data gives the same bytes.
"""

import argparse
import sys
from pathlib import Path

from sklearn.neural_network import MLPClassifier
from threadpoolctl import threadpool_limits

sys.dont_write_bytecode = True  # the workspace is attested: leave nothing beside the outputs

from dataset import CLASSES, Split, load_split
from network import ACTIVATION, save_network

HIDDEN = (256, 128)
EPOCHS = 200
SEED = 0


def train(data: Split) -> MLPClassifier:
    """Fit a network to `data`.

    Raises:
        ValueError: A digit has no samples.
    """
    missing = sorted(set(range(CLASSES)) - set(data.labels.tolist()))
    if missing:
        raise ValueError(f"training set has no samples of the digits {missing}")
    network = MLPClassifier(HIDDEN, activation=ACTIVATION, max_iter=EPOCHS, random_state=SEED)
    # Sums of floats depend on how threads share the work; one thread shares none.
    with threadpool_limits(limits=1):
        network.fit(data.pixels, data.labels)
    return network


def main() -> str | None:
    """Run the command; a returned text is the error."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", metavar="DATA_TRAIN_DIR", type=Path, help="the training set")
    parser.add_argument("out", metavar="OUT_DIR", type=Path, help="directory for the model")
    arguments = parser.parse_args()
    try:
        data = load_split(arguments.data)
        network = train(data)
        save_network(network, arguments.out)
    except (OSError, ValueError) as error:
        return f"train: {error}"
    print(f"train: {len(data.labels)} images, {network.n_iter_} epochs, loss {network.loss_:.5f}")
    return None


if __name__ == "__main__":
    sys.exit(main())
