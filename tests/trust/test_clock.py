"""Gate 2: a time that has passed has passed, whatever the device's own clock says."""

from datetime import UTC, datetime, timedelta

import pytest

from modelward.formats.floors import TimeFloor
from modelward.formats.log_state import log_digest
from modelward.trust import clock
from tests.simulator.log import Log

NOW = datetime(2026, 11, 22, 10, tzinfo=UTC)
HOUR = timedelta(hours=1)
POLICY = Log().policy
OTHER = Log(origin="models.example/second").policy
KEY = log_digest(POLICY.vkey)
FLOOR = TimeFloor(NOW, KEY)


@pytest.mark.parametrize(
    ("system", "floor", "now"),
    [
        (NOW, None, NOW),
        (NOW + HOUR, FLOOR, NOW + HOUR),
        (NOW, FLOOR, NOW),
        (NOW - HOUR, FLOOR, NOW),
        (datetime(1970, 1, 1, tzinfo=UTC), FLOOR, NOW),
    ],
)
def test_trusted_time(system, floor, now):
    assert clock.trusted(system, floor) == now


@pytest.mark.parametrize(
    ("floor", "passed", "raised"),
    [
        (None, None, None),
        (None, NOW, FLOOR),
        (FLOOR, None, FLOOR),
        (FLOOR, NOW - HOUR, FLOOR),
        (FLOOR, NOW + HOUR, TimeFloor(NOW + HOUR, KEY)),
    ],
)
def test_floor_never_falls(floor, passed, raised):
    assert clock.raised(floor, passed, KEY) == raised


def test_floor_holds_while_root_names_the_log():
    assert clock.holding(FLOOR, POLICY) == FLOOR
    assert clock.holding(FLOOR, None) == FLOOR
    assert clock.holding(None, POLICY) is None


def test_new_log_lifts_the_floor():
    """Stolen witnesses may have set the clock far ahead: a new log is how a fleet recovers."""
    assert clock.holding(FLOOR, OTHER) is None
