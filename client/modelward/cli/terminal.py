"""What a person, or a script, is told."""

import json
import os
import sys
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from modelward.errors import Gate, ModelwardError, Refused

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable
    from typing import TextIO

SHOW = 0.25  # seconds between two progress bars
REPAIR = "run `modelward verify --repair`"


class Terminal:
    """Tells a person what happens, a line a gate and a progress bar; and a program, if asked to.

    Args:
        quiet: Print nothing for people.
        events: Where to write a JSON object a line for everything that happens; None for nowhere.
        clock: Monotonic seconds.
    """

    def __init__(
        self,
        *,
        quiet: bool,
        events: "TextIO | None" = None,
        clock: "Callable[[], float]" = time.monotonic,
    ) -> None:
        self._quiet = quiet
        self._bar = not quiet and sys.stderr.isatty()
        self._open = False
        self._events = events
        self._clock = clock
        self._rate = Rate()
        self._shown = float("-inf")

    def passed(self, gate: Gate, detail: str) -> None:
        """Print a line."""
        self.end()
        self.tell({"event": "gate", "gate": gate.label, "gate_number": gate.number,
                   "detail": detail})  # fmt: skip
        if self._quiet:
            return
        # Nobody may read any more (`| head`), or a disk be full: that stops no update half-way.
        self._quiet = not write(sys.stdout, f"{gate}: {detail}\n")

    def alarm(self, text: str) -> None:
        """Print what was found changed on this device, and what to do."""
        self.tell({"event": "alarm", "reason": text, "advice": REPAIR})
        if not self._quiet:
            write(sys.stderr, f"ALARM: {text}\n  what to do: {REPAIR}\n")

    def fetching(self, received: int, total: int, source: str) -> None:
        """Draw the bar, and tell of it, a few times a second at most."""
        now = self._clock()
        self._rate.note(received, now)
        if not total or (now - self._shown < SHOW and received < total):
            return
        self._shown = now
        rate = self._rate.now
        left = (total - received) / rate if rate else None
        self.tell({"event": "fetching", "received": received, "total": total, "rate": round(rate),
                   "left": None if left is None else round(left), "source": source})  # fmt: skip
        self._draw(bar(received, total, rate, source))

    def hashing(self, done: int, total: int) -> None:
        """Draw the bar of what has been hashed, a few times a second at most."""
        now = self._clock()
        if total and (now - self._shown >= SHOW or done >= total):
            self._shown = now
            self._draw(bar(done, total, 0, "hashed"))

    def _draw(self, text: str) -> None:
        if self._bar:
            self._bar = self._open = write(sys.stderr, f"\r{text[: _columns() - 1]}\x1b[K")

    def tell(self, event: Mapping[str, Any]) -> None:
        """Write one event, if anybody wants to know."""
        if self._events is None:
            return
        try:
            self._events.write(json.dumps(event) + "\n")
            self._events.flush()
        except OSError:
            self._events = None  # whoever read is gone, or the disk is full: no reason to stop

    def end(self) -> None:
        """Leave the bar, if there is one, as it is."""
        if self._open:
            write(sys.stderr, "\n")
            self._open = False


class Rate:
    """Bytes a second over the last few seconds.

    Attributes:
        now: That; 0 while it is not known.
    """

    SPAN = 0.5  # seconds over which it is measured, each time

    def __init__(self) -> None:
        self.now = 0.0
        self._mark: tuple[int, float] | None = None

    def note(self, received: int, now: float) -> None:
        """Note how many bytes there are at a time."""
        if self._mark is None or received < self._mark[0]:
            self._mark = received, now
        count, since = self._mark
        if now - since >= self.SPAN:
            rate = (received - count) / (now - since)
            self.now = 0.7 * self.now + 0.3 * rate if self.now else rate
            self._mark = received, now


def bar(received: int, total: int, rate: float, source: str) -> str:
    """Return a progress bar: how much of how much, how fast, how long it will take, where from."""
    part = min(received / total, 1.0)
    done = int(20 * part)
    text = f"  [{'#' * done}{'.' * (20 - done)}] {100 * part:3.0f} % of {total / 1e6:.1f} MB"
    if rate:
        seconds = int((total - received) / rate)
        left = f"{seconds // 3600}:{seconds // 60 % 60:02}:{seconds % 60:02}"
        text += f"  {rate / 1e6:.1f} MB/s  {left} left"
    # The address is one's own setting, or a neighbour's that the network told of.
    shown = "".join(char if char.isprintable() else "?" for char in source)
    return f"{text}  {shown}" if source else text


def _columns() -> int:
    try:
        return int(os.environ.get("COLUMNS", "")) or os.get_terminal_size(2).columns
    except (ValueError, OSError):
        return 80


def say(options: "argparse.Namespace", result: Mapping[str, Any], text: str) -> None:
    """Print a result: as JSON if that was asked for, else for people.

    If that cannot be, `options.unsaid` says why: how the command ends is not lost by it.
    """
    try:
        sys.stdout.write((json.dumps(result, indent=2) if options.json else text) + "\n")
        sys.stdout.flush()
    except OSError as error:
        let_go(sys.stdout)
        options.unsaid = error


def report_error(error: ModelwardError, *, as_json: bool) -> None:
    """Print an error for people and, if that was asked for, as JSON."""
    if as_json:
        write(sys.stdout, json.dumps(error.to_dict(), indent=2) + "\n")
    where = f" at {error.gate}" if error.gate else ""
    label = {"refused": "REFUSED", "unavailable": "unavailable"}.get(error.outcome, "error")
    text = f"modelward: {label}{where}: {error.reason}\n"
    if error.advice:
        text += f"  what to do: {error.advice}\n"
    if isinstance(error, Refused):
        text += "  nothing was changed; what ran before still runs\n"
    write(sys.stderr, text)


def write(out: "TextIO", text: str) -> bool:
    """Write a text at once; tell whether that was possible. If not, nothing more is written."""
    try:
        out.write(text)
        out.flush()
    except OSError:
        let_go(out)
        return False
    return True


def let_go(out: "TextIO") -> None:
    """Have what is held back go nowhere: Python writes it once more at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), out.fileno())


def open_what_is_closed() -> None:
    """Have standard input, output and error lead nowhere if this was started without them.

    Python then has none to write to, and the next file that is opened would get their number: what
    a library prints would go there, even one that a child process has loaded.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:  # the lowest that is free is this one
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # noqa: FBT003 - has no name
    for number, name in ((1, "stdout"), (2, "stderr")):
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(number, "w", closefd=False))
