"""A witness's memory in SQLite: one file, any number of processes.

A transaction that begins IMMEDIATE keeps other writers waiting from its first read on, and with
``synchronous = FULL`` a commit is on the disk when it returns.
"""

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from modelward.errors import UsageError
from modelward_repo.log.witness import NOTHING, Seen

PATIENCE = 10.0  # seconds to wait for another process
_SCHEMA = """
CREATE TABLE IF NOT EXISTS seen (
    log TEXT PRIMARY KEY,
    size INTEGER NOT NULL,
    root BLOB NOT NULL CHECK (length(root) = 32)
) STRICT
"""


class SqliteStore:
    """Remembers in a file; see `modelward_repo.log.witness.Store`.

    Args:
        path: The file; made if it is missing. A witness must never lose it: without it, the
            witness would cosign any history.

    Raises:
        UsageError: It cannot be opened.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            with closing(self._connect()) as connection:
                connection.execute(_SCHEMA)
        except sqlite3.Error as error:
            raise UsageError(f"the witness's memory {path} cannot be opened: {error}") from error

    @contextmanager
    def turn(self, log: str) -> Iterator["SqliteTurn"]:
        """See `Store.turn`."""
        with closing(self._connect()) as connection:
            connection.execute("BEGIN IMMEDIATE")
            turn = SqliteTurn(connection, log)
            try:
                yield turn
            finally:
                # Nothing, unless an error came in between.
                if connection.in_transaction:
                    connection.execute("ROLLBACK")

    def _connect(self) -> sqlite3.Connection:
        # isolation_level None: no transaction begins by itself.
        connection = sqlite3.connect(self._path, timeout=PATIENCE, isolation_level=None)
        connection.execute("PRAGMA synchronous = FULL")
        return connection


class SqliteTurn:
    """One transaction; see `modelward_repo.log.witness.Turn`."""

    def __init__(self, connection: sqlite3.Connection, log: str) -> None:
        self._connection = connection
        self._log = log

    def seen(self) -> Seen:
        """See `Turn.seen`."""
        row = self._connection.execute(
            "SELECT size, root FROM seen WHERE log = ?", (self._log,)
        ).fetchone()
        return Seen(*row) if row else NOTHING

    def remember(self, seen: Seen) -> None:
        """See `Turn.remember`."""
        self._connection.execute(
            "INSERT INTO seen VALUES (?, ?, ?) "
            "ON CONFLICT (log) DO UPDATE SET size = excluded.size, root = excluded.root",
            (self._log, seen.size, seen.root),
        )
        self._connection.execute("COMMIT")
