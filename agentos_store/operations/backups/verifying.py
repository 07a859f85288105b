"""Whether a file of the store is whole: its pages, its keys, its chains, its counters."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agentos_store.engine.session import Call, Session
from agentos_store.engine.sqlite.connection import SQLiteConnection
from agentos_store.engine.version import HEAD
from agentos_store.migrate.revisions import check_known
from agentos_store.operation import Access, run_body
from agentos_store.operations.backups import looking
from agentos_store.operations.consistency import ConsistencyReport, check_consistency
from agentos_store.tasks.verification import Verification, verify_chains

_MAX_PAYLOAD = 2**31 - 1
"""No limit: what bodies that read send is what they have just read."""


@dataclass(frozen=True, slots=True)
class VerifyReport:
    """What a file holds, and what is wrong with it."""

    path: str
    size_bytes: int
    revision: str | None
    """None where the pages are too damaged to tell."""
    rows: Mapping[str, int]
    """By table."""
    integrity: Sequence[str]
    """Faults of the pages; nothing else is looked at then."""
    foreign_keys: Sequence[str]
    """Rows whose parents are missing, counted by table."""
    audits: Verification | None
    """The chains of audits; None for a file of an older revision, which this code cannot read."""
    consistency: ConsistencyReport | None
    """Counters, numbers, bookmarks; None for a file of an older revision."""

    @property
    def ok(self) -> bool:
        """Whether nothing was found."""
        return not (
            self.integrity
            or self.foreign_keys
            or (self.audits is not None and not self.audits.ok)
            or (self.consistency is not None and not self.consistency.ok)
        )


def verify_sqlite(path: Path | str) -> VerifyReport:
    """Look whether a file is whole, and change nothing: a backup, or a database, at one moment while it is in use.

    Raises NotFoundError for a file that is not there, DamagedFileError for one of which SQLite can make nothing at all,
    InvalidValueError for a database of another program, SchemaMismatchError for one of a newer schema.
    """
    found = Path(path).absolute()
    with looking.reading(found) as raw:
        size = found.stat().st_size
        broken = looking.check_integrity(raw)
        if broken:
            return VerifyReport(str(found), size, None, {}, broken, (), None, None)
        revision = looking.revision_of(raw, found)
        check_known(revision, where=str(found))
        rows = looking.count_rows(raw)
        foreign_keys = looking.check_foreign_keys(raw)
        audits = consistency = None
        if revision == HEAD:
            reader = Reader(raw)
            audits = reader.run(Access.SNAPSHOT, "verify", _verify_chains, repeatable=True)
            consistency = check_consistency(reader)
        return VerifyReport(str(found), size, revision, rows, (), foreign_keys, audits, consistency)


class Reader:
    """What runs reading bodies on one connection, whose transaction is open already."""

    def __init__(self, raw: sqlite3.Connection) -> None:
        self._connection = SQLiteConnection(raw, _MAX_PAYLOAD)

    def run(
        self,
        access: Access,
        what: str,
        body: Callable[[Session], Any],
        *,
        repeatable: bool,
        may_lag: bool = False,
    ) -> Any:
        """Run a body that only reads."""
        del access, what, repeatable, may_lag
        return run_body(body, Session(self._connection, Call(), read_only=True))


def _verify_chains(session: Session) -> Verification:
    return verify_chains(session, None)
