"""PostgreSQL, the server: its version and settings, the role, and the way there."""

from __future__ import annotations

import datetime as dt
import ipaddress
from collections.abc import Iterator
from typing import Any

from agentos_store.engine.version import TABLE, quote_name
from agentos_store.migrate.triggers import APPEND_ONLY
from agentos_store.models import metadata
from agentos_store.operations.doctor.kinds import finding
from agentos_store.operations.doctor.patient import PostgreSQLPatient
from agentos_store.operations.doctor.report import Finding, some, span

YEARS = 2012
"""A major version gets its last corrections in a November, so many years after its number: 14 in that of 2026."""

CLOCKS_APART = 2.0
"""Seconds."""

FREED = {"fsync": "fsync-off", "full_page_writes": "full-page-writes-off"}
"""Settings that keep what is stored through a power cut."""


def version(patient: PostgreSQLPatient) -> Iterator[Finding]:
    """Look whether the server still gets corrections."""
    ((text, number),) = patient.ask(
        "SELECT current_setting('server_version'), current_setting('server_version_num')::int"
    )
    year = YEARS + number // 10_000
    if _now() > dt.datetime(year, 11, 15, tzinfo=dt.UTC):
        yield finding("server-old", f"PostgreSQL {text} got its last corrections in November {year}")


def settings(patient: PostgreSQLPatient) -> Iterator[Finding]:
    """Look whether what is acknowledged is safe, and every text can be stored."""
    ((fsync, pages, commit, encoding),) = patient.ask(
        "SELECT current_setting('fsync'), current_setting('full_page_writes'), current_setting('synchronous_commit'),"
        " current_setting('server_encoding')"
    )
    for name, value in (("fsync", fsync), ("full_page_writes", pages)):
        if value == "off":
            yield finding(FREED[name], f"{name} is off")
    if commit == "off":
        yield finding("synchronous-commit-off", "synchronous_commit is off")
    if encoding != "UTF8":
        yield finding("encoding", f"the encoding is {encoding}")


def collation(patient: PostgreSQLPatient) -> Iterator[Finding]:
    """Look whether the operating system still sorts as it did."""
    # Older servers have neither the column nor the function.
    ((knows,),) = patient.ask("SELECT count(*) > 0 FROM pg_proc WHERE proname = 'pg_database_collation_actual_version'")
    if not knows:
        return
    rows = patient.ask(
        "SELECT datcollversion, pg_database_collation_actual_version(oid) FROM pg_database"
        " WHERE datname = current_database()"
    )
    for made, now in rows:
        if made is not None and made != now:
            yield finding("collation-version", f"made with {made}, now {now or 'unknown'}")


def reading_only(patient: PostgreSQLPatient) -> Iterator[Finding]:
    """Look whether the server takes writes."""
    ((standby, default),) = patient.ask(
        "SELECT pg_is_in_recovery(), (SELECT reset_val FROM pg_settings WHERE name = 'default_transaction_read_only')"
    )
    if standby:
        yield finding("read-only", "the server is a standby")
    elif default == "on":
        yield finding("read-only", "default_transaction_read_only is on")


def clock(patient: PostgreSQLPatient) -> Iterator[Finding]:
    """Compare the server's clock with ours."""
    before = _now()
    ((theirs,),) = patient.ask("SELECT clock_timestamp()")
    after = _now()
    # Whatever lies between the question and the answer is in order.
    apart = max((before - theirs).total_seconds(), (theirs - after).total_seconds())
    if apart > CLOCKS_APART:
        yield finding("clock-differs", f"the clocks are {span(apart)} apart")


def role(patient: PostgreSQLPatient) -> Iterator[Finding]:
    """Look what the role is, and what it may do with our tables."""
    ((name, superuser),) = patient.ask("SELECT rolname, rolsuper FROM pg_roles WHERE rolname = current_user")
    if superuser:
        yield finding("role-superuser", f"the role {name} is a superuser")
        return
    ((owned,),) = patient.ask(
        "SELECT count(*) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace"
        " WHERE n.nspname = %s AND c.relname = 'tasks' AND pg_has_role(c.relowner, 'USAGE')",
        patient.schema,
    )
    if owned:
        yield finding("role-owner", f"the role {name} owns the tables")


def rights(patient: PostgreSQLPatient) -> Iterator[Finding]:
    """Look whether the role may do what operations need, and whether it may change audits."""
    found = patient.ask(
        "SELECT has_schema_privilege(oid, 'USAGE'), has_schema_privilege('public', oid, 'CREATE') FROM pg_namespace"
        " WHERE nspname = %s",
        patient.schema,
    )
    if not found:
        return
    ((usage, everybody),) = found
    if everybody:
        yield finding("schema-open", f"PUBLIC has CREATE on the schema {patient.schema}")
    if not usage:
        yield finding("rights-missing", f"USAGE on the schema {patient.schema}")
        return
    rows = patient.ask(_RIGHTS, patient.schema, [TABLE, *metadata.tables])
    lacks: list[str] = []
    writes = False
    for table, read, insert, update, delete, _ in rows:
        writes = writes or insert or update or delete
        needed = {"SELECT": read}
        # Only migrations write the version.
        if table != TABLE:
            needed["INSERT"] = insert
        # Nobody changes audits, and only prune removes them.
        if table != TABLE and table not in APPEND_ONLY:
            needed |= {"UPDATE": update, "DELETE": delete}
        lacks += [f"{right} on {table}" for right, has in needed.items() if not has]
    missing_reads = [each for each in lacks if each.startswith("SELECT")]
    if lacks and not writes and not missing_reads:
        yield finding("role-reads-only", "the role may read every table")
    elif lacks:
        yield finding("rights-missing", some(lacks))
    sequences = [] if not writes else patient.ask(_SEQUENCES, patient.schema)
    if closed := [name for name, usable in sequences if not usable]:
        yield finding("rights-missing", some([f"USAGE on the sequence {each}" for each in closed]))
    opened = [table for table, _, _, *changes in rows if table in APPEND_ONLY and any(changes)]
    if opened and patient.settings.append_only == "privileges":
        yield finding("append-only-open", f"the role may change or remove rows of {some(opened)}")


def way(patient: PostgreSQLPatient) -> Iterator[Finding]:
    """Look at the connection: who could read along, and whether a pooler stands between."""
    with patient.backend.raw_connection() as cursor:
        raw: Any = cursor.connection
        encrypted, info = raw.pgconn.ssl_in_use, raw.info
        mode = info.get_parameters().get("sslmode", "prefer")
        ((process,),) = cursor.execute("SELECT pg_backend_pid()", prepare=False).fetchall()
        pooled = process != info.backend_pid
        host, address = info.host, getattr(info, "hostaddr", "")
    if not is_local(host, address):
        if not encrypted:
            yield finding("tls-off", f"the connection to {host} is not encrypted")
        elif mode != "verify-full":
            yield finding("tls-unverified", f"the connection to {host} has sslmode={mode}")
    if pooled:
        prepared = "on" if patient.settings.prepare_statements else "off"
        yield finding("pooler", f"statements are sent through a pooler; prepared statements are {prepared}")


def pool(patient: PostgreSQLPatient) -> Iterator[Finding]:
    """Look whether one process may take all connections."""
    ((most,),) = patient.ask(_FOR_ALL)
    ours = patient.settings.pool_size + patient.settings.max_overflow
    if ours > most:
        yield finding("pool-large", f"{ours} for each process of ours, {most} for all")


def vectors(patient: PostgreSQLPatient) -> Iterator[Finding]:
    """Look whether vectors are there, and what could make their search fast."""
    if patient.backend.capabilities.vector_index:
        return
    if patient.ask(f"SELECT 1 FROM {quote_name(patient.schema)}.kb_embeddings LIMIT 1"):
        yield finding("pgvector-absent", "there are embeddings, and no pgvector")


CHECKS = (version, settings, collation, reading_only, clock, role, rights, way, pool)
"""What can be asked whatever the schema is."""

CHECKS_OF_SCHEMA = (vectors,)


def is_local(host: str, address: str) -> bool:
    """Tell whether the server is on this machine: reached by a socket's path or a loopback address."""
    if not host or host.startswith(("/", "@")):
        return True
    try:
        return ipaddress.ip_address(address or host).is_loopback
    except ValueError:
        return host == "localhost"


def _now() -> dt.datetime:
    return dt.datetime.now(dt.UTC)


_RIGHTS = """
SELECT c.relname, has_table_privilege(c.oid, 'SELECT'), has_table_privilege(c.oid, 'INSERT'),
       has_table_privilege(c.oid, 'UPDATE'), has_table_privilege(c.oid, 'DELETE'),
       has_table_privilege(c.oid, 'TRUNCATE')
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname = %s AND c.relname = ANY(%s) AND c.relkind IN ('r', 'p') ORDER BY 1
"""

_SEQUENCES = """
SELECT s.relname, has_sequence_privilege(s.oid, 'USAGE')
FROM pg_class s JOIN pg_namespace n ON n.oid = s.relnamespace
WHERE n.nspname = %s AND s.relkind = 'S'
  AND EXISTS (SELECT 1 FROM pg_depend d WHERE d.classid = 'pg_class'::regclass AND d.objid = s.oid
              AND d.deptype IN ('a'))
ORDER BY 1
"""
# Whoever may insert draws from an identity's sequence; only others need a right of their own.

_FOR_ALL = """
SELECT current_setting('max_connections')::int - current_setting('superuser_reserved_connections')::int
"""
