"""What a constraint that refused a row says to the caller."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

from sqlalchemy import ForeignKeyConstraint, PrimaryKeyConstraint, Table, UniqueConstraint, bindparam, literal, select

from agentos_store.engine.statement import Statement
from agentos_store.errors import AlreadyExistsError, ConflictError, InvalidValueError, NotFoundError, StoreError

if TYPE_CHECKING:
    from sqlalchemy import Column

    from agentos_store.base import Base
    from agentos_store.engine.session import Session

Kind = Literal["unique", "foreign_key", "check", "not_null", "append_only", "other"]


class IntegrityViolation(ConflictError):
    """A constraint refused the change; the operation that meets it says what that means."""

    def __init__(self, kind: Kind, constraint: str | None) -> None:
        self.kind = kind
        self.constraint = constraint
        """The constraint's name; None where the driver does not tell (SQLite)."""
        super().__init__("row", None, f"refused by a constraint ({constraint or kind})")


def explain(violation: IntegrityViolation, model: type[Base], row: Mapping[str, Any], session: Session) -> StoreError:
    """Return the public error for a row of this model that a constraint refused.

    PostgreSQL names the constraint. SQLite does not, so the parents and the unique keys are looked up; the
    transaction is still whole there.
    """
    table = model.table()
    if violation.kind == "foreign_key":
        for key in _parents(table):
            if _is_meant(violation, key.name) and _parent_is_missing(key, row, session, violation):
                column = next(iter(key.columns))
                return NotFoundError(entity_of(key.referred_table), row[column.name])
    elif violation.kind == "unique":
        for name, columns in _unique_keys(table):
            if _is_meant(violation, name) and _is_taken(table, columns, row, session, violation):
                primary = all(column.primary_key for column in columns)
                values = [row[column.name] for column in columns]
                fields = ", ".join(column.name for column in columns)
                return AlreadyExistsError(
                    model.entity, values[0] if len(values) == 1 else tuple(values), field=None if primary else fields
                )
    elif violation.kind in {"check", "not_null"}:
        return InvalidValueError(model.entity, f"refused by a constraint ({violation.constraint or violation.kind})")
    return violation


def entity_of(table: Table) -> str:
    """Return what errors call one row of the table."""
    return str(table.info.get("entity", table.name))


def _is_meant(violation: IntegrityViolation, name: Any) -> bool:
    return violation.constraint is None or violation.constraint == name


def _parents(table: Table) -> list[ForeignKeyConstraint]:
    """Return the foreign keys in the order in which PostgreSQL looks at them, so that of two both name the same."""
    places = {column.name: place for place, column in enumerate(table.columns)}
    return sorted(table.foreign_key_constraints, key=lambda key: places[next(iter(key.columns)).name])


def _unique_keys(table: Table) -> list[tuple[Any, list[Column[Any]]]]:
    keys: list[tuple[Any, list[Column[Any]]]] = [
        (constraint.name, list(constraint.columns))
        for constraint in table.constraints
        if isinstance(constraint, UniqueConstraint | PrimaryKeyConstraint)
    ]
    keys += [(index.name, list(index.columns)) for index in table.indexes if index.unique]
    # PostgreSQL looks at the primary key first, then at the constraints, then at what is only an index.
    ranks = ("pk_", "uq_", "ix_")
    return sorted(keys, key=lambda key: (ranks.index(str(key[0])[:3]), str(key[0])))


def _parent_is_missing(
    key: ForeignKeyConstraint, row: Mapping[str, Any], session: Session, violation: IntegrityViolation
) -> bool:
    values = [row[column.name] for column in key.columns]
    if any(value is None for value in values):
        return False
    return violation.constraint is not None or not _exists(
        key.referred_table, [e.column for e in key.elements], values, session
    )


def _is_taken(
    table: Table, columns: list[Column[Any]], row: Mapping[str, Any], session: Session, violation: IntegrityViolation
) -> bool:
    if violation.constraint is not None:
        return True
    values = [row[column.name] for column in columns]
    return None not in values and _exists(table, columns, values, session)


def _exists(table: Table, columns: list[Column[Any]], values: list[Any], session: Session) -> bool:
    wanted = [column == bindparam(column.name, type_=column.type) for column in columns]
    statement: Statement[Any] = Statement(select(literal(1)).select_from(table).where(*wanted), lasting=False)
    return (
        session.first(statement, {column.name: value for column, value in zip(columns, values, strict=True)})
        is not None
    )
