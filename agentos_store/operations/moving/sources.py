"""Where rows come from: a database at one moment, or an archive of one."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any, Protocol

from sqlalchemy import func, select, type_coerce

from agentos_store.engine.backend import Backend, OpenTransaction
from agentos_store.engine.session import Session
from agentos_store.engine.statement import Statement
from agentos_store.errors import InvalidValueError
from agentos_store.operation import Access
from agentos_store.operations.moving.facts import Facts, read_facts
from agentos_store.operations.moving.rows import Batch, Row, in_batches
from agentos_store.operations.moving.tables import MovedTable, moved_tables


class Source(Protocol):
    """Something that holds all rows of a store, as they are at one moment, and gives the same ones each time."""

    @property
    def name(self) -> str:
        """Where it is, for people; no password is in it."""

    @property
    def facts(self) -> Facts:
        """What a copy goes on with."""

    @property
    def counts(self) -> Mapping[str, int]:
        """By table how many rows it has, for those who wait: it is not relied upon."""

    def batches(self, table: MovedTable) -> Iterator[Batch]:
        """Yield the rows of a table from the first one on, in the order of their keys; one table at a time."""


class DatabaseSource:
    """The rows of a database, as they are at one moment; made by ``snapshot``."""

    def __init__(self, backend: Backend, transaction: OpenTransaction) -> None:
        self._transaction = transaction
        self.name = backend.describe()
        self.facts: Facts = self._ask(lambda session: read_facts(session, backend.schema))
        self.counts: Mapping[str, int] = self._ask(_count)

    def batches(self, table: MovedTable) -> Iterator[Batch]:
        """Yield the rows of a table; the database is asked once and its answer read as it is needed."""
        return in_batches(table, self.rows(table))

    def rows(self, table: MovedTable) -> Iterator[Row]:
        """Yield the rows of a table."""
        rows: Iterator[Row] = self._ask(lambda session: session.stream(_ROWS[table.name]))
        try:
            yield from rows
        except InvalidValueError as error:
            raise InvalidValueError(f"{table.name}: {error.name}", error.why) from None

    def _ask(self, body: Any) -> Any:
        return self._transaction.run(Access.READ, body)


@contextlib.contextmanager
def snapshot(backend: Backend) -> Iterator[DatabaseSource]:
    """Yield what the database holds at this moment; it is read only, and whoever writes there is not kept waiting."""
    transaction = backend.begin(read_only=True)
    try:
        yield DatabaseSource(backend, transaction)
    finally:
        transaction.end(commit=False)


def _count(session: Session) -> Mapping[str, int]:
    return {name: session.all(statement)[0][0] for name, statement in _COUNTS.items()}


def _reading(table: MovedTable) -> Statement[Any]:
    columns = [
        type_coerce(column, form).label(column.name) for column, form in zip(table.columns, table.forms, strict=True)
    ]
    return Statement(select(*columns).order_by(*table.table.primary_key.columns))


_ROWS = {table.name: _reading(table) for table in moved_tables()}
_COUNTS: dict[str, Statement[Any]] = {
    table.name: Statement(select(func.count()).select_from(table.table)) for table in moved_tables()
}
