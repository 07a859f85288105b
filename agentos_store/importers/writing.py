"""What the writing halves of the importers share: rows that go in unless their keys are taken."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from itertools import cycle, islice
from typing import Any

from sqlalchemy import Column, ColumnElement, bindparam, select
from sqlalchemy.dialects import postgresql

from agentos_store.base import Base
from agentos_store.engine.session import Session
from agentos_store.engine.statement import Statement, numbered_by_database
from agentos_store.errors import InvalidValueError
from agentos_store.housekeeping.models import MaintenanceRun
from agentos_store.importers.report import Note
from agentos_store.operation import F, Repository, repeatable, writes

BATCH = 200
"""Rows of one transaction: few enough that other writers hardly notice."""


class Outcome:
    """What became of one batch; rows are named by their position in it."""

    __slots__ = ("changed", "imported", "merged", "refused")

    def __init__(self) -> None:
        self.imported = 0
        self.changed: dict[int, list[Note]] = {}
        """Rows that had to be changed to fit beside what the store has."""
        self.merged = 0
        """Rows that went into others, which the store had."""
        self.refused: dict[int, Note] = {}

    def merge(self, position: int, note: Note) -> None:
        """Note that a row went into another."""
        self.merged += 1
        self.change(position, note)

    def change(self, position: int, note: Note) -> None:
        """Note a change."""
        self.changed.setdefault(position, []).append(note)


class NewRow:
    """A row to be written, and what the report calls it."""

    __slots__ = ("key", "table", "values")

    def __init__(self, table: str, key: str, values: Mapping[str, Any]) -> None:
        self.table = table
        self.key = key
        self.values = values


def add_rows(session: Session, model: type[Base], rows: Mapping[int, NewRow], outcome: Outcome) -> None:
    """Insert the rows whose unique keys are free, in one round trip; a row with a refused value is set aside."""
    statement = unless_taken(model)
    try:
        outcome.imported += session.execute_many(statement, [whole_row(model, row.values) for row in rows.values()])
    except InvalidValueError:
        # It was raised before anything was sent, and does not tell the row.
        for position, row in rows.items():
            try:
                outcome.imported += session.execute(statement, whole_row(model, row.values))
            except InvalidValueError as error:
                outcome.refused[position] = Note(row.table, row.key, str(error))


_inserts: dict[type[Base], Statement[Any]] = {}


def unless_taken(model: type[Base]) -> Statement[Any]:
    """Return the INSERT of a row that does nothing when one of its unique keys is taken."""
    statement = _inserts.get(model)
    if statement is None:
        table = model.table()
        columns = {c.name: bindparam(c.name, type_=c.type) for c in table.columns if not numbered_by_database(c)}
        statement = _inserts[model] = Statement(postgresql.insert(table).values(columns).on_conflict_do_nothing())
    return statement


def whole_row(model: type[Base], values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values with None for each column that has none."""
    return {column.name: values.get(column.name) for column in model.table().columns}


def asking(key: Column[Any], value: Column[Any], *where: ColumnElement[bool]) -> Statement[Any]:
    """Return the question which of a batch's keys the store has, and what it has under them."""
    # As many parameters as a batch has rows, so that the statement is the same each time.
    keys = [bindparam(f"key_{number}", type_=key.type) for number in range(BATCH)]
    return Statement(select(key, value).where(key.in_(keys), *where))


def stored(session: Session, question: Statement[Any], keys: Collection[str | None], **binds: object) -> dict[str, Any]:
    """Return what the store has under these keys, by key; there are no more of them than a batch has rows."""
    there = {key: None for key in keys if key is not None}
    if not there:
        return {}
    each = {f"key_{number}": key for number, key in enumerate(islice(cycle(there), BATCH))}
    return dict(session.all(question, each | binds))


class Importing(Repository[F]):
    """The writing half of an import: each method writes one batch of rows, in one transaction, and may be repeated."""

    name = "import"

    @writes
    @repeatable
    def remember(self, session: Session, counts: Mapping[str, int]) -> None:
        """Note in the housekeeping that an import took place."""
        time = session.now()
        row = {
            "id": session.new_ulid(),
            "kind": "import",
            "started_at": time,
            "finished_at": time,
            "counts": {**counts},
            "progress": {},
        }
        session.execute(unless_taken(MaintenanceRun), whole_row(MaintenanceRun, row))
