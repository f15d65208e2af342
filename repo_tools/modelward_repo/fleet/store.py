"""The fleet in SQLite: one file in a private folder, any number of processes.

Write-ahead logging lets operators read while reports come in; a transaction that begins IMMEDIATE
keeps other writers waiting from its first read on, so that two copies of one report cannot both be
the next of their chain.
"""

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from modelward.errors import UsageError
from modelward.formats.policy import Key
from modelward.trust.report import device_key

FILE = "fleet.sqlite"
PATIENCE = 10.0  # seconds to wait for another process
KEPT_REPORTS = 64  # of each device
KEPT_BYTES = 1 << 20  # of each device's reports; the newest always stays
KEPT_ALARMS = 1000  # rows in all; the oldest that were dismissed give way, then the oldest
_SCHEMA = """
CREATE TABLE IF NOT EXISTS devices (
    device TEXT PRIMARY KEY,
    keyid TEXT NOT NULL UNIQUE,
    public TEXT NOT NULL,
    added INTEGER NOT NULL,
    revoked INTEGER,
    counter INTEGER NOT NULL DEFAULT 0,
    head TEXT
) STRICT;
CREATE TABLE IF NOT EXISTS reports (
    device TEXT NOT NULL REFERENCES devices ON DELETE CASCADE,
    counter INTEGER NOT NULL,
    sha256 TEXT NOT NULL,
    received INTEGER NOT NULL,
    missing INTEGER NOT NULL,
    envelope BLOB NOT NULL,
    PRIMARY KEY (device, counter)
) STRICT;
CREATE INDEX IF NOT EXISTS recent ON reports (device, received);
CREATE TABLE IF NOT EXISTS alarms (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    kind TEXT NOT NULL,
    device TEXT NOT NULL,
    subject TEXT NOT NULL,
    reason TEXT NOT NULL,
    first INTEGER NOT NULL,
    last INTEGER NOT NULL,
    count INTEGER NOT NULL,
    dismissed INTEGER,
    document BLOB,
    UNIQUE (kind, device, subject)
) STRICT;
CREATE TABLE IF NOT EXISTS ahead (
    log TEXT NOT NULL,
    size INTEGER NOT NULL,
    root BLOB NOT NULL,
    device TEXT NOT NULL,
    note BLOB NOT NULL,
    PRIMARY KEY (log, size, root)
) STRICT;
"""


@dataclass(frozen=True)
class Device:
    """A device that may report.

    Attributes:
        device: Its id.
        key: Its public key.
        added: When it was registered, POSIX seconds.
        revoked: When its key was revoked, or None.
        counter: The counter of its newest report; 0 for none.
        head: The digest of that report, or None.
    """

    device: str
    key: Key
    added: int
    revoked: int | None
    counter: int
    head: str | None


@dataclass(frozen=True)
class Stored:
    """A report as it came in, its signature verified.

    Attributes:
        device: Whose.
        counter: Which.
        sha256: Digest of its payload.
        received: When, POSIX seconds.
        missing: How many reports before it never came.
        envelope: The envelope.
    """

    device: str
    counter: int
    sha256: str
    received: int
    missing: int
    envelope: bytes


@dataclass(frozen=True)
class Alarm:
    """Something that somebody must look at.

    Attributes:
        number: What it is called by.
        kind: Such as ``fork``, ``replay``, ``forged``, ``split view``, ``freeze``.
        device: The device it concerns; empty where that is not known.
        reason: One sentence for people.
        first: When it was first seen, POSIX seconds.
        last: When it was last seen.
        count: How often, at least: a flood is not counted one by one.
        dismissed: When somebody said that they had looked, or None.
        document: Evidence, or the report that was rejected; None if there is nothing to keep.
    """

    number: int
    kind: str
    device: str
    reason: str
    first: int
    last: int
    count: int
    dismissed: int | None
    document: bytes | None


class Fleet:
    """The file.

    Args:
        folder: The private folder that it lies in.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / FILE

    def exists(self) -> bool:
        """Tell whether any device was ever registered."""
        return self._path.is_file()

    def create(self) -> None:
        """Make the file, readable for its owner alone, unless it is there.

        Raises:
            UsageError: It cannot be made.
        """
        try:
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._path.touch(mode=0o600)
            with closing(self._connect()) as connection:
                connection.execute("PRAGMA journal_mode = WAL")
                connection.executescript(_SCHEMA)
        except (OSError, sqlite3.Error) as error:
            raise UsageError(f"{self._path} cannot be opened: {error}") from error

    @contextmanager
    def read(self) -> Iterator["Turn"]:
        """Look at a consistent state."""
        with closing(self._connect()) as connection:
            connection.execute("BEGIN")
            yield Turn(connection)

    @contextmanager
    def write(self) -> Iterator["Turn"]:
        """Change it, all or nothing: durable when the block has ended without an error."""
        with closing(self._connect()) as connection:
            connection.execute("BEGIN IMMEDIATE")
            yield Turn(connection)
            connection.execute("COMMIT")

    def _connect(self) -> sqlite3.Connection:
        # isolation_level None: no transaction begins by itself.
        connection = sqlite3.connect(self._path, timeout=PATIENCE, isolation_level=None)
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA foreign_keys = ON")
        return connection


class Turn:
    """One transaction.

    Args:
        connection: Within which it has begun.
    """

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def add_device(self, device: str, key: Key, now: int) -> None:
        """Register a device, or give one a new key: its chain of reports begins anew.

        Raises:
            UsageError: The key is another device's.
        """
        holder = self.device_by_key(key.keyid)
        if holder is not None and holder.device != device:
            raise UsageError(
                f"that key is registered for {holder.device!r}", "a key is one device's"
            )
        self._connection.execute("DELETE FROM devices WHERE device = ?", (device,))
        self._connection.execute(
            "INSERT INTO devices (device, keyid, public, added) VALUES (?, ?, ?, ?)",
            (device, key.keyid, key.public, now),
        )

    def revoke(self, device: str, now: int) -> bool:
        """Believe a device's key no more; tell whether there was such a device."""
        changed = self._connection.execute(
            "UPDATE devices SET revoked = coalesce(revoked, ?) WHERE device = ?", (now, device)
        )
        return changed.rowcount > 0

    def devices(self) -> list[Device]:
        """Return all devices, by id."""
        rows = self._connection.execute(f"{_DEVICE} ORDER BY device")
        return [_device(row) for row in rows]

    def device(self, name: str) -> Device | None:
        """Return a device, or None."""
        row = self._connection.execute(f"{_DEVICE} WHERE device = ?", (name,)).fetchone()
        return _device(row) if row else None

    def device_by_key(self, keyid: str) -> Device | None:
        """Return the device that has a key, or None."""
        row = self._connection.execute(f"{_DEVICE} WHERE keyid = ?", (keyid,)).fetchone()
        return _device(row) if row else None

    def reports_since(self, device: str, time: int) -> int:
        """Return how many reports of a device came in since a time."""
        query = "SELECT count(*) FROM reports WHERE device = ? AND received >= ?"
        return int(self._connection.execute(query, (device, time)).fetchone()[0])

    def reports(self, device: str) -> list[Stored]:
        """Return a device's reports that are kept, the newest first."""
        query = f"{_REPORT} WHERE device = ? ORDER BY counter DESC"
        return [Stored(*row) for row in self._connection.execute(query, (device,))]

    def newest_reports(self) -> list[Stored]:
        """Return each device's newest report, by device."""
        query = f"{_REPORT} JOIN devices USING (device, counter) ORDER BY device"
        return [Stored(*row) for row in self._connection.execute(query)]

    def add_report(self, report: Stored) -> None:
        """Keep a report as the newest of its device, and drop what is too old or too much."""
        self._connection.execute(
            "INSERT INTO reports (device, counter, sha256, received, missing, envelope) "
            "VALUES (?, ?, ?, ?, ?, ?)",
            tuple(vars(report).values()),
        )
        self._connection.execute(
            "UPDATE devices SET counter = ?, head = ? WHERE device = ?",
            (report.counter, report.sha256, report.device),
        )
        self._connection.execute(
            "DELETE FROM reports WHERE device = ?1 AND counter IN (SELECT counter FROM ("
            "  SELECT counter, row_number() OVER newest AS place,"
            "         sum(length(envelope)) OVER newest AS bytes"
            "  FROM reports WHERE device = ?1 WINDOW newest AS (ORDER BY counter DESC)"
            ") WHERE place > 1 AND (place > ?2 OR bytes > ?3))",
            (report.device, KEPT_REPORTS, KEPT_BYTES),
        )

    def raise_alarm(  # noqa: PLR0913, PLR0917 - a row
        self,
        kind: str,
        device: str,
        subject: str,
        reason: str,
        now: int,
        document: bytes | None = None,
    ) -> None:
        """Raise an alarm, or count it again. One that was dismissed is raised again.

        Args:
            kind: What kind.
            device: Whose.
            subject: What tells it from other alarms of that kind about that device.
            reason: One sentence for people.
            now: When, POSIX seconds.
            document: What to keep with it; the first one stays.
        """
        self._connection.execute(
            "INSERT INTO alarms (kind, device, subject, reason, first, last, count, document) "
            "VALUES (?1, ?2, ?3, ?4, ?5, ?5, 1, ?6) "
            "ON CONFLICT (kind, device, subject) DO UPDATE SET "
            "count = count + 1, last = excluded.last, reason = excluded.reason, dismissed = NULL",
            (kind, device, subject, reason, now, document),
        )
        self._connection.execute(
            "DELETE FROM alarms WHERE number IN (SELECT number FROM alarms "
            "ORDER BY dismissed IS NULL DESC, last DESC, number DESC LIMIT -1 OFFSET ?)",
            (KEPT_ALARMS,),
        )

    def alarm_at(self, kind: str, device: str, subject: str) -> int | None:
        """Return when an alarm was last raised; None for never, or if it was dismissed since."""
        query = (
            "SELECT last FROM alarms WHERE kind = ? AND device = ? AND subject = ? "
            "AND dismissed IS NULL"
        )
        row = self._connection.execute(query, (kind, device, subject)).fetchone()
        return row[0] if row else None

    def alarms(self) -> list[Alarm]:
        """Return all alarms, the oldest first."""
        query = (
            "SELECT number, kind, device, reason, first, last, count, dismissed, document "
            "FROM alarms ORDER BY number"
        )
        return [Alarm(*row) for row in self._connection.execute(query)]

    def dismiss(self, number: int, now: int) -> bool:
        """Note that somebody has looked at an alarm; tell whether there is one."""
        changed = self._connection.execute(
            "UPDATE alarms SET dismissed = coalesce(dismissed, ?) WHERE number = ?", (now, number)
        )
        return changed.rowcount > 0

    def ahead(self, log: str) -> list[tuple[int, bytes, str, bytes]]:
        """Return trees that devices saw before this server did: size, root, device, note."""
        query = "SELECT size, root, device, note FROM ahead WHERE log = ? ORDER BY size"
        return list(self._connection.execute(query, (log,)))

    def add_ahead(self, log: str, size: int, root: bytes, device: str, note: bytes) -> None:
        """Remember a tree that a device saw and this server does not serve yet."""
        self._connection.execute(
            "INSERT OR IGNORE INTO ahead VALUES (?, ?, ?, ?, ?)", (log, size, root, device, note)
        )

    def forget_ahead(self, log: str, size: int, root: bytes) -> None:
        """Forget one of them."""
        self._connection.execute(
            "DELETE FROM ahead WHERE log = ? AND size = ? AND root = ?", (log, size, root)
        )


_DEVICE = "SELECT device, public, added, revoked, counter, head FROM devices"
_REPORT = "SELECT device, counter, sha256, received, missing, envelope FROM reports"


def _device(row: tuple[str, str, int, int | None, int, str | None]) -> Device:
    name, public, added, revoked, counter, head = row
    return Device(name, device_key(bytes.fromhex(public)), added, revoked, counter, head)
