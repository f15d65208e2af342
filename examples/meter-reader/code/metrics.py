"""How well predictions match: one flat JSON object of finite numbers."""

import json
from pathlib import Path

import numpy as np
import numpy.typing as npt
from sklearn.metrics import accuracy_score, f1_score, recall_score

DECIMALS = 6


def measure(
    labels: npt.NDArray[np.int64], predicted: npt.NDArray[np.int64]
) -> dict[str, float | int]:
    """Compare `predicted` with `labels`; fractions from 0 to 1, and the number of samples."""
    recalls = recall_score(labels, predicted, average=None, zero_division=0.0)
    fractions = {
        "accuracy": accuracy_score(labels, predicted),
        "macro_f1": f1_score(labels, predicted, average="macro", zero_division=0.0),
        "worst_digit_recall": min(recalls),
    }
    rounded = {name: round(float(value), DECIMALS) for name, value in fractions.items()}
    return {**rounded, "samples": len(labels)}


def save_metrics(metrics: dict[str, float | int], path: Path) -> None:
    """Write `metrics` to `path`, the same bytes for the same numbers."""
    path.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(metrics, indent=2, allow_nan=False)
    path.write_text(text + "\n", encoding="utf-8")
