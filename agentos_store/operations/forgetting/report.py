"""What was forgotten, as a proof that names nobody."""

from __future__ import annotations

import datetime as dt
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field

Counts = Mapping[str, Mapping[str, int]]
"""By table what became of its rows, as a run keeps it."""


@dataclass(slots=True)
class Erased:
    """What became of the rows of one table."""

    removed: int = 0
    emptied: int = 0
    """Rows that stay, without what they said."""
    named: int = 0
    """Rows of others that named who is forgotten, and do so no more."""

    @property
    def rows(self) -> int:
        """How many rows there were in all."""
        return self.removed + self.emptied + self.named


@dataclass(slots=True)
class ForgetReport:
    """What a forgetting did, or with a dry run would do."""

    kind: str
    """``user`` or ``agent``."""
    dry_run: bool
    run_id: str | None = None
    """Names the run in ``maintenance_runs``; None for a dry run, which leaves nothing behind."""
    receipt: str | None = None
    """With it, and with the identifier, whoever has both can show whom the run was about; the store keeps neither."""
    finished_at: dt.datetime | None = None
    tables: dict[str, Erased] = field(default_factory=dict)
    """By table, in no order; what the database takes along or derives, such as documents of the search, is not counted.
    """
    steps: int = 0
    longest: dt.timedelta = dt.timedelta(0)
    """The longest time that a step worked in the database, which is what a writer on SQLite may have to wait."""

    @property
    def rows(self) -> int:
        """How many rows there were in all."""
        return sum(erased.rows for erased in self.tables.values())

    def of(self, table: str) -> Erased:
        """Return what became of a table's rows."""
        return self.tables.setdefault(table, Erased())

    def add(self, counts: Counts) -> None:
        """Add what a run has kept."""
        for name, numbers in counts.items():
            erased = self.of(name)
            erased.removed += numbers["removed"]
            erased.emptied += numbers["emptied"]
            erased.named += numbers["named"]

    def counts(self) -> dict[str, dict[str, int]]:
        """Return the numbers, as the run keeps them."""
        return {
            name: {"removed": erased.removed, "emptied": erased.emptied, "named": erased.named}
            for name, erased in sorted(self.tables.items())
            if erased.rows
        }


def subject_of(receipt: str, kind: str, key: str) -> str:
    """Return what a run keeps of whom it was about: a hash that nobody can guess without the receipt."""
    return hashlib.sha256(f"{receipt}:{kind}:{key}".encode()).hexdigest()
