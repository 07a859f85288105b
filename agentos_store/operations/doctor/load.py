"""PostgreSQL, what goes on at this moment: connections, locks, transactions, standbys."""

from __future__ import annotations

from collections.abc import Iterator

from agentos_store.engine.version import quote_name
from agentos_store.operations.doctor.kinds import finding
from agentos_store.operations.doctor.patient import PostgreSQLPatient
from agentos_store.operations.doctor.report import Finding, amount, some, span

MOST_CONNECTIONS = 0.8
"""Part of all connections."""

LOCK_WAIT = 0.1
STATEMENT = 1.0
TRANSACTION = 300.0
IDLE = 60.0
HELD_BACK = 60.0
STANDBY_BEHIND = 30.0
"""Seconds."""

BYTES_BEHIND = 256 * 1024**2
"""Bytes of log."""


def connections(patient: PostgreSQLPatient) -> Iterator[Finding]:
    """Look how many connections are left."""
    ((count, most),) = patient.ask(
        "SELECT count(*), current_setting('max_connections')::int FROM pg_stat_activity"
        " WHERE backend_type = 'client backend'"
    )
    if count > most * MOST_CONNECTIONS:
        yield finding("connections-high", f"{count} of {most} connections")


def locks(patient: PostgreSQLPatient) -> Iterator[Finding]:
    """Look who waits for a lock."""
    ((count, longest),) = patient.ask(_WAITS)
    if count and (longest or 0.0) > LOCK_WAIT:
        yield finding("lock-waits", f"{count} wait, the longest for {span(longest)}")


def transactions(patient: PostgreSQLPatient) -> Iterator[Finding]:
    """Look for transactions that are open for long, and statements that take long."""
    rows = patient.ask(_ACTIVITY)
    idle = [
        (pid, since) for pid, state, _, since, _ in rows if state.startswith("idle in transaction") and since > IDLE
    ]
    if idle:
        yield finding("idle-in-transaction", _named(idle))
    open_ = [(pid, age) for pid, state, age, _, _ in rows if age > TRANSACTION and (pid, _since(rows, pid)) not in idle]
    if open_:
        yield finding("long-transaction", _named(open_))
    slow = [(pid, age) for pid, state, _, _, age in rows if state == "active" and age > STATEMENT]
    if slow:
        yield finding("slow-statements", _named(slow))
    ((count, oldest),) = patient.ask(
        "SELECT count(*), coalesce(max(extract(epoch FROM clock_timestamp() - prepared)), 0)::float8"
        " FROM pg_prepared_xacts WHERE database = current_database()"
    )
    if count and oldest > TRANSACTION:
        yield finding("prepared-transaction", f"{count} prepared, the oldest {span(oldest)} ago")


def events(patient: PostgreSQLPatient) -> Iterator[Finding]:
    """Look whether subscribers get what was logged."""
    ((count, age),) = patient.ask(
        "SELECT count(*), coalesce(max(extract(epoch FROM clock_timestamp() - created_at)), 0)::float8"
        f" FROM (SELECT created_at FROM {quote_name(patient.schema)}.events"
        " WHERE transaction_id >= txid_snapshot_xmin(txid_current_snapshot())"
        " AND transaction_id < txid_snapshot_xmax(txid_current_snapshot()) LIMIT 10000) held"
    )
    if count and age > HELD_BACK:
        yield finding("events-held-back", f"{count:,} events, the oldest logged {span(age)} ago")


def statements(patient: PostgreSQLPatient) -> Iterator[Finding]:
    """Look which statements have taken long, where the server keeps a record."""
    where = patient.ask(
        "SELECT quote_ident(n.nspname) FROM pg_extension e JOIN pg_namespace n ON n.oid = e.extnamespace"
        " WHERE e.extname = 'pg_stat_statements' AND EXISTS (SELECT 1 FROM pg_attribute a JOIN pg_class c"
        " ON c.oid = a.attrelid WHERE c.relname = 'pg_stat_statements' AND a.attname = 'mean_exec_time')"
    )
    for (schema,) in where:
        ((count, mean),) = patient.ask(
            "SELECT count(*), coalesce(max(mean_exec_time), 0)::float8 / 1000"
            f" FROM {schema}.pg_stat_statements s JOIN pg_database d ON d.oid = s.dbid".replace("%", "%%")
            + " WHERE d.datname = current_database() AND mean_exec_time > %s AND calls > 1",
            STATEMENT * 1000,
        )
        if count:
            yield finding(
                "slow-statements", f"{count} kinds of statements on record, with a mean of up to {span(mean)}"
            )


def standbys(patient: PostgreSQLPatient) -> Iterator[Finding]:
    """Look how far standbys are behind, and whether a slot waits for one that is gone."""
    ((standby,),) = patient.ask("SELECT pg_is_in_recovery()")
    if standby:
        # Without anything to replay the last transaction may be long past.
        ((age,),) = patient.ask(
            "SELECT CASE WHEN pg_last_wal_receive_lsn() = pg_last_wal_replay_lsn() THEN 0"
            " ELSE coalesce(extract(epoch FROM clock_timestamp() - pg_last_xact_replay_timestamp()), 0) END::float8"
        )
        if age > STANDBY_BEHIND:
            yield finding("replication-lag", f"this standby is {span(age)} behind")
        return
    behind = patient.ask(_STANDBYS, BYTES_BEHIND, STANDBY_BEHIND)
    if behind:
        yield finding("replication-lag", some([f"{name} is {amount(size)} behind" for name, size in behind]))
    idle = patient.ask(_SLOTS, BYTES_BEHIND)
    if idle:
        yield finding("slot-idle", some([f"{name} keeps {amount(size)}" for name, size in idle]))


CHECKS = (connections, locks, transactions, statements, standbys)
"""What can be asked whatever the schema is."""

CHECKS_OF_SCHEMA = (events,)


def _since(rows: list[tuple[int, str, float, float, float]], pid: int) -> float:
    return next(since for each, _, _, since, _ in rows if each == pid)


def _named(found: list[tuple[int, float]]) -> str:
    return some([f"process {pid} for {span(age)}" for pid, age in sorted(found, key=lambda each: -each[1])])


# When a wait began is told since PostgreSQL 14; before, the statement began no later. Of others' connections a role may
# see less, but always that they wait.
_WAITS = """
SELECT count(*)::int, max(extract(epoch FROM clock_timestamp()
    - coalesce((to_jsonb(l) ->> 'waitstart')::timestamptz, a.query_start)))::float8
FROM pg_locks l LEFT JOIN pg_stat_activity a ON a.pid = l.pid
WHERE NOT l.granted
  AND (l.database IS NULL OR l.database IN (0, (SELECT oid FROM pg_database WHERE datname = current_database())))
  AND (a.datname IS NULL OR a.datname = current_database())
"""

_ACTIVITY = """
SELECT pid, state, coalesce(extract(epoch FROM clock_timestamp() - xact_start), 0)::float8,
       coalesce(extract(epoch FROM clock_timestamp() - state_change), 0)::float8,
       coalesce(extract(epoch FROM clock_timestamp() - query_start), 0)::float8
FROM pg_stat_activity
WHERE datname = current_database() AND pid <> pg_backend_pid() AND backend_type = 'client backend'
  AND state IS NOT NULL AND xact_start IS NOT NULL
"""

_STANDBYS = """
SELECT application_name, pg_wal_lsn_diff(pg_current_wal_lsn(), replay_lsn)::float8
FROM pg_stat_replication
WHERE pg_wal_lsn_diff(pg_current_wal_lsn(), replay_lsn) > %s OR replay_lag > make_interval(secs => %s)
"""

_SLOTS = """
SELECT slot_name, pg_wal_lsn_diff(pg_current_wal_lsn(), restart_lsn)::float8
FROM pg_replication_slots WHERE NOT active AND pg_wal_lsn_diff(pg_current_wal_lsn(), restart_lsn) > %s
"""
