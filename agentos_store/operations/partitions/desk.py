"""The table of the events as it stands, and the lock under which it is changed."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from agentos_store.engine.backend import Backend
from agentos_store.engine.retry import RetryPolicy
from agentos_store.engine.version import quote_name
from agentos_store.errors import LockTimeoutError

R = TypeVar("R")

PATIENCE, BRIEF = 1.5, 0.2
"""Seconds that others may have to wait behind us for the table while we wait for it ourselves: for the command, before
which a vacuum gives way, and for what prune does beside its work."""

RETRIES = RetryPolicy(retries=9, base=0.05, cap=1.0)

_RANGE = re.compile(r"FROM \((?:MINVALUE|'?(-?\d+)'?)\) TO \('?(-?\d+)'?\)")


@dataclass(frozen=True, slots=True)
class Partition:
    """One partition of the events."""

    name: str
    start: int | None
    """Its first position; None for the first partition, and for the one that catches the rest."""
    end: int | None
    """The first position behind it; None for the one that catches the rest."""


@dataclass(frozen=True, slots=True)
class Standing:
    """How the table stands at a moment."""

    is_divided: bool
    owner: str
    may_change: bool
    """Whether this role has the owner's rights; without them it is not told which positions there are."""
    last: int
    """The last position that was drawn."""
    partitions: Sequence[Partition]
    last_of_rest: int | None
    """The greatest position in the partition that catches the rest; None while that is empty."""

    def end(self) -> int:
        """Return the first position for which there is no partition but the one that catches the rest."""
        return max((part.end for part in self.partitions if part.end is not None), default=0)

    def missing(self, rows: int, ahead: int) -> list[tuple[int, int]]:
        """Return the bounds of the partitions that should be made; what the rest holds already stays there."""
        start = self.end()
        held = self.last if self.last >= start else -1
        if self.last_of_rest is not None:
            held = max(held, self.last_of_rest)
        if held >= start:
            start = boundary(held, rows)
        found = []
        while start <= self.last + (ahead + 1) * rows:
            found.append((start, boundary(start, rows)))
            start = found[-1][1]
        return found


class Desk:
    """Questions and commands about the events of one schema."""

    def __init__(self, backend: Backend, *, is_patient: bool) -> None:
        assert backend.schema is not None
        self.schema = backend.schema
        self._backend = backend
        self._patience = PATIENCE if is_patient else BRIEF

    def name(self, name: str) -> str:
        """Return the name of a table or an index with the schema's."""
        return f"{quote_name(self.schema)}.{quote_name(name)}"

    def like(self, name: str) -> str:
        """Return what makes a new table like another one, but for its indexes."""
        return f"LIKE {self.name(name)} INCLUDING DEFAULTS INCLUDING CONSTRAINTS INCLUDING STORAGE INCLUDING COMMENTS"

    def run(self, cursor: Any, text: str) -> Any:
        """Execute a statement without values."""
        # Without parameters the driver leaves a percent sign in the schema's name alone.
        return cursor.execute(text.encode(), prepare=False)

    def one(self, cursor: Any, text: str) -> Any:
        """Return the row that a query without values gives."""
        return self.run(cursor, text).fetchone()

    def make(self, cursor: Any, owner: str, name: str, bounds: str) -> None:
        """Make a partition beside the table, and attach it; the indexes of the table come with that."""
        made = self.name(name)
        self.run(cursor, f"CREATE TABLE {made} ({self.like('events')})")
        self.run(cursor, f"ALTER TABLE {made} OWNER TO {quote_name(owner)}")
        # A unique index over all partitions would have to hold the position.
        self.run(cursor, f"CREATE UNIQUE INDEX {name}_event_id ON {made} (event_id)")
        self.run(cursor, f"ALTER TABLE {self.name('events')} ATTACH PARTITION {made} {bounds}")

    def make_missing(self, cursor: Any, found: Standing, rows: int, ahead: int) -> list[str]:
        """Make partitions until so many whole ones wait; return their names."""
        made = []
        for start, end in found.missing(rows, ahead):
            made.append(name_of(end))
            self.make(cursor, found.owner, made[-1], f"FOR VALUES FROM ({start}) TO ({end})")
        return made

    def look(self) -> Standing:
        """Return how the table stands; it may stand otherwise a moment later."""
        with self._backend.raw_connection() as cursor:
            return self._look(cursor)

    def locked(self, mode: str, work: Callable[[Any, Standing], R]) -> R:
        """Do something in a transaction that has locked the table; try again while the lock is not to be had soon.

        Raises LockTimeoutError when it never is.
        """

        def attempt(_: int) -> R:
            with self._backend.raw_connection() as cursor, cursor.connection.transaction():
                self.run(cursor, "SET TRANSACTION ISOLATION LEVEL READ COMMITTED")
                self.run(
                    cursor, f"SET LOCAL lock_timeout = {round(self._patience * 1000)}; SET LOCAL statement_timeout = 0"
                )
                self.run(cursor, f"LOCK TABLE ONLY {self.name('events')} IN {mode} MODE")
                return work(cursor, self._look(cursor))

        try:
            return RETRIES.run("partitions of the events", attempt)
        except LockTimeoutError as error:
            raise LockTimeoutError("the events, which somebody uses", waited=self._patience, code=error.code) from None

    def _look(self, cursor: Any) -> Standing:
        is_divided, owner, may_change, sequence = cursor.execute(_STATE, (self.schema,)).fetchone()
        partitions = []
        for name, bounds in cursor.execute(_PARTITIONS, (self.schema,)):
            if bounds is None:
                # It was dropped since the query began.
                continue
            found = _RANGE.search(bounds)
            start, end = found.groups() if found else (None, None)
            partitions.append(Partition(name, None if start is None else int(start), None if end is None else int(end)))
        partitions.sort(key=lambda part: (part.end is None, part.end or 0))
        last, rest = 0, None
        if may_change:
            last = self.one(
                cursor, f"SELECT CASE WHEN is_called THEN last_value ELSE last_value - 1 END FROM {sequence}"
            )[0]
            if partitions and partitions[-1].end is None:
                rest = self.one(cursor, f"SELECT max(position) FROM {self.name(partitions[-1].name)}")[0]
        return Standing(is_divided, owner, may_change, last, partitions, rest)


def boundary(position: int, rows: int) -> int:
    """Return the first boundary behind a position."""
    return (position // rows + 1) * rows


def name_of(end: int) -> str:
    """Return the name of the partition that ends before a position."""
    return f"events_to_{end}"


TABLE = (
    "(SELECT c.oid FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace"
    " WHERE n.nspname = %s AND c.relname = 'events')"
)

_STATE = f"""
SELECT c.relkind = 'p', pg_get_userbyid(c.relowner), pg_has_role(c.relowner, 'USAGE'),
       pg_get_serial_sequence(format('%%s', c.oid::regclass), 'position')
FROM pg_class c WHERE c.oid = {TABLE}
"""

_PARTITIONS = f"""
SELECT p.relname, pg_get_expr(p.relpartbound, p.oid) FROM pg_inherits i JOIN pg_class p ON p.oid = i.inhrelid
WHERE i.inhparent = {TABLE} AND p.relispartition
"""
