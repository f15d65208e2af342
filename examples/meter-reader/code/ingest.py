"""Export the digits bundled with scikit-learn as a training and a holdout set.

Writes OUT/train and OUT/holdout, each with images.npy (float32, 0 to 1) and labels.npy (int64).
Of each digit, every fifth sample is held out and never trained on. Nothing is drawn at random:
whoever runs this gets the same bytes.
"""

import argparse
import sys
from pathlib import Path

import numpy as np
from sklearn.datasets import load_digits

sys.dont_write_bytecode = True  # the workspace is attested: leave nothing beside the outputs

from dataset import CLASSES, Split, save_split

HOLDOUT_EVERY = 5
BRIGHTEST = 16


def bundled_digits() -> Split:
    """All of scikit-learn's digits, in its order."""
    digits = load_digits()
    return Split((digits.images / BRIGHTEST).astype(np.float32), digits.target.astype(np.int64))


def divide(samples: Split) -> tuple[Split, Split]:
    """Training and holdout set, each in the order of `samples`."""
    held_out = np.zeros(len(samples.labels), dtype=bool)
    for digit in range(CLASSES):
        held_out[np.flatnonzero(samples.labels == digit)[HOLDOUT_EVERY - 1 :: HOLDOUT_EVERY]] = True
    return (
        Split(samples.images[~held_out], samples.labels[~held_out]),
        Split(samples.images[held_out], samples.labels[held_out]),
    )


def main() -> str | None:
    """Run the command; a returned text is the error."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("out", metavar="OUT", type=Path, help="directory to write to")
    arguments = parser.parse_args()
    train, holdout = divide(bundled_digits())
    try:
        save_split(train, arguments.out / "train")
        save_split(holdout, arguments.out / "holdout")
    except OSError as error:
        return f"ingest: {error}"
    print(f"ingest: {len(train.labels)} training and {len(holdout.labels)} holdout images")
    return None


if __name__ == "__main__":
    sys.exit(main())
