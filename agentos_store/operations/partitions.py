"""Events divided by their positions, where the database can: an option for those who log many and keep few.

Old events then go by dropping a table, which costs the same however many they are. Partitions are made before they are
needed, and a default partition catches what comes behind them all, so that no writer ever meets a missing one.

All of it is done by catalogue changes under a lock that is waited for briefly, and asked for again: whoever wants a
table alone stops all that come after, too.
"""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from agentos_store.engine.backend import Backend
from agentos_store.engine.retry import RetryPolicy
from agentos_store.engine.version import quote_name
from agentos_store.errors import InvalidValueError, LockTimeoutError, UnavailableError

R = TypeVar("R")

ROWS = 1_000_000
"""Positions of one partition."""

AHEAD = 2
"""Whole partitions that wait behind the one which is written to."""

MOST_ROWS, MOST_AHEAD = 10**12, 1000

PATIENCE, BRIEF = 1.5, 0.2
"""Seconds that others may have to wait behind us for the table while we wait for it ourselves: for the command, before
which a vacuum gives way, and for what prune does beside its work."""

REST = "events_rest"
BOUND = "ck_events_bound"
"""Says for as long as the table is being divided that all positions are below the first boundary."""

log = logging.getLogger("agentos_store.partitions")
_RETRIES = RetryPolicy(retries=9, base=0.05, cap=1.0)
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
class PartitionReport:
    """What a call did, and how the events are divided now."""

    divided: bool
    """Whether this call has divided the table; else it was divided before."""
    made: Sequence[str]
    """The names of the new partitions."""
    partitions: Sequence[Partition]
    """In the order of their positions; the one that catches the rest comes last."""


@dataclass(frozen=True, slots=True)
class _Events:
    """How the table stands at a moment."""

    is_divided: bool
    owner: str
    may_change: bool
    last: int
    """The last position that was drawn."""
    partitions: Sequence[Partition]
    last_of_rest: int | None

    def end(self) -> int:
        return max((part.end for part in self.partitions if part.end is not None), default=0)

    def missing(self, rows: int, ahead: int) -> list[tuple[int, int]]:
        """Return the bounds of the partitions that should be made; what the rest holds already stays there."""
        start = self.end()
        held = self.last if self.last >= start else -1
        if self.last_of_rest is not None:
            held = max(held, self.last_of_rest)
        if held >= start:
            start = _boundary(held, rows)
        found = []
        while start <= self.last + (ahead + 1) * rows:
            found.append((start, _boundary(start, rows)))
            start = found[-1][1]
        return found


def partition_events(backend: Backend, *, rows: int = ROWS, ahead: int = AHEAD) -> PartitionReport:
    """Divide the events, or make partitions ahead where they are divided already."""
    _check("rows", rows, MOST_ROWS)
    _check("ahead", ahead, MOST_AHEAD)
    if not backend.capabilities.partitions:
        raise UnavailableError("SQLite has no partitions; there prune removes old events in short steps")
    desk = _Desk(backend, PATIENCE)
    if not desk.look().may_change:
        raise UnavailableError("only the owner of the table events can partition it")
    divided = not desk.look().is_divided and _divide(desk, rows)
    made = desk.locked("ACCESS EXCLUSIVE", lambda cursor, found: _make_missing(desk, cursor, found, rows, ahead))
    return PartitionReport(divided, made, desk.look().partitions)


def keep_ahead(backend: Backend) -> None:
    """Make partitions ahead, as large as the last one, where events are divided and this role may do it."""
    if not backend.capabilities.partitions:
        return
    desk = _Desk(backend, BRIEF)
    found = desk.look()
    rows = next((p.end - p.start for p in reversed(found.partitions) if p.end and p.start is not None), ROWS)
    if found.is_divided and found.may_change and found.missing(rows, AHEAD):
        try:
            desk.locked("ACCESS EXCLUSIVE", lambda cursor, now: _make_missing(desk, cursor, now, rows, AHEAD))
        except UnavailableError as error:
            # The rest catches what comes until then.
            log.warning("no partitions of the events were made ahead: %s", error)


def drop_old(backend: Backend, age: float | None) -> Iterator[tuple[int, float]]:
    """Drop the partitions whose newest event is older than so many seconds; yield rows and seconds for each.

    One to which a position still belongs that was not drawn yet stays, and so does what cannot be dropped now.
    """
    if not backend.capabilities.partitions:
        return
    desk = _Desk(backend, BRIEF)
    found = desk.look()
    if not found.is_divided or not found.may_change:
        return
    for part in found.partitions:
        if part.end is None or part.end > found.last + 1:
            continue
        with backend.raw_connection() as cursor:
            if not _is_old(desk, cursor, part, age):
                continue
            rows = int(desk.one(cursor, f"SELECT count(*) FROM {desk.name(part.name)}")[0])
        began = time.perf_counter()
        try:
            gone = desk.locked("ACCESS EXCLUSIVE", _Drop(desk, part, age))
        except UnavailableError as error:
            log.warning("partition %s could not be dropped, so its rows go one by one: %s", part.name, error)
            return
        if gone:
            yield rows, time.perf_counter() - began


class _Drop:
    def __init__(self, desk: _Desk, part: Partition, age: float | None) -> None:
        self._desk, self._part, self._age = desk, part, age

    def __call__(self, cursor: Any, found: _Events) -> bool:
        # Whoever wrote there has ended by now.
        if self._part not in found.partitions or not _is_old(self._desk, cursor, self._part, self._age):
            return False
        self._desk.run(cursor, f"DROP TABLE {self._desk.name(self._part.name)}")
        return True


def _is_old(desk: _Desk, cursor: Any, part: Partition, age: float | None) -> bool:
    if age is None:
        return True
    text = f"SELECT max(created_at) >= clock_timestamp() - interval '{age:f} seconds' FROM {desk.name(part.name)}"
    return not desk.one(cursor, text)[0]


def _divide(desk: _Desk, rows: int) -> bool:
    """Make the table the first partition of a new one; return False when somebody else has done it meanwhile."""
    events = desk.name("events")

    def announce(cursor: Any, found: _Events) -> int | None:
        if found.is_divided:
            return None
        _refuse_dependents(desk, cursor)
        # Far enough away for what is written until the table is divided.
        end = _boundary(found.last + rows, rows)
        desk.run(
            cursor,
            f"ALTER TABLE {events} DROP CONSTRAINT IF EXISTS {BOUND},"
            f" ADD CONSTRAINT {BOUND} CHECK (position < {end}) NOT VALID",
        )
        return end

    def validate(cursor: Any, found: _Events) -> None:
        if not found.is_divided:
            desk.run(cursor, f"ALTER TABLE {events} VALIDATE CONSTRAINT {BOUND}")

    def withdraw(cursor: Any, found: _Events) -> None:
        if not found.is_divided:
            desk.run(cursor, f"ALTER TABLE {events} DROP CONSTRAINT IF EXISTS {BOUND}")

    end = desk.locked("ACCESS EXCLUSIVE", announce)
    if end is None:
        return False
    try:
        # The table is read once, while others go on writing, so that nobody waits for that later.
        desk.locked("SHARE UPDATE EXCLUSIVE", validate)
        return desk.locked("ACCESS EXCLUSIVE", lambda cursor, found: _swap(desk, cursor, found, end))
    except BaseException:
        # Left there it would refuse what is written behind the boundary one day.
        desk.locked("ACCESS EXCLUSIVE", withdraw)
        raise


def _swap(desk: _Desk, cursor: Any, found: _Events, end: int) -> bool:
    if found.is_divided:
        return False
    events, first = desk.name("events"), _name(end)
    indexes = cursor.execute(_INDEXES, (desk.schema,)).fetchall()
    grants = cursor.execute(_GRANTS, (desk.schema,)).fetchall()
    desk.run(cursor, f"ALTER TABLE {events} RENAME TO {first}")
    for number, (index, _, _) in enumerate(indexes):
        desk.run(cursor, f"ALTER INDEX {desk.name(index)} RENAME TO {first}_{number}")
    # Its sequence goes too, and the new one has its name.
    desk.run(cursor, f"ALTER TABLE {desk.name(first)} ALTER position DROP IDENTITY")
    desk.run(cursor, f"CREATE TABLE {events} ({desk.like(first)}) PARTITION BY RANGE (position)")
    desk.run(cursor, f"ALTER TABLE {events} OWNER TO {quote_name(found.owner)}")
    desk.run(
        cursor,
        f"ALTER TABLE {events} DROP CONSTRAINT {BOUND}, ADD CONSTRAINT pk_events PRIMARY KEY (position),"
        f" ALTER position ADD GENERATED BY DEFAULT AS IDENTITY (START WITH {found.last + 1})",
    )
    for _, definition, is_shared in indexes:
        if is_shared:
            desk.run(cursor, definition)
    for grantee, privilege, option in grants:
        whom = "PUBLIC" if grantee is None else quote_name(grantee)
        desk.run(cursor, f"GRANT {privilege} ON {events} TO {whom}{option}")
    desk.run(cursor, f"ALTER TABLE {events} ATTACH PARTITION {desk.name(first)} FOR VALUES FROM (MINVALUE) TO ({end})")
    desk.run(cursor, f"ALTER TABLE {desk.name(first)} DROP CONSTRAINT {BOUND}")
    desk.make(cursor, found.owner, REST, "DEFAULT")
    return True


def _make_missing(desk: _Desk, cursor: Any, found: _Events, rows: int, ahead: int) -> list[str]:
    made = []
    for start, end in found.missing(rows, ahead):
        made.append(_name(end))
        desk.make(cursor, found.owner, made[-1], f"FOR VALUES FROM ({start}) TO ({end})")
    return made


def _refuse_dependents(desk: _Desk, cursor: Any) -> None:
    names = [name for (name,) in cursor.execute(_DEPENDENTS, (desk.schema,))]
    if names:
        raise UnavailableError(
            f"events cannot be partitioned while this hangs on the table: {', '.join(names)};"
            " drop it, and make it again afterwards"
        )


class _Desk:
    """Questions and commands about the events of one schema."""

    def __init__(self, backend: Backend, patience: float) -> None:
        assert backend.schema is not None
        self.schema = backend.schema
        self._backend = backend
        self._patience = patience

    def name(self, name: str) -> str:
        return f"{quote_name(self.schema)}.{quote_name(name)}"

    def like(self, name: str) -> str:
        return f"LIKE {self.name(name)} INCLUDING DEFAULTS INCLUDING CONSTRAINTS INCLUDING STORAGE INCLUDING COMMENTS"

    def run(self, cursor: Any, text: str) -> Any:
        # Without parameters the driver leaves a percent sign in the schema's name alone.
        return cursor.execute(text.encode(), prepare=False)

    def one(self, cursor: Any, text: str) -> Any:
        return self.run(cursor, text).fetchone()

    def make(self, cursor: Any, owner: str, name: str, bounds: str) -> None:
        """Make a partition beside the table, and attach it; the indexes of the table come with that."""
        made = self.name(name)
        self.run(cursor, f"CREATE TABLE {made} ({self.like('events')})")
        self.run(cursor, f"ALTER TABLE {made} OWNER TO {quote_name(owner)}")
        # A unique index over all partitions would have to hold the position.
        self.run(cursor, f"CREATE UNIQUE INDEX {name}_event_id ON {made} (event_id)")
        self.run(cursor, f"ALTER TABLE {self.name('events')} ATTACH PARTITION {made} {bounds}")

    def look(self) -> _Events:
        with self._backend.raw_connection() as cursor:
            return self._look(cursor)

    def locked(self, mode: str, work: Callable[[Any, _Events], R]) -> R:
        """Do something in a transaction that has the table for itself; try again when it is not to be had at once."""

        def attempt(_: int) -> R:
            with self._backend.raw_connection() as cursor, cursor.connection.transaction():
                self.run(cursor, "SET TRANSACTION ISOLATION LEVEL READ COMMITTED")
                self.run(
                    cursor, f"SET LOCAL lock_timeout = {round(self._patience * 1000)}; SET LOCAL statement_timeout = 0"
                )
                self.run(cursor, f"LOCK TABLE ONLY {self.name('events')} IN {mode} MODE")
                return work(cursor, self._look(cursor))

        try:
            return _RETRIES.run("partitions of the events", attempt)
        except LockTimeoutError as error:
            raise LockTimeoutError("the events, which somebody uses", waited=self._patience, code=error.code) from None

    def _look(self, cursor: Any) -> _Events:
        is_divided, owner, may_change, sequence = cursor.execute(_STATE, (self.schema,)).fetchone()
        partitions = []
        for name, bounds in cursor.execute(_PARTITIONS, (self.schema,)):
            found = _RANGE.search(bounds)
            start, end = found.groups() if found else (None, None)
            partitions.append(Partition(name, None if start is None else int(start), None if end is None else int(end)))
        partitions.sort(key=lambda part: (part.end is None, part.end))
        last, rest = 0, None
        if may_change:
            last = self.one(
                cursor, f"SELECT CASE WHEN is_called THEN last_value ELSE last_value - 1 END FROM {sequence}"
            )[0]
            if partitions and partitions[-1].end is None:
                rest = self.one(cursor, f"SELECT max(position) FROM {self.name(partitions[-1].name)}")[0]
        return _Events(is_divided, owner, may_change, last, partitions, rest)


def _boundary(position: int, rows: int) -> int:
    """Return the first boundary behind a position."""
    return (position // rows + 1) * rows


def _name(end: int) -> str:
    return f"events_to_{end}"


def _check(name: str, value: object, most: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= most:
        raise InvalidValueError(name, f"must be a whole number from 1 to {most:,}")


_TABLE = (
    "(SELECT c.oid FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace"
    " WHERE n.nspname = %s AND c.relname = 'events')"
)

_STATE = f"""
SELECT c.relkind = 'p', pg_get_userbyid(c.relowner), pg_has_role(c.relowner, 'USAGE'),
       pg_get_serial_sequence(format('%%s', c.oid::regclass), 'position')
FROM pg_class c WHERE c.oid = {_TABLE}
"""

_PARTITIONS = f"""
SELECT p.relname, pg_get_expr(p.relpartbound, p.oid) FROM pg_inherits i JOIN pg_class p ON p.oid = i.inhrelid
WHERE i.inhparent = {_TABLE} AND p.relispartition
"""

_INDEXES = f"""
SELECT i.relname, pg_get_indexdef(i.oid), NOT x.indisprimary AND i.relname <> 'uq_events_event_id'
FROM pg_index x JOIN pg_class i ON i.oid = x.indexrelid WHERE x.indrelid = {_TABLE} ORDER BY i.relname
"""

_GRANTS = f"""
SELECT CASE a.grantee WHEN 0 THEN NULL ELSE pg_get_userbyid(a.grantee) END, a.privilege_type,
       CASE WHEN a.is_grantable THEN ' WITH GRANT OPTION' ELSE '' END
FROM pg_class c, aclexplode(c.relacl) a WHERE c.oid = {_TABLE}
"""

_DEPENDENTS = f"""
SELECT DISTINCT pg_describe_object(d.classid, d.objid, 0) FROM pg_depend d
WHERE d.refclassid = 'pg_class'::regclass AND d.refobjid = {_TABLE}
  AND (d.classid IN ('pg_rewrite'::regclass, 'pg_trigger'::regclass, 'pg_policy'::regclass, 'pg_proc'::regclass,
                     'pg_publication_rel'::regclass)
       OR EXISTS (SELECT 1 FROM pg_constraint k
                  WHERE d.classid = 'pg_constraint'::regclass AND k.oid = d.objid AND k.contype = 'f'))
ORDER BY 1
"""
# What they name would go on naming the first partition alone.
