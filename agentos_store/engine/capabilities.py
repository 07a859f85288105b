"""What a database can do, asked once when a store is opened; code asks this object, never the dialect's name."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Capabilities:
    """What this database can do. Where something is missing, the slower way works."""

    backend: str
    """``"sqlite"`` or ``"postgresql"``: for people to read, not for code to decide by."""
    server_version: str
    """The version of SQLite's library or of the PostgreSQL server."""
    data_modifying_cte: bool
    """One statement can insert, update and return over several tables, so that an operation is one round trip."""
    skip_locked: bool
    """A claim can pass over rows that others have locked; where all writers stand in one queue there are none."""
    notify: bool
    """A commit can wake listeners in other processes."""
    advisory_locks: bool
    """Locks that are held for a transaction and belong to no row."""
    row_locks: bool
    """Several writers work at once, so that a row that is read to be changed has to be locked."""
    ordered_commits: bool
    """Transactions are committed in the order of their writes, so numbers that are drawn in them appear in order."""
    copy: bool
    """Rows can be streamed in, which is how many of them are written fastest."""
    full_text_table: bool
    """What can be searched for words lies in a table of its own, which can be filled anew and checked."""
    partitions: bool
    """A table can be divided into partitions, each of which is dropped at once however many rows it has."""
    vector_index: bool
    """The pgvector extension is installed."""
