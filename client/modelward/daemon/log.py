"""What the daemon says: a line an event, for people, for programs or for the journal."""

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import IntEnum
from pathlib import Path
from typing import Any, TextIO

from modelward.formats import strict


class Level(IntEnum):
    """How much a line matters: syslog's numbers, which are the journal's (sd-daemon(3))."""

    ERROR = 3
    WARNING = 4
    NOTICE = 5
    INFO = 6
    DEBUG = 7


@dataclass(frozen=True)
class Log:
    """Writes lines.

    Attributes:
        out: Where to.
        clock: Returns the time.
        as_json: Write JSON objects instead of sentences.
        journal: Whether the journal reads them: it wants a priority, and knows the time itself.
        most: The least important level that is written.
    """

    out: TextIO
    clock: Callable[[], datetime]
    as_json: bool = False
    journal: bool = False
    most: Level = Level.INFO

    def __call__(self, level: Level, event: str, message: str, **fields: Any) -> None:
        """Write a line.

        Args:
            level: How much it matters.
            event: What happened, in one word, for programs.
            message: The same for people, in one line.
            fields: More for programs.
        """
        if level > self.most:
            return
        time = strict.rfc3339(self.clock())
        if self.as_json:
            entry = {"time": time, "level": level.name.lower(), "event": event, **fields}
            text = json.dumps({**entry, "message": message})
        else:
            loud = f"{level.name}: " if level <= Level.WARNING and not self.journal else ""
            text = f"{loud}{message}" if self.journal else f"{time} {loud}{message}"
        prefix = f"<{level.value}>" if self.journal else ""
        try:
            self.out.write(f"{prefix}{text}\n")
            self.out.flush()
        except BrokenPipeError:
            # Whoever read the log has gone: that must not end the daemon.
            self._write_to_nothing()
        except OSError:
            pass  # nor must a full disk: once there is room, what it holds back is written

    def close(self) -> None:
        """Write what is held back, or let go of it: Python would make an error of that at exit."""
        try:
            self.out.flush()
        except OSError:
            self._write_to_nothing()

    def _write_to_nothing(self) -> None:
        with Path(os.devnull).open("wb") as nothing:
            os.dup2(nothing.fileno(), self.out.fileno())


def is_journal(out: TextIO, environment: Mapping[str, str]) -> bool:
    """Tell whether a file is connected to the journal (systemd.exec(5), JOURNAL_STREAM)."""
    device, _, inode = environment.get("JOURNAL_STREAM", "").partition(":")
    try:
        status = os.fstat(out.fileno())
    except OSError:  # closed, or no file of the system at all
        return False
    return (device, inode) == (str(status.st_dev), str(status.st_ino))
