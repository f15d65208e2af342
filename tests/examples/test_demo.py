"""`make demo`, from training to the last attack: what the README shows must be what happens."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.timeout(900)  # a minute of work, on a machine that may be busy
def test_the_demo_ends_as_the_readme_shows() -> None:
    done = subprocess.run(
        [sys.executable, str(ROOT / "examples/meter-reader/demo.py")],
        capture_output=True,
        text=True,
        timeout=850,
        check=False,
    )
    assert done.returncode == 0, done
    table = done.stdout[
        done.stdout.index("\nattack  ") : done.stdout.index("\n8 attacks, 8 refused")
    ]
    shown = (ROOT / "README.md").read_text("utf-8")
    assert table.strip() in shown
