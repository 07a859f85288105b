"""What can be found of a PostgreSQL server."""

from __future__ import annotations

from agentos_store.operations.doctor.report import Kind

SERVER = {
    "server-old": Kind(
        "warning",
        "This version of PostgreSQL gets no corrections any more.",
        "Upgrade the server.",
    ),
    "role-superuser": Kind(
        "warning",
        "Whoever gets hold of this connection owns the whole server, and no privilege restrains a slip.",
        "Make the roles that `agentos-store db grants` prints, and connect as the application's.",
    ),
    "role-owner": Kind(
        "note",
        "The role owns the tables, so it can change the schema and switch off what guards the audits.",
        "Make the roles that `agentos-store db grants` prints; the owner only migrates.",
    ),
    "rights-missing": Kind(
        "error",
        "Operations that need them fail.",
        "Run what `agentos-store db grants` prints.",
    ),
    "role-reads-only": Kind(
        "note",
        "The role may read everything and write nothing, so every operation that writes fails.",
        "Nothing, if the role is meant for readers.",
    ),
    "schema-open": Kind(
        "note",
        "Everybody may make tables and functions in the schema of the store.",
        "Run what `agentos-store db grants` prints.",
    ),
    "append-only-open": Kind(
        "error",
        "DATABASE_APPEND_ONLY is privileges, so nothing keeps this role from changing audits or verdicts.",
        "Run what `agentos-store db grants` prints with the same setting, and connect as the application's role.",
    ),
    "tls-off": Kind(
        "warning",
        "Whoever is between here and the server reads everything.",
        "Switch TLS on at the server, and leave DATABASE_SSLMODE unset: then verify-full is asked for.",
    ),
    "tls-unverified": Kind(
        "warning",
        "The connection is encrypted, but whoever is between here and the server can pretend to be the server.",
        "Leave DATABASE_SSLMODE unset, and name the file of the server's authority in DATABASE_SSLROOTCERT.",
    ),
    "fsync-off": Kind(
        "error",
        "A power cut may destroy the whole database.",
        "Set fsync = on in postgresql.conf.",
    ),
    "full-page-writes-off": Kind(
        "error",
        "A power cut may leave half pages, and with them a damaged database.",
        "Set full_page_writes = on in postgresql.conf.",
    ),
    "synchronous-commit-off": Kind(
        "warning",
        "What was acknowledged in the last moments before a crash of the server is lost.",
        "Set synchronous_commit = on for the role or the database.",
    ),
    "encoding": Kind(
        "error",
        "The database cannot hold every text, or does not check it.",
        "Make a database with ENCODING 'UTF8', and move the store there.",
    ),
    "collation-version": Kind(
        "warning",
        "The operating system sorts otherwise than when the database was made. Ours are sorted by their code points,"
        " which never changes, but other indexes may be wrong.",
        "REINDEX what is not ours, then ALTER DATABASE … REFRESH COLLATION VERSION.",
    ),
    "clock-differs": Kind(
        "warning",
        "Times that are made here and leases that are measured there do not fit together.",
        "Let both machines follow a time server.",
    ),
    "read-only": Kind("warning", "Every operation that writes fails.", "Connect to the primary."),
    "pooler": Kind(
        "note",
        "A pooler stands between, so nobody here is woken by NOTIFY: who waits looks ten times a second instead.",
        "Nothing; before PgBouncer 1.21 set DATABASE_PREPARE_STATEMENTS to false.",
    ),
    "pgvector-absent": Kind(
        "note",
        "Vectors are compared one with all, in memory: that is exact, and slow where there are very many.",
        "Nothing while searches are fast enough; else let the server's administrator install pgvector.",
    ),
    "autovacuum-off": Kind(
        "warning",
        "Dead rows stay, tables grow without end, and the server will refuse to write one day.",
        "Set autovacuum = on and track_counts = on, also for the tables that are named.",
    ),
    "pool-large": Kind(
        "note",
        "One process may ask for more connections than the server gives to all.",
        "Lower DATABASE_POOL_SIZE and DATABASE_MAX_OVERFLOW, or raise max_connections.",
    ),
}

LOAD = {
    "connections-high": Kind(
        "warning",
        "Soon nobody gets a connection any more.",
        "Lower the pools, put PgBouncer between, or raise max_connections.",
    ),
    "lock-waits": Kind(
        "warning",
        "Somebody holds a lock that others need.",
        "See pg_blocking_pids() for who it is, and shorten its transaction.",
    ),
    "long-transaction": Kind(
        "warning",
        "It keeps dead rows from being removed; if it writes, subscribers get no event that was logged since.",
        "See pg_stat_activity, and end it with pg_terminate_backend().",
    ),
    "idle-in-transaction": Kind(
        "warning",
        "A program began a transaction and does nothing; its locks and its view of the rows stay.",
        "Find the program; DATABASE_IDLE_IN_TRANSACTION_TIMEOUT ends those of ours.",
    ),
    "prepared-transaction": Kind(
        "warning",
        "A transaction was prepared and forgotten; it holds its locks even over a restart.",
        "See pg_prepared_xacts, then COMMIT PREPARED or ROLLBACK PREPARED.",
    ),
    "events-held-back": Kind(
        "warning",
        "Subscribers do not get events that are committed, for an older transaction is still open.",
        "End the oldest transaction that writes: see pg_stat_activity.",
    ),
    "slow-statements": Kind(
        "note",
        "Statements take longer than a second.",
        "See pg_stat_activity, and EXPLAIN what they do.",
    ),
    "replication-lag": Kind(
        "warning",
        "A standby is behind: reads there are old, and a failover now would lose the difference.",
        "See pg_stat_replication, and the standby's load and network.",
    ),
    "slot-idle": Kind(
        "warning",
        "Nobody reads the slot, and the server keeps all its log for it until the disk is full.",
        "Start its reader, or pg_drop_replication_slot().",
    ),
}

TABLES = {
    "index-invalid": Kind(
        "warning",
        "It is kept with each write and serves nobody: making it was interrupted.",
        "REINDEX INDEX CONCURRENTLY, or drop it and create it again.",
    ),
    "index-unused": Kind(
        "note",
        "It takes room and time with each write, and nobody has used it since the statistics began.",
        "Nothing for ours, which serve a filter that may be asked tomorrow; drop one of your own.",
    ),
    "dead-rows": Kind(
        "warning",
        "Autovacuum does not keep up, or something keeps it from removing them: the tables grow and get slow.",
        "End long transactions, then VACUUM the tables.",
    ),
    "wraparound": Kind(
        "warning",
        "When the transaction numbers run out, the server refuses every write.",
        "Find what keeps autovacuum from freezing: long transactions, slots; then VACUUM FREEZE.",
    ),
    "sequence-near-end": Kind(
        "warning",
        "When the numbers run out, inserts fail.",
        "ALTER SEQUENCE … AS bigint, and the column with it.",
    ),
    "events-rest": Kind(
        "warning",
        "Events lie in the default partition, which prune cannot drop whole.",
        "Run `agentos-store db partition-events` more often, or with more ahead.",
    ),
    "partitions-short": Kind(
        "warning",
        "No whole partition waits behind the one that is written to; soon events go to the default partition.",
        "Run `agentos-store db partition-events`.",
    ),
}
