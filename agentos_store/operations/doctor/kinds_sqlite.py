"""What can be found of an SQLite file."""

from __future__ import annotations

from agentos_store.operations.doctor.report import Kind

SQLITE = {
    "sqlite-version": Kind(
        "note",
        "SQLite 3.7.0 to 3.51.2 can damage a file when two connections checkpoint at the same moment. The store lets"
        " one checkpoint at a time; other programs beside it do not know of that.",
        "Let no other program write to the file, or use SQLite 3.51.3 or newer.",
    ),
    "network-file-system": Kind(
        "error",
        "SQLite's locks do not hold there, and two writers destroy the file; the store refuses to open it.",
        "Move the file to a local disk, or use PostgreSQL.",
    ),
    "file-readable": Kind(
        "warning",
        "Everybody on the machine who can enter the directory can read what is stored, or change it.",
        "Take the rights away: `chmod o-rwx` for each file.",
    ),
    "directory-writable": Kind(
        "warning",
        "Others can put another file in the place of the database.",
        "Take the right away: `chmod o-w` for the directory.",
    ),
    "file-owner": Kind(
        "warning",
        "The files beside the database belong to another user than the database, who may have locked its owner out.",
        "Give them to the owner of the database with `chown`, while nobody uses it.",
    ),
    "journal-mode": Kind(
        "warning",
        "Readers and writers wait for each other until the next write of the store brings the file back to WAL.",
        "See which program changed it, and let it be.",
    ),
    "journal-left": Kind(
        "warning",
        "A process died in the middle of a write; the next connection that may write undoes it.",
        "Run any command that writes; never delete the journal.",
    ),
    "foreign-keys": Kind(
        "error",
        "Rows refer to rows that are gone: a program wrote with foreign keys off.",
        "See `PRAGMA foreign_key_check`, and restore or remove the rows.",
    ),
    "damaged": Kind(
        "error",
        "Pages of the file are not what they should be, and what they held may be lost.",
        "Stop all writers, copy the file away, and restore a backup, or run `agentos-store db salvage`.",
    ),
    "wal-large": Kind(
        "warning",
        "The write-ahead log is not brought into the file: reads get slower and the disk fills.",
        "End long readers; then the next checkpoint brings it in.",
    ),
    "long-reader": Kind(
        "warning",
        "A connection reads an old state of the file, and the log cannot begin anew while it does.",
        "End the transaction or the process that is named.",
    ),
    "disk-low": Kind(
        "warning",
        "When the disk is full, no write succeeds, and a backup or a vacuum needs room for a second file.",
        "Make room, or prune and vacuum.",
    ),
    "space-inside": Kind(
        "note",
        "Room that removed rows left in the file; new rows use it, but the file does not shrink by itself.",
        "Run `agentos-store db vacuum` at a quiet hour: writers wait meanwhile.",
    ),
    "file-large": Kind(
        "warning",
        "A vacuum, a backup or a check of such a file takes long, and all of it hangs on one disk.",
        "Prune what is old, or move to PostgreSQL with `agentos-store copy`.",
    ),
    "outgrown": Kind(
        "note",
        "The store grows beyond what one file is good for.",
        "Think of moving to PostgreSQL with `agentos-store copy`.",
    ),
    "durability": Kind(
        "note",
        "What was acknowledged survives a killed process, but not a power cut: DATABASE_DURABILITY is process_crash.",
        "Unset the variable for `full`, unless that is meant.",
    ),
    "leftovers": Kind(
        "note",
        "Copies that were made before a rewriting revision, or that a killed process left, take room.",
        "Remove them when they are no longer needed.",
    ),
}
