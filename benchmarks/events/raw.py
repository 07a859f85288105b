"""The drivers alone: the same rows, the same indexes and the same durability."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Sequence
from typing import Any, LiteralString

from benchmarks import rows
from benchmarks.drivers import PostgreSQLDriver, SQLiteDriver
from benchmarks.events import content

COLUMNS: LiteralString = "event_id, agent_id, session_id, task_id, channel, seq, event_type, severity, data, created_at"
ALL: LiteralString = "position, transaction_id, " + COLUMNS
BY: LiteralString = "FROM events WHERE agent_id = {0} AND event_type = {0} AND created_at >= {0}"


class RawSQLite(SQLiteDriver):
    """One connection of ``sqlite3``."""

    def __init__(self, connection: Any) -> None:
        super().__init__(connection)
        self._keys = rows.numbered_keys("R")

    def log(self) -> object:
        """Log one event, which commits by itself."""
        values = self._row(content.TYPE, content.AGENT, content.DATA)
        return self.connection.execute(
            f"INSERT INTO events ({COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?) RETURNING position", values
        ).fetchall()

    def log_many(self, events: Sequence[dict[str, Any]]) -> object:
        """Log many in one transaction."""
        given = [self._row(event["event_type"], event["agent_id"], event["data"]) for event in events]
        with self._transaction():
            self.connection.executemany(f"INSERT INTO events ({COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", given)
        return len(given)

    def _row(self, event_type: str, agent_id: str, data: object) -> tuple[Any, ...]:
        at = rows.written(rows.now())
        return (next(self._keys), agent_id, None, None, None, None, event_type, "info", rows.compact(data), at)

    def find(self) -> list[Any]:
        """Return events of one agent and type, from a time on."""
        text = f"SELECT {ALL} {BY.format('?')} ORDER BY created_at, position LIMIT ?"
        values = ("coder_7", "type_3", rows.written(content.SINCE), content.FOUND)
        found = self.connection.execute(text, values).fetchall()
        return [(*row[:10], json.loads(row[10]), dt.datetime.fromisoformat(row[11])) for row in found]


class RawPostgreSQL(PostgreSQLDriver):
    """One connection and one cursor of psycopg."""

    def __init__(self, connection: Any) -> None:
        super().__init__(connection)
        self._keys = rows.numbered_keys("R")

    def log(self) -> object:
        """Log one event, which commits by itself."""
        values = (next(self._keys), content.AGENT, content.TYPE, rows.compact(content.DATA), rows.now())
        return self._execute(
            "INSERT INTO events (event_id, agent_id, event_type, severity, data, created_at)"
            " VALUES (%s, %s, %s, 'info', %s, %s) RETURNING position, transaction_id",
            values,
        ).fetchall()

    def log_many(self, events: Sequence[dict[str, Any]]) -> object:
        """Stream many in."""
        with self.cursor.copy(f"COPY events ({COLUMNS}) FROM STDIN") as stream:
            for event in events:
                data = rows.compact(event["data"])
                named = (next(self._keys), event["agent_id"], None, None, None, None, event["event_type"])
                stream.write_row((*named, "info", data, rows.now()))
        return len(events)

    def find(self) -> list[Any]:
        """Return events of one agent and type, from a time on; the driver reads JSON."""
        values = ("coder_7", "type_3", content.SINCE, content.FOUND)
        return self._execute(
            f"SELECT {ALL} {BY.format('%s')} ORDER BY created_at, position LIMIT %s", values
        ).fetchall()


RAW_OF: dict[str, type[RawSQLite | RawPostgreSQL]] = {"sqlite": RawSQLite, "postgresql": RawPostgreSQL}
"""By the backend."""
