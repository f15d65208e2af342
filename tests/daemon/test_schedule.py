from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelward.config.run import RunSettings
from modelward.daemon.schedule import Schedule
from modelward.errors import UsageError

SETTINGS = RunSettings(interval=600, jitter=120, backoff=7200)
seconds = st.floats(0, 10**9)
chances = st.floats(0, 1)


def failing(times: int, settings: RunSettings = SETTINGS) -> Schedule:
    schedule = Schedule(settings)
    for _ in range(times):
        schedule = schedule.failed()
    return schedule


def test_failures_double_the_interval_up_to_a_cap() -> None:
    delays = [failing(times).delay(0) for times in range(7)]
    assert delays == [600, 600, 1200, 2400, 4800, 7200, 7200]
    assert failing(10_000).delay(0) == 7200
    assert failing(5).succeeded().delay(0) == 600


def test_no_two_devices_ask_at_the_same_moment() -> None:
    assert (Schedule(SETTINGS).delay(0), Schedule(SETTINGS).delay(1)) == (600, 720)
    assert (Schedule(SETTINGS).first(0), Schedule(SETTINGS).first(1)) == (0, 120)


def test_a_server_is_given_the_time_it_asks_for_but_not_for_ever() -> None:
    assert Schedule(SETTINGS).delay(0, retry_after=1000) == 1000
    assert Schedule(SETTINGS).delay(0, retry_after=5) == 600
    # Attack row 4: a server that says "in ten years" would freeze the device.
    assert Schedule(SETTINGS).delay(0, retry_after=10.0**9) == 7200


@given(
    st.builds(RunSettings, interval=st.floats(1, 10**9), jitter=seconds, backoff=seconds),
    st.integers(0, 100),
    chances,
    st.none() | seconds,
)
def test_a_check_is_never_due_at_once_and_never_too_late(
    settings: RunSettings, failures: int, chance: float, retry_after: float | None
) -> None:
    delay = failing(failures, settings).delay(chance, retry_after)
    most = max(settings.backoff, settings.interval) + settings.jitter
    assert settings.interval <= delay <= most


def test_windows_say_when_something_may_change() -> None:
    settings = RunSettings(windows=("22:30-02:00", "12:00-12:15"), jitter=60)
    at = {hour: datetime(2026, 11, 26, hour, 10, tzinfo=UTC) for hour in (1, 2, 12, 22, 23)}
    may = {hour: Schedule(settings).may_change(now) for hour, now in at.items()}
    assert may == {1: True, 2: False, 12: True, 22: False, 23: True}
    assert Schedule(settings).opening(at[22], 0.5) == 20 * 60 + 30
    assert Schedule(settings).opening(at[2], 0) == 9 * 3600 + 50 * 60
    assert Schedule(RunSettings()).opening(at[2], 0) is None
    assert Schedule(RunSettings()).may_change(at[2])


@given(st.datetimes(), st.times(), st.times())
def test_a_window_is_open_when_the_wait_for_it_is_over(
    now: datetime, begin: datetime, end: datetime
) -> None:
    text = f"{begin:%H:%M}-{end:%H:%M}"
    schedule = Schedule(RunSettings(windows=(text,)))
    wait = schedule.opening(now, 0)
    assert wait is not None
    assert 0 <= wait < 86400
    if f"{begin:%H:%M}" != f"{end:%H:%M}" and now.year < 9999:
        assert schedule.may_change(now + timedelta(seconds=wait))


def test_how_often_everything_is_read_again() -> None:
    assert RunSettings.parse({}).verify == 24 * 3600
    assert RunSettings.parse({"verify": "12h"}).verify == 12 * 3600
    assert RunSettings.parse({"verify": "never"}).verify is None
    for wrong in ("0s", "seldom"):
        with pytest.raises(UsageError, match="'verify' in \\[run\\]"):
            RunSettings.parse({"verify": wrong})
