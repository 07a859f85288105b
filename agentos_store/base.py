"""The declarative base: names of constraints, entities' names for errors, and the timestamps that most rows carry."""

from __future__ import annotations

import datetime as dt
from typing import Any, ClassVar

from sqlalchemy import MetaData, Table, inspect
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from agentos_store.types import UTCDateTime, now

NAMING = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
    "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
    "pk": "pk_%(table_name)s",
}
"""How constraints and indexes are named; a revision writes the finished names through ``op.f()``."""


class Base(DeclarativeBase):
    """What every model is: one table, whose rows are returned detached and complete."""

    metadata = MetaData(naming_convention=NAMING)
    type_annotation_map: ClassVar[dict[Any, Any]] = {dt.datetime: UTCDateTime()}

    entity: ClassVar[str] = "row"
    """What errors call one row of this table, in the singular."""

    def __init_subclass__(cls, **options: Any) -> None:
        """Let a table know what errors call one of its rows."""
        super().__init_subclass__(**options)
        if "__table__" in cls.__dict__:
            cls.table().info["entity"] = cls.entity

    @classmethod
    def table(cls) -> Table:
        """Return the mapped table."""
        table = cls.__table__
        assert isinstance(table, Table)
        return table

    def to_dict(self) -> dict[str, Any]:
        """Return the row as a plain dictionary, keyed by column names."""
        mapper = inspect(type(self))
        return {
            column.name: getattr(self, mapper.get_property_by_column(column).key) for column in self.table().columns
        }

    def __repr__(self) -> str:
        """Show the key only: a row's values do not belong in a log."""
        keys = ", ".join(f"{column.name}={getattr(self, column.key)!r}" for column in self.table().primary_key)
        return f"{type(self).__name__}({keys})"


class Created:
    """A row that tells when it was made."""

    created_at: Mapped[dt.datetime] = mapped_column(default=now, sort_order=90)


class Timestamps(Created):
    """A row that also tells when it was last changed."""

    updated_at: Mapped[dt.datetime] = mapped_column(default=now, sort_order=91)
    """Moves with every change of the row."""
