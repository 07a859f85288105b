"""Sets of keys too large for memory: a private temporary database that SQLite keeps in its cache while it is small."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from types import TracebackType
from typing import Self


class KeySets:
    """Named sets of texts, and where in the source a key of several rows stands."""

    def __init__(self) -> None:
        # The empty name makes a database of this connection alone; its file, if there is need of one, has no name.
        self._connection = sqlite3.connect("", isolation_level=None, check_same_thread=False)
        self._connection.execute("PRAGMA journal_mode=OFF")
        self._connection.execute("CREATE TABLE member (kind TEXT, key TEXT, PRIMARY KEY (kind, key)) WITHOUT ROWID")
        self._connection.execute(
            "CREATE TABLE place (kind TEXT, key TEXT, number INTEGER, origin TEXT, rowid_there INTEGER,"
            " PRIMARY KEY (kind, key, number)) WITHOUT ROWID"
        )
        self._connection.execute(
            "CREATE TABLE tally (kind TEXT, key TEXT, amount TEXT, PRIMARY KEY (kind, key)) WITHOUT ROWID"
        )
        self._connection.execute(
            "CREATE TABLE ranked (kind TEXT, key TEXT, rank INTEGER, rowid_there INTEGER,"
            " PRIMARY KEY (kind, key, rank, rowid_there)) WITHOUT ROWID"
        )
        self._passes = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Forget everything."""
        self._connection.close()

    def fresh(self, kind: str) -> str:
        """Return the name of a set that is empty and nobody else's."""
        self._passes += 1
        return f"{kind} {self._passes}"

    def add(self, kind: str, key: str) -> bool:
        """Add the key; tell whether it is new."""
        done = self._connection.execute("INSERT OR IGNORE INTO member VALUES (?, ?)", (kind, key))
        return done.rowcount == 1

    def has(self, kind: str, key: str) -> bool:
        """Tell whether the set has the key."""
        found = self._connection.execute("SELECT 1 FROM member WHERE kind = ? AND key = ?", (kind, key))
        return found.fetchone() is not None

    def tally(self, kind: str, key: str, amount: int = 1) -> int:
        """Add to the number that belongs to the key, 0 at first, and return it."""
        found = self._connection.execute("SELECT amount FROM tally WHERE kind = ? AND key = ?", (kind, key)).fetchone()
        # As text, for a sum may be larger than what SQLite's integers hold.
        total = (0 if found is None else int(found[0])) + amount
        self._connection.execute("INSERT OR REPLACE INTO tally VALUES (?, ?, ?)", (kind, key, str(total)))
        return total

    def drop(self, kind: str) -> None:
        """Forget one set."""
        self._connection.execute("DELETE FROM member WHERE kind = ?", (kind,))

    def stand(self, kind: str, key: str, origin: str, rowid: int) -> None:
        """Note that a row of the source has this key."""
        self._connection.execute(
            "INSERT INTO place SELECT ?1, ?2, count(*), ?3, ?4 FROM place WHERE kind = ?1 AND key = ?2",
            (kind, key, origin, rowid),
        )

    def places(self, kind: str, key: str) -> Iterator[tuple[str, int]]:
        """Give the rows of the source that have this key, in the order in which they were noted."""
        found = self._connection.execute(
            "SELECT origin, rowid_there FROM place WHERE kind = ? AND key = ? ORDER BY number", (kind, key)
        )
        yield from found.fetchall()

    def rank(self, kind: str, key: str, rank: int, rowid: int) -> None:
        """Note where a row of the source stands among those of this key."""
        self._connection.execute("INSERT INTO ranked VALUES (?, ?, ?, ?)", (kind, key, rank, rowid))

    def ranked(self, kind: str) -> Iterator[tuple[str, int]]:
        """Give key and row of all that were noted, those of one key in their order."""
        yield from self._connection.execute(
            "SELECT key, rowid_there FROM ranked WHERE kind = ? ORDER BY key, rank, rowid_there", (kind,)
        )
