"""`make drill`, as far as there is time for in every run: one theft of six."""

import subprocess
import sys
from pathlib import Path

DRILL = Path(__file__).parents[2] / "examples/drill/drill.py"


def test_a_stolen_timestamp_key() -> None:
    done = subprocess.run(
        [sys.executable, str(DRILL), "--only", "timestamp"],
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done
    assert "withhold updates: learns nothing new for 7 days" in done.stdout
    assert "honest updates are refused until the key is rotated" in done.stdout
    assert "the device runs 1.2.0: it follows" in done.stdout
    assert "the thief tries again: refused at metadata" in done.stdout
