"""Writing rows of any table as they are, and how far that has come.

Each batch is one transaction, in which the table's progress moves with the rows. So a move that was killed at any point
goes on behind the last whole batch; and of two moves that were at work at once, the second to move the progress fails.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from sqlalchemy import Column, MetaData, Table, bindparam, insert, select, update
from sqlalchemy.sql.elements import BindParameter

from agentos_store.conversations.models import Session as Conversation
from agentos_store.engine.backend import Backend
from agentos_store.engine.session import Session
from agentos_store.engine.statement import Statement
from agentos_store.engine.violations import IntegrityViolation
from agentos_store.errors import ConflictError, InvalidValueError
from agentos_store.operation import Access
from agentos_store.operations.moving.rows import Batch, Row, TableHash
from agentos_store.operations.moving.tables import MovedTable, moved_tables
from agentos_store.types import Int64, Text

PROGRESS = "agentos_store_move"
"""A table that is there while a move is under way, beside those of the schema."""

REVISION = "revision"
"""The row of it that keeps which revision the tables are of; the others bear the tables' names."""

NULL = "\\N"


class Writer:
    """Writes the rows of moved tables into a database that holds nothing else."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend

    def progress(self) -> dict[str, TableHash]:
        """Return by table what is written."""
        rows: list[Any] = self._backend.run(Access.READ, "move", lambda session: session.all(_REACHED), repeatable=True)
        return {name: TableHash.of(moved, digits) for name, moved, digits in rows if name != REVISION}

    def write(self, table: MovedTable, batch: Batch, reached: TableHash) -> TableHash:
        """Write a batch behind what is written of its table, all or nothing; return what is written then.

        References to rows that may come later stay NULL; see ``link``. Raises ConflictError when another move is at
        work there, or when the database refuses a row for what it holds, InvalidValueError for a value that it cannot
        store.
        """
        after = reached.plus(batch.lines)
        values = {
            "name": table.name,
            "moved_before": reached.rows,
            "digits_before": reached.hex,
            "moved": after.rows,
            "digits": after.hex,
        }

        def body(session: Session) -> None:
            if not session.execute(_REACH, values):
                if session.repeated and session.first(_IS_AT, values):
                    # The last try was committed after all.
                    return
                raise ConflictError("database", self._backend.describe(), "another copy or restore is at work there")
            _insert(session, table, batch.rows)

        self._run(table, f"rows {reached.rows + 1:,} to {after.rows:,}", body)
        return after

    def link(self, table: MovedTable, rows: Sequence[Row]) -> None:
        """Fill in what ``write`` left out of these rows; doing it again changes nothing."""
        names = [table.names[i] for i in (*table.keys, *table.late)]
        values = [
            {f"new_{name}": row[i] for name, i in zip(names, (*table.keys, *table.late), strict=True)}
            for row in rows
            if any(row[i] is not None for i in table.late)
        ]
        if values:
            statement = _LINKS[table.name]
            which = f"what {', '.join(table.names[i] for i in table.late)} of some rows refer to"
            self._run(table, which, lambda session: session.execute_many(statement, values))

    def _run(self, table: MovedTable, which: str, body: Callable[[Session], object]) -> None:
        where = f"{table.name}, {which}"
        try:
            self._backend.run(Access.WRITE, f"move {table.name}", body, repeatable=True)
        except IntegrityViolation as violation:
            why = f"what is there refuses them ({violation.constraint or violation.kind})"
            raise ConflictError("table", where, why) from None
        except InvalidValueError as error:
            raise InvalidValueError(where, error.why) from None


def _insert(session: Session, table: MovedTable, rows: Sequence[Row]) -> None:
    of_place = _OF_PLACE.get(table.name)
    if session.capabilities.copy:
        names = [*table.names, *(of_place or {})]
        session.copy(table.model, names, _fields(table, rows, of_place is not None), null=NULL)
        return
    session.execute_many(_INSERTS[table.name], [_values(table, row) for row in rows])


def _values(table: MovedTable, row: Row) -> Mapping[str, object]:
    values = dict(zip(table.names, row, strict=True))
    for i in table.late:
        values[table.names[i]] = None
    if table.name in _OF_PLACE:
        values.update(_of_place(table, row))
    return values


def _fields(table: MovedTable, rows: Sequence[Row], has_own: bool) -> Iterator[str]:
    """Yield the rows in COPY's text format, in pieces of some size."""
    late = set(table.late)
    fields = [None if i in late else form.field for i, form in enumerate(table.forms)]
    for start in range(0, len(rows), 200):
        lines = []
        for row in rows[start : start + 200]:
            texts = [
                NULL if value is None or field is None else field(value)
                for value, field in zip(row, fields, strict=True)
            ]
            if has_own:
                texts += [NULL if value is None else str(value) for value in _of_place(table, row).values()]
            lines.append("\t".join(texts))
        yield "\n".join(lines) + "\n"


_NEXT_SEQ = "next_seq"


def _of_place(table: MovedTable, row: Row) -> Mapping[str, int | None]:
    # Of a conversation in which something was said nothing is indexed here yet.
    return {"unindexed_from": 0 if row[table.names.index(_NEXT_SEQ)] else None}


_OF_PLACE: Mapping[str, Mapping[str, object]] = {Conversation.__tablename__: {"unindexed_from": None}}


def _insertion(table: MovedTable) -> Statement[Any]:
    values: dict[str, BindParameter[Any]] = {
        column.name: bindparam(column.name, type_=form) for column, form in zip(table.columns, table.forms, strict=True)
    }
    for name in _OF_PLACE.get(table.name, ()):
        values[name] = bindparam(name, type_=table.table.c[name].type)
    return Statement(insert(table.table).values(values))


def _linking(table: MovedTable) -> Statement[Any]:
    given = {i: bindparam(f"new_{table.names[i]}", type_=table.forms[i]) for i in (*table.keys, *table.late)}
    return Statement(
        update(table.table)
        .where(*(table.columns[i] == given[i] for i in table.keys))
        .values({table.names[i]: given[i] for i in table.late})
    )


_INSERTS = {table.name: _insertion(table) for table in moved_tables()}
_LINKS = {table.name: _linking(table) for table in moved_tables() if table.late}

_MOVE = Table(
    PROGRESS, MetaData(), Column("name", Text()), Column("moved", Int64()), Column("digits", Text()), schema=None
)


def _bind(name: str, like: str) -> Any:
    return bindparam(name, type_=_MOVE.c[like].type)


_OF_NAME = _MOVE.c.name == _bind("name", "name")
_REACHED: Statement[Any] = Statement(select(_MOVE.c.name, _MOVE.c.moved, _MOVE.c.digits))
_IS_AT: Statement[Any] = Statement(
    select(_MOVE.c.name).where(
        _OF_NAME, _MOVE.c.moved == _bind("moved", "moved"), _MOVE.c.digits == _bind("digits", "digits")
    )
)
_REACH: Statement[Any] = Statement(
    update(_MOVE)
    .where(
        _OF_NAME,
        _MOVE.c.moved == _bind("moved_before", "moved"),
        _MOVE.c.digits == _bind("digits_before", "digits"),
    )
    .values(moved=_bind("moved", "moved"), digits=_bind("digits", "digits"))
)
