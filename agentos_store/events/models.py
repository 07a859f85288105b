"""What happens, in the order in which it was committed."""

from __future__ import annotations

import datetime as dt
from typing import Any, ClassVar

from sqlalchemy import CheckConstraint, Identity, Index, text
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.orm import Mapped, mapped_column
from sqlalchemy.sql.functions import FunctionElement

from agentos_store.base import Base
from agentos_store.events.bookmarks import Bookmark
from agentos_store.types import Choice, ExactJSON, Identifier, Int64, UTCDateTime

CHANNEL = Choice("progress", "control", "monitor")
SEVERITY = Choice("info", "warning", "error", "critical")

USUAL = "severity = 'info'"
UNUSUAL = "severity <> 'info'"
"""The condition of the index by severity, which most events need no place in."""


class this_transaction(FunctionElement[int]):  # noqa: N801  a function of SQL
    """The number of the transaction that runs; 0 where transactions are committed in the order of their writes."""

    type = Int64()
    inherit_cache = True
    name = "this_transaction"


@compiles(this_transaction, "postgresql")
def _postgresql(element: this_transaction, compiler: Any, **options: Any) -> str:
    del element, compiler, options
    # pg_current_xact_id() as a bigint: it holds the epoch of the counter, so it never wraps.
    return "txid_current()"


@compiles(this_transaction, "sqlite")
def _sqlite(element: this_transaction, compiler: Any, **options: Any) -> str:
    del element, compiler, options
    return "0"


def _index(*columns: str, where: str | None = None, name: str | None = None) -> Index:
    ends = (*columns, "created_at", "position")
    condition = None if where is None else text(where)
    name = name or f"ix_events_{'_'.join(ends)}"
    return Index(name, *ends, sqlite_where=condition, postgresql_where=condition)


class Event(Base):
    """Something that happened. It names agents, sessions and tasks without needing them, for it outlives them."""

    __tablename__ = "events"
    entity: ClassVar[str] = "event"

    position: Mapped[int] = mapped_column(Int64(), Identity(), primary_key=True)
    """Drawn when it was written; on PostgreSQL a smaller one may be committed later."""
    transaction_id: Mapped[int] = mapped_column(Int64(), server_default=this_transaction())
    """The transaction that wrote it, which with the position is its place in the order; 0 on SQLite, but for
    events that were copied from a server."""
    event_id: Mapped[str] = mapped_column(Identifier())
    agent_id: Mapped[str | None] = mapped_column(Identifier())
    session_id: Mapped[str | None] = mapped_column(Identifier())
    task_id: Mapped[str | None] = mapped_column(Identifier())
    channel: Mapped[str | None] = mapped_column(CHANNEL)
    """progress, control, monitor, or NULL."""
    seq: Mapped[int | None] = mapped_column(Int64())
    """The source's own number; an agent that was resumed may use it again."""
    event_type: Mapped[str] = mapped_column(Identifier())
    severity: Mapped[str] = mapped_column(SEVERITY)
    data: Mapped[Any | None] = mapped_column(ExactJSON(), nullable=True)
    """Any JSON value; None is NULL."""
    created_at: Mapped[dt.datetime] = mapped_column(UTCDateTime())

    __table_args__ = (
        CheckConstraint("channel IN ('progress', 'control', 'monitor')", name="channel"),
        CheckConstraint("severity IN ('info', 'warning', 'error', 'critical')", name="severity"),
        Index("uq_events_event_id", "event_id", unique=True),
        # Each is one more to write, so there is one for each filter, and one for the pair that is asked most.
        _index(),
        _index("agent_id", where="agent_id IS NOT NULL"),
        _index("agent_id", "event_type", where="agent_id IS NOT NULL"),
        _index("session_id", where="session_id IS NOT NULL"),
        _index("task_id", where="task_id IS NOT NULL"),
        _index("channel", where="channel IS NOT NULL"),
        _index("event_type"),
        _index("severity", where=UNUSUAL),
        Index("ix_events_transaction_id_position", "transaction_id", "position").ddl_if(dialect="postgresql"),
        {"sqlite_autoincrement": True},
    )

    @property
    def bookmark(self) -> str | None:
        """Where a subscriber that has had this event goes on; None unless a subscription delivered it."""
        found: Bookmark | None = self.__dict__.get("_bookmark")
        return None if found is None else found.write()


class EventOrder(Base):
    """An order of the events, and the server for which it holds.

    A database that was restored into another server brings transactions with it that this server never ran. It gets an
    order of its own when somebody first reads in order there, and bookmarks of the old order are refused.
    """

    __tablename__ = "event_orders"
    entity: ClassVar[str] = "order of events"

    origin: Mapped[str] = mapped_column(Identifier(), primary_key=True)
    """The server and its database; on SQLite one word."""
    order_id: Mapped[str] = mapped_column(Identifier())
    """What bookmarks of this order carry."""
    first_position: Mapped[int] = mapped_column(Int64())
    """Up to here the events come by their positions alone: transactions of another server wrote some of them."""
    created_at: Mapped[dt.datetime] = mapped_column(UTCDateTime())
