"""Measure the trained (float) model on the holdout set.

Reads the model in MODEL_DIR and the images and labels in DATA_HOLDOUT_DIR; writes accuracy,
macro F1, the recall of the worst digit and the number of samples to OUT_METRICS_JSON.
"""

import argparse
import sys
from pathlib import Path

from threadpoolctl import threadpool_limits

sys.dont_write_bytecode = True  # the workspace is attested: leave nothing beside the outputs

from dataset import load_split
from metrics import measure, save_metrics
from network import load_network


def evaluate(model: Path, data: Path) -> dict[str, float | int]:
    """Metrics of the model in `model` on the split in `data`.

    Raises:
        OSError: A file is missing or unreadable.
        ValueError: A file is not what the step before writes.
    """
    holdout = load_split(data)
    with threadpool_limits(limits=1):
        predicted = load_network(model).predict(holdout.pixels)
    return measure(holdout.labels, predicted)


def main() -> str | None:
    """Run the command; a returned text is the error."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", metavar="MODEL_DIR", type=Path, help="what train.py wrote")
    parser.add_argument("data", metavar="DATA_HOLDOUT_DIR", type=Path, help="the holdout set")
    parser.add_argument("out", metavar="OUT_METRICS_JSON", type=Path, help="file to write")
    arguments = parser.parse_args()
    try:
        metrics = evaluate(arguments.model, arguments.data)
        save_metrics(metrics, arguments.out)
    except (OSError, ValueError) as error:
        return f"evaluate: {error}"
    print(f"evaluate: accuracy {metrics['accuracy']} on {metrics['samples']} images, float model")
    return None


if __name__ == "__main__":
    sys.exit(main())
