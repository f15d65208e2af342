"""Deadlines, waits and caps, on a clock that only tests move."""

import pytest

from modelward.errors import Unavailable
from modelward.transfer.pace import Pace, Patience, Throttle

PATIENCE = Patience(connect=1, first=5, rate=100, window=10)


class Time:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


def test_answer_that_does_not_come():
    time = Time()
    pace = Pace("x", PATIENCE, time, None)
    time.now += 4
    pace.check()
    time.now += 2
    with pytest.raises(Unavailable, match="longer than 5 seconds to answer"):
        pace.check()


def test_rate_counts_from_the_answer_on():
    """By default an answer may take longer than the time over which a rate is measured."""
    time = Time()
    pace = Pace("x", Patience(), time, None)
    for _ in range(19):
        time.now += 1
        pace.check()
    pace.answered()
    time.now += 14
    pace.check()
    time.now += 1
    with pytest.raises(Unavailable, match="slower than 1024 bytes") as slow, pace.told():
        pace.check()
    assert slow.value.vain == 34  # the wait for the answer included


def test_rate_is_measured_over_each_window():
    time = Time()
    pace = Pace("x", PATIENCE, time, None)
    pace.answered()
    pace.arrived(10_000)
    time.now += 10
    pace.check()
    time.now += 9
    pace.check()
    time.now += 1
    with pytest.raises(Unavailable, match="slower than 100 bytes"):  # what came before counts not
        pace.check()


def test_time_that_nobody_waits_for_the_server_does_not_count():
    time = Time()
    pace = Pace("x", PATIENCE, time, total=20)
    pace.answered()
    pace.rest()
    time.now += 1000
    pace.resume()
    pace.check()
    time.now += 21
    pace.arrived(10_000)
    with pytest.raises(Unavailable, match="longer than 20 seconds"):
        pace.check()


@pytest.mark.parametrize("rate", [1000, 50_000, 10_000_000])
def test_cap_on_bandwidth(rate):
    time = Time()
    throttle = Throttle(rate, time, time.sleep)
    start, sent = time.now, 0
    while time.now - start < 10:
        throttle.spend(throttle.piece)
        sent += throttle.piece
    assert sent / (time.now - start) == pytest.approx(rate, rel=0.01)


def test_what_was_not_used_is_not_saved_up():
    time = Time()
    throttle = Throttle(1000, time, time.sleep)
    time.now += 3600
    throttle.spend(1000)
    throttle.spend(1000)
    assert time.now == pytest.approx(1000 + 3600 + 2)
