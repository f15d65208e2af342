"""A few cycles of what `make soak` does a thousand times."""

from pathlib import Path

from tests.soak.soak import Soak


def test_daemons_that_are_killed_leave_a_device_that_works(tmp_path: Path) -> None:
    result = Soak(tmp_path, seed=1).run(cycles=8)
    assert not result.failures, result.failures
    assert result.cycles == 8
    assert result.opens > 0
