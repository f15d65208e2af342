"""Reports on disk: a bounded queue of those not sent yet, and the newest, which the next one names.

::

    reports/000000000012.json   envelopes by counter; the newest always stays
    reports/sent                the counter of the newest that was received
"""

import time
from contextlib import AbstractContextManager
from pathlib import Path

from modelward import plain_file
from modelward.formats.report import CAP
from modelward.install import fsops
from modelward.install.owner import check_owner

FOLDER = "reports"
MAX_QUEUED = 32  # envelopes: a device that reaches nobody must not fill its disk
PATIENCE = 30.0  # seconds: whoever holds the chain writes a small file or two
_POLL = 0.02  # seconds
_SENT = "sent"
_DIGITS = 12


class ReportStore:
    """Keeps a device's reports.

    Args:
        state: The state directory.
    """

    def __init__(self, state: Path) -> None:
        self._folder = state / FOLDER

    def chain(self) -> AbstractContextManager[None]:
        """Hold the chain and the queue while either changes. Others are waited for.

        Raises:
            Busy: Another process has held it for longer than anything takes.
        """
        end = time.monotonic() + PATIENCE

        def keep_waiting(_holder: str) -> bool:
            time.sleep(_POLL)
            return time.monotonic() < end

        return fsops.lock(self._folder / "lock", "is making a report", keep_waiting)

    def sending(self) -> AbstractContextManager[None]:
        """Be the one that sends, for as long as that takes. The chain may grow meanwhile.

        Raises:
            Busy: Another process is sending.
        """
        return fsops.lock(self._folder / "sending.lock", "is sending reports")

    def prepare(self) -> None:
        """Make the folder.

        Raises:
            UsageError: This process runs as another user than the owner of the state directory.
        """
        check_owner(self._folder.parent)
        fsops.make_directory(self._folder)

    def newest(self) -> bytes | None:
        """Return the newest report, sent or not."""
        return self.read(self.last()) if self.last() else None

    def last(self) -> int:
        """Return the counter of the newest report; 0 before the first."""
        return max([0, *self._counters()])

    def pending(self) -> tuple[int, ...]:
        """Return the counters of what was not received yet, the oldest first."""
        sent = self.sent()
        return tuple(counter for counter in self._counters() if counter > sent)

    def read(self, counter: int) -> bytes | None:
        """Return a report; None if it is gone, or longer than any may be."""
        try:
            return plain_file.read(self._path(counter), CAP)
        except OSError:
            return None

    def sent(self) -> int:
        """Return the counter of the newest report that was received; 0 for none."""
        try:
            return int(plain_file.read(self._folder / _SENT, CAP))
        except (OSError, ValueError):
            return 0

    def add(self, counter: int, data: bytes) -> None:
        """Queue a report, durably; whoever does holds `chain`. The oldest of too many give way."""
        self.prepare()
        fsops.sweep(self._folder)
        fsops.write_file(self._path(counter), data, 0o600)
        self._drop()

    def received(self, counter: int) -> None:
        """Note that a report, and so every older one, need not be sent again."""
        with self.chain():
            fsops.write_file(self._folder / _SENT, str(counter).encode())
            self._drop()

    def _drop(self) -> None:
        sent, counters = self.sent(), self._counters()
        waiting = [counter for counter in counters if counter > sent]
        wanted = {*waiting[-MAX_QUEUED:], *counters[-1:]}
        for counter in counters:
            if counter not in wanted:
                fsops.remove(self._path(counter))

    def _counters(self) -> list[int]:
        names = (path.stem for path in self._folder.glob("[0-9]*.json"))
        return sorted(int(name) for name in names if name.isascii() and name.isdecimal())

    def _path(self, counter: int) -> Path:
        return self._folder / f"{counter:0{_DIGITS}}.json"
