"""What a person sees while an update goes on, and what a program reads."""

import io
import json
import sys

import pytest

from modelward.cli.terminal import Rate, Terminal, bar
from modelward.errors import Gate


class Tty(io.StringIO):
    def isatty(self) -> bool:
        return True


def screen(monkeypatch, columns: int = 200) -> Tty:
    """Put a terminal in the place of standard error (not in a fixture: pytest puts it back)."""
    stream = Tty()
    monkeypatch.setattr(sys, "stderr", stream)
    monkeypatch.setenv("COLUMNS", str(columns))
    return stream


def test_bar():
    assert bar(0, 2_000_000, 0, "") == "  [....................]   0 % of 2.0 MB"
    assert (
        bar(1_000_000, 2_000_000, 250_000, "https://a.example")
        == "  [##########..........]  50 % of 2.0 MB  0.2 MB/s  0:00:04 left  https://a.example"
    )
    assert "100 %" in bar(3, 2, 1, "")  # what was fetched twice counts twice
    assert "\x1b" not in bar(1, 2, 1, "\x1b[2J")


def test_rate_of_late():
    rate = Rate()
    rate.note(0, 0.0)
    assert rate.now == 0
    rate.note(1000, 1.0)
    assert rate.now == 1000
    for second in range(2, 30):
        rate.note(1000 + 5000 * (second - 1), float(second))
    assert rate.now == pytest.approx(5000, rel=0.01)
    rate.note(0, 31.0)  # another file


def test_bar_on_a_terminal(monkeypatch):
    shown = screen(monkeypatch)
    now = 0.0
    watch = Terminal(quiet=False, clock=lambda: now)
    for second in range(11):
        now = float(second)
        watch.fetching(second * 100_000, 1_000_000, "https://a.example")
    watch.end()
    text = shown.getvalue()
    assert "50 % of 1.0 MB  0.1 MB/s  0:00:05 left  https://a.example" in text
    assert "100 % of 1.0 MB" in text
    assert text.endswith("\n")


def test_bar_is_not_drawn_all_the_time(monkeypatch):
    shown = screen(monkeypatch)
    watch = Terminal(quiet=False, clock=lambda: 0.0)
    for count in range(1000):
        watch.fetching(count, 1_000_000, "")
    assert shown.getvalue().count("\r") == 1


@pytest.mark.parametrize("columns", [10, 40])
def test_bar_fits_the_terminal(monkeypatch, columns):
    shown = screen(monkeypatch, columns)
    Terminal(quiet=False, clock=lambda: 0.0).fetching(1, 1_000_000, "https://a.example")
    text = shown.getvalue().removeprefix("\r").removesuffix("\x1b[K")
    assert 0 < len(text) < columns


@pytest.mark.parametrize("quiet", [True, False])
def test_quiet_without_a_terminal(capsys, quiet):
    watch = Terminal(quiet=quiet)
    watch.fetching(1, 2, "")
    watch.end()
    assert capsys.readouterr().err == ""


def test_events():
    file = io.StringIO()
    now = 0.0
    watch = Terminal(quiet=True, events=file, clock=lambda: now)
    watch.passed(Gate.PLAN, "1 file to fetch")
    for second in range(3):
        now = float(second)
        watch.fetching(second * 500, 1000, "https://a.example")
    watch.tell({"event": "end", "outcome": "updated"})
    events = [json.loads(line) for line in file.getvalue().splitlines()]
    assert [event["event"] for event in events] == ["gate", *["fetching"] * 3, "end"]
    assert events[0]["gate_number"] == 9
    assert events[2] == {
        "event": "fetching",
        "received": 500,
        "total": 1000,
        "rate": 500,
        "left": 1,
        "source": "https://a.example",
    }


def test_reader_of_events_that_is_gone():
    class Gone(io.StringIO):
        def write(self, _text: str) -> int:
            raise BrokenPipeError

    watch = Terminal(quiet=True, events=Gone())
    watch.passed(Gate.PLAN, "x")
    watch.passed(Gate.FETCH, "x")
    assert watch._events is None
