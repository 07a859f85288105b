"""A PostgreSQL database that one test leaves as it was made serves the next: making one takes longer than most tests.

What a test did to the schema is found by a fingerprint of the catalogue, and such a database is dropped.
"""

from __future__ import annotations

from typing import Any

import psycopg

from agentos_store.testing import Databases
from agentos_store.testing.postgres import connect

USES = 40
"""Tests that one database serves: deleted rows stay in its files."""

_OURS = "oid >= 16384"
"""What the server brings along has lower numbers."""

_FINGERPRINT = f"""
SELECT md5(string_agg(fact, ',' ORDER BY fact)) FROM (
  SELECT concat('class', oid, relname, relkind, relacl, reloptions, relowner, relrowsecurity, relpersistence) AS fact
    FROM pg_class WHERE {_OURS}
  UNION ALL SELECT concat('schema', oid, nspname, nspacl) FROM pg_namespace WHERE nspname !~ '^pg_(toast_)?temp'
  UNION ALL SELECT concat('trigger', oid, tgenabled) FROM pg_trigger WHERE {_OURS}
  UNION ALL SELECT concat('constraint', oid, convalidated) FROM pg_constraint WHERE {_OURS}
  UNION ALL SELECT concat('column', attrelid, attnum, attname, atttypid, attnotnull, attacl)
    FROM pg_attribute WHERE attrelid >= 16384 AND attnum > 0
  UNION ALL SELECT concat('index', indexrelid, indisvalid, indisready) FROM pg_index WHERE indexrelid >= 16384
  UNION ALL SELECT concat('function', oid, md5(prosrc), proacl) FROM pg_proc WHERE {_OURS}
  UNION ALL SELECT concat('default', adrelid, adnum, adbin) FROM pg_attrdef
  UNION ALL SELECT concat('extension', extname) FROM pg_extension
  UNION ALL SELECT concat('policy', polname) FROM pg_policy
  UNION ALL SELECT concat('publication', pubname) FROM pg_publication
  UNION ALL SELECT concat('event', evtname) FROM pg_event_trigger
  UNION ALL SELECT concat('acl', defaclacl) FROM pg_default_acl
  UNION ALL SELECT concat('sequence', seqrelid, seqstart, seqincrement, seqmax, seqcycle) FROM pg_sequence
  UNION ALL SELECT concat('setting', setconfig) FROM pg_db_role_setting s
    JOIN pg_database d ON d.oid = s.setdatabase AND d.datname = current_database()
  UNION ALL SELECT concat('database', datconnlimit, datacl) FROM pg_database WHERE datname = current_database()
  UNION ALL SELECT concat('statistics', count(*)) FROM pg_statistic WHERE starelid >= 16384
  UNION ALL SELECT concat('revision', revision) FROM public.agentos_store_version
) AS facts
"""

_BUSY = """
SELECT count(*) FROM pg_stat_activity
 WHERE datname = current_database() AND pid <> pg_backend_pid() AND state IS DISTINCT FROM 'idle'
   AND backend_type = 'client backend'
"""

_TABLES = """
SELECT format('%I.%I', n.nspname, c.relname) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
 WHERE c.oid >= 16384 AND c.relkind = 'r' AND n.nspname !~ '^pg_' AND c.relname <> 'agentos_store_version'
"""


class Shelf:
    """The databases of one process of the tests that are waiting for another test."""

    def __init__(self, server: str, template: str) -> None:
        self._databases = Databases(server)
        self._template = template
        self._spare: list[str] = []
        self._uses: dict[str, int] = {}
        self._connections: dict[str, Any] = {}
        """One for each database, which knows its catalogue by now: asking on a new one takes several times as long."""
        self._fingerprint = ""
        self._dirty = ""

    def take(self) -> str:
        """Return a database with the schema in it and no rows."""
        if self._spare:
            return self._spare.pop()
        url = self._databases.create(self._template)
        connection = self._connections[url] = connect(url)
        if not self._fingerprint:
            self._fingerprint = _one(connection, _FINGERPRINT)
            tables = [name for (name,) in connection.execute(_TABLES.encode()).fetchall()]
            self._dirty = " UNION ALL ".join(f"SELECT '{each}' WHERE EXISTS (SELECT FROM {each})" for each in tables)
        return url

    def give_back(self, url: str) -> None:
        """Clear a database for the next test, or drop it."""
        self._uses[url] = self._uses.get(url, 0) + 1
        if self._uses[url] < USES and self._clear(self._connections[url]):
            self._spare.append(url)
        else:
            self._drop(url)

    def close(self) -> None:
        """Drop what waits."""
        while self._spare:
            self._drop(self._spare.pop())

    def _drop(self, url: str) -> None:
        self._connections.pop(url).close()
        self._databases.drop(url)

    def _clear(self, connection: Any) -> bool:
        try:
            if _one(connection, _BUSY) or _one(connection, _FINGERPRINT) != self._fingerprint:
                return False
            dirty = [name for (name,) in connection.execute(self._dirty.encode()).fetchall()]
            # Neither triggers nor foreign keys are asked, for everything goes.
            deletions = "".join(f"DELETE FROM {name};" for name in dirty)
            connection.execute(f"SET session_replication_role = replica; {deletions}".encode())
            connection.execute("SELECT setval(seqrelid::regclass, seqstart, false) FROM pg_sequence")
        except psycopg.Error:
            # The test took the database away, a right, or this connection; the next one gets another.
            return False
        return True


def _one(connection: Any, query: str) -> Any:
    return connection.execute(query.encode()).fetchone()[0]
