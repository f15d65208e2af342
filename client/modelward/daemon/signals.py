"""Signals as something to wait for, like any other event: nothing is interrupted half-way."""

import os
import select
import signal
from collections.abc import Iterable
from types import FrameType
from typing import IO, Self

_WATCHED = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGCHLD)


class Signals:
    """Notes the signals that come while it is used as a context manager."""

    def __enter__(self) -> Self:
        self._read, self._write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        # Python's own handler writes each signal's number there; ours need do nothing.
        self._wakeup = signal.set_wakeup_fd(self._write, warn_on_full_buffer=False)
        self._before = {number: signal.signal(number, _ignore) for number in _WATCHED}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(self._wakeup)
        os.close(self._read)
        os.close(self._write)

    def wait(self, seconds: float, others: Iterable[IO[bytes]] = ()) -> list[signal.Signals]:
        """Wait for a signal, or until one of the files can be read; return the signals that came.

        Args:
            seconds: The longest to wait.
            others: The files.
        """
        files: list[int | IO[bytes]] = [self._read, *others]
        select.select(files, [], [], max(0.0, seconds))
        try:
            return [signal.Signals(number) for number in os.read(self._read, 4096)]
        except BlockingIOError:
            return []


def _ignore(_number: int, _frame: FrameType | None) -> None:
    pass
