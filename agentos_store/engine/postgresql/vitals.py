"""A look at a PostgreSQL server: does it answer, what is it at, does it take writes from this role."""

from __future__ import annotations

from time import perf_counter
from typing import TYPE_CHECKING

from agentos_store.engine.version import quote_name, read_revision_postgresql
from agentos_store.engine.vitals import ServerState, Vitals

if TYPE_CHECKING:
    from agentos_store.engine.postgresql.backend import PostgreSQLBackend


def examine(backend: PostgreSQLBackend, vitals: Vitals) -> None:
    """Find out, step by step; an error says that a step failed."""
    with backend.raw_connection() as cursor:
        started = perf_counter()
        cursor.execute("SELECT 1").fetchone()
        vitals.latency = perf_counter() - started
        vitals.connected = True
        vitals.doing = "reading the revision"
        vitals.read(read_revision_postgresql(cursor, backend.schema))
        vitals.doing = "asking whether it takes writes"
        row = cursor.execute(
            "SELECT pg_is_in_recovery(), current_setting('transaction_read_only')::bool,"
            " has_table_privilege(to_regclass(%s), 'INSERT')",
            (f"{quote_name(backend.schema)}.tasks",),
        ).fetchone()
    assert row is not None
    is_standby, reads_only, may_insert = row
    if is_standby:
        vitals.problems.append("not writable: the server is a standby")
    elif reads_only:
        vitals.problems.append("not writable: the server only accepts reads")
    elif may_insert is False:
        vitals.problems.append("not writable: the role may not insert")
    vitals.writable = not (is_standby or reads_only or may_insert is False)


def server_state(backend: PostgreSQLBackend) -> ServerState:
    """Ask how many are connected, and how many wait for a lock."""
    with backend.raw_connection() as cursor:
        row = cursor.execute(
            "SELECT count(datid)::int, current_setting('max_connections')::int,"
            " count(*) FILTER (WHERE datname = current_database() AND wait_event_type = 'Lock'"
            " AND query_start < clock_timestamp() - interval '100 ms')::int"
            " FROM pg_stat_activity"
        ).fetchone()
    assert row is not None
    return ServerState(*row)
