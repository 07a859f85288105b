"""PostgreSQL, the tables: indexes, dead rows, numbers that run out, partitions of the events."""

from __future__ import annotations

from collections.abc import Iterator

from agentos_store.engine.version import quote_name
from agentos_store.models import metadata
from agentos_store.operations.doctor.kinds import finding
from agentos_store.operations.doctor.patient import PostgreSQLPatient
from agentos_store.operations.doctor.report import Finding, amount, some
from agentos_store.operations.partitions.desk import Desk

UNUSED = 64 * 1024**2
"""Bytes of an index that nobody uses."""

DEAD, DEAD_PART = 10_000, 0.3
"""Dead rows, and their part of all rows of a table."""

ANALYSED = 10_000
"""Rows from which on it matters that the planner knows how many there are."""

WRAPAROUND = 1_000_000_000
"""Transactions since the oldest that is not frozen; the server ends at twice as many."""

NEAR_END = 0.8
"""Part of all numbers."""


def indexes(patient: PostgreSQLPatient) -> Iterator[Finding]:
    """Look for indexes that are not valid, and large ones that nobody uses."""
    invalid = patient.ask(
        "SELECT i.relname FROM pg_index x JOIN pg_class i ON i.oid = x.indexrelid"
        " JOIN pg_namespace n ON n.oid = i.relnamespace"
        " WHERE n.nspname = %s AND i.relkind = 'i' AND NOT (x.indisvalid AND x.indisready) ORDER BY 1",
        patient.schema,
    )
    if invalid:
        yield finding("index-invalid", some([name for (name,) in invalid]))
    unused = patient.ask(
        # As the last vacuum found them: to ask for the size takes a lock.
        "SELECT s.indexrelname, i.relpages * current_setting('block_size')::float8 FROM pg_stat_user_indexes s"
        " JOIN pg_index x ON x.indexrelid = s.indexrelid JOIN pg_class i ON i.oid = s.indexrelid"
        " WHERE s.schemaname = %s AND s.idx_scan = 0 AND NOT x.indisunique"
        " AND i.relpages * current_setting('block_size')::float8 > %s ORDER BY 2 DESC, 1",
        patient.schema,
        UNUSED,
    )
    if unused:
        yield finding("index-unused", some([f"{name} ({amount(size)})" for name, size in unused]))


def dead_rows(patient: PostgreSQLPatient) -> Iterator[Finding]:
    """Look whether autovacuum is on and keeps up, and whether the planner knows how many rows there are."""
    ((vacuums, counts),) = patient.ask("SELECT current_setting('autovacuum'), current_setting('track_counts')")
    switched_off = patient.ask(
        "SELECT c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace"
        " WHERE n.nspname = %s AND c.relkind = 'r' AND EXISTS (SELECT 1 FROM unnest(c.reloptions) o"
        " WHERE o IN ('autovacuum_enabled=false', 'autovacuum_enabled=off', 'autovacuum_enabled=0')) ORDER BY 1",
        patient.schema,
    )
    off = [f"{name} is off" for name, value in (("autovacuum", vacuums), ("track_counts", counts)) if value == "off"]
    off += [f"it is off for {name}" for (name,) in switched_off]
    if off:
        yield finding("autovacuum-off", some(off))
    rows = patient.ask(
        "SELECT relname, n_live_tup, n_dead_tup, coalesce(last_analyze, last_autoanalyze) IS NULL"
        " FROM pg_stat_user_tables WHERE schemaname = %s ORDER BY n_dead_tup DESC, relname",
        patient.schema,
    )
    dead = [
        f"{name}: {gone:,} beside {live:,}" for name, live, gone, _ in rows if gone > DEAD + DEAD_PART * (live + gone)
    ]
    if dead:
        yield finding("dead-rows", some(dead))
    unknown = [name for name, live, _, never in rows if never and live > ANALYSED]
    if unknown:
        yield finding("statistics-missing", f"never analysed: {some(unknown)}")


def wraparound(patient: PostgreSQLPatient) -> Iterator[Finding]:
    """Look how far the numbers of transactions are from their end."""
    ((transactions, shared),) = patient.ask(
        "SELECT age(datfrozenxid), mxid_age(datminmxid) FROM pg_database WHERE datname = current_database()"
    )
    oldest = max(transactions, shared)
    if oldest > WRAPAROUND:
        yield finding("wraparound", f"{oldest:,} of 2,147,483,648 numbers are in use")


def sequences(patient: PostgreSQLPatient) -> Iterator[Finding]:
    """Look whether numbers that are drawn are free, and how many there are still."""
    behind, ending = [], []
    for table in metadata.sorted_tables:
        column = next((each.name for each in table.columns if each.identity is not None), None)
        if column is None:
            continue
        name = f"{quote_name(patient.schema)}.{quote_name(table.name)}"
        ((sequence, may_read),) = patient.ask(
            "SELECT s, s IS NOT NULL AND has_sequence_privilege(s, 'SELECT') AND has_table_privilege(%s, 'SELECT')"
            " FROM pg_get_serial_sequence(%s, %s) s",
            name,
            name,
            column,
        )
        if not may_read:
            continue
        ((last, highest, end),) = patient.ask(
            f"SELECT (SELECT CASE WHEN is_called THEN last_value ELSE last_value - 1 END FROM {sequence}),"
            f" (SELECT max({quote_name(column)}) FROM {name}),"
            f" (SELECT seqmax FROM pg_sequence WHERE seqrelid = '{sequence.replace(chr(39), chr(39) * 2)}'::regclass)"
        )
        if highest is not None and highest > last:
            behind.append(f"{table.name}: {last:,} was drawn last, and there is {highest:,}")
        if last > end * NEAR_END:
            ending.append(f"{table.name}: {last:,} of {end:,}")
    if behind:
        yield finding("sequence-behind", some(behind))
    if ending:
        yield finding("sequence-near-end", some(ending))


def partitions(patient: PostgreSQLPatient) -> Iterator[Finding]:
    """Look whether events still find partitions."""
    found = Desk(patient.backend, is_patient=False).look()
    if not found.is_divided or not found.may_change:
        return
    if found.last_of_rest is not None:
        yield finding("events-rest", f"events up to position {found.last_of_rest:,} lie in the default partition")
    if not any(part.start is not None and part.start > found.last for part in found.partitions):
        yield finding(
            "partitions-short", f"the last partition ends before {found.end():,}, and {found.last:,} was drawn"
        )


CHECKS = (wraparound,)
"""What can be asked whatever the schema is."""

CHECKS_OF_SCHEMA = (indexes, dead_rows, sequences, partitions)
