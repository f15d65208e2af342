"""When the daemon looks next, by how the last check ended; what it survives."""

import errno
from pathlib import Path
from typing import Any, cast

import pytest

from modelward.daemon import loop
from modelward.daemon.loop import Daemon
from modelward.daemon.notify import Notifier
from modelward.errors import Gate, ModelwardError, NotNow, Unavailable

RUN = {"interval": "10m", "jitter": "2m", "backoff": "6h"}
CHANCE = 0.5


@pytest.fixture
def daemon(tmp_path: Path) -> Daemon:
    settings = {"repository": "https://a.example", "device_id": "test", "run": RUN}

    def say(*_: object, **__: object) -> None:
        pass

    made = Daemon(
        tmp_path, lambda: settings, cast("Any", say), cast("Notifier", None), chance=lambda: CHANCE
    )
    made._read_settings()
    return made


def pauses(daemon: Daemon, error: ModelwardError, count: int) -> list[float]:
    return [daemon._pause_after(error.to_dict()) for _ in range(count)]


def test_failures_double_the_pause(daemon: Daemon) -> None:
    absent = Unavailable("nobody answers")
    assert pauses(daemon, absent, 4) == [600 + 60, 1200 + 60, 2400 + 60, 4800 + 60]


def test_waiting_for_the_hour_to_fetch_is_no_failure(daemon: Daemon) -> None:
    assert pauses(daemon, NotNow("", "", Gate.FETCH, 7200), 9) == [660] * 9


def test_it_is_there_when_the_hour_comes(daemon: Daemon) -> None:
    pauses(daemon, Unavailable("nobody answers"), 5)
    assert pauses(daemon, NotNow("", "", Gate.FETCH, 90), 1) == [90 + 60]


def test_a_trial_that_cannot_be_confirmed_does_not_make_it_spin(daemon: Daemon) -> None:
    """It is over, but damaged beyond mending: each check would be a full one, hashing all of it."""
    until = {"over": "2020-01-01T00:00:00Z", "later": "2999-01-01T00:00:00Z", "no": None}
    found = ["over", "over", "over", "later", "over", "over", "no", "over"]
    ends = [{"outcome": "unchanged", "exit_code": 0, "trial_until": until[each]} for each in found]
    once = loop.TICK  # to confirm it, which is all that most of them need
    assert [daemon._pause_after(end) for end in ends] == [once, 660, 660, 660, once, 660, 660, once]


def test_neighbours_are_served_once_a_process_can_be_had(
    daemon: Daemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    tries = []

    def no_process(_: object) -> object:
        tries.append(daemon.clock())
        raise OSError(errno.EAGAIN, "Resource temporarily unavailable")

    monkeypatch.setattr(loop.Serving, "start", no_process)
    monkeypatch.setitem(RUN, "serve", True)
    daemon._read_settings()
    at = 1000.0
    daemon.clock = lambda: at
    daemon._keep_serving()
    daemon._keep_serving()
    at += loop.SERVE_AGAIN
    daemon._keep_serving()
    assert tries == [1000.0, at]
    assert daemon._serving is None


def test_it_does_not_spin_while_a_scan_ends(
    daemon: Daemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Told to end, while a check is due that will not be made: a dead disk may hold it for ever."""
    turns: list[float] = []

    class Scan:
        pausing = False

        def ended(self) -> bool:
            return len(turns) > 2

        def moved(self) -> bool:
            return False

        def events(self) -> tuple[()]:
            return ()

        def stop(self) -> None:
            pass

    monkeypatch.setattr(daemon, "_turn", lambda seconds, _worker: turns.append(seconds))
    daemon._stopping = True
    daemon._attend(cast("Any", Scan()), yields=True)
    assert all(seconds > 0 for seconds in turns[1:])
