"""Operations on contexts."""

from __future__ import annotations

import datetime as dt
from typing import Any

from sqlalchemy import Column, MetaData, Table, and_, bindparam, case, delete, null, or_, select, text
from sqlalchemy.dialects import postgresql

from agentos_store.conversations.context_models import Context
from agentos_store.conversations.models import Session as Conversation
from agentos_store.engine.among import among
from agentos_store.engine.clock import from_now, seconds
from agentos_store.engine.session import Session
from agentos_store.engine.statement import Statement
from agentos_store.engine.violations import IntegrityViolation, explain
from agentos_store.errors import InvalidValueError, NotFoundError
from agentos_store.operation import F, Repository, reads, repeatable, walks, writes_once
from agentos_store.page import DEFAULT_LIMIT, Filter, Listing, Page, equals
from agentos_store.types import Boolean, Identifier, UTCDateTime, check_duration, check_whole

_CONTEXTS = Context.table()
_SESSIONS = Conversation.table()
CLEANUP_BATCH = 1000
LARGEST_BATCH = 10_000


class ContextRepository(Repository[F]):
    """Contexts: what an agent or a session works with for a while. One that has expired is not there."""

    name = "contexts"

    @writes_once
    @repeatable
    def save(
        self,
        session: Session,
        context_id: str | None = None,
        *,
        context_data: Any,
        agent_id: str | None = None,
        session_id: str | None = None,
        ttl: dt.timedelta | None = None,
        expires_at: dt.datetime | None = None,
    ) -> Context:
        """Write a context under its identifier, which is made unless given, and return it.

        What is there under the identifier is replaced whole, its agent, session and expiry included; only
        ``created_at`` stays, unless it had expired. Of parallel writers the last one wins. It expires ``ttl`` from now
        by the database's clock, or at ``expires_at``, or never; giving both is refused. ``context_data`` is any JSON
        value and comes back exactly as it was given. Raises NotFoundError for an unknown agent or session.
        """
        row = {
            "context_id": session.new_ulid() if context_id is None else context_id,
            "agent_id": agent_id,
            "session_id": session_id,
            "context_data": context_data,
            "created_at": session.now(),
        }
        statement = _SAVE
        if ttl is not None:
            if expires_at is not None:
                raise InvalidValueError("expires_at", "cannot be given together with ttl")
            statement = _SAVE_FOR
            row["ttl"] = check_duration("ttl", ttl).total_seconds()
        elif expires_at is not None:
            statement = _SAVE_UNTIL
            row["until"] = expires_at
        try:
            saved = session.first(statement, row)
        except IntegrityViolation as violation:
            raise explain(violation, Context, row, session) from None
        assert saved is not None
        return saved

    @reads
    def get(self, session: Session, context_id: str) -> Context:
        """Return the context; raise NotFoundError for one that is unknown or has expired."""
        found = session.first(_GET, {"context_id": context_id})
        if found is None:
            raise NotFoundError(Context.entity, context_id)
        return found

    @reads
    def find(self, session: Session, context_id: str) -> Context | None:
        """Return the context, or None."""
        return session.first(_GET, {"context_id": context_id})

    @reads
    def exists(self, session: Session, context_id: str) -> bool:
        """Tell whether there is such a context."""
        return session.first(_EXISTS, {"context_id": context_id}) is not None

    @reads
    def list(
        self,
        session: Session,
        *,
        agent_id: str | None = None,
        session_id: str | None = None,
        include_deleted: bool = False,
        order: str | None = None,
        limit: int = DEFAULT_LIMIT,
        cursor: str | None = None,
        offset: int = 0,
    ) -> Page[Context]:
        """Return a page of contexts that have not expired, the oldest first; ``order="-created_at"`` turns it round.

        Those of deleted agents and sessions are left out unless ``include_deleted``.
        """
        filters = _filters(agent_id, session_id, include_deleted=include_deleted)
        return _LISTING.page(session, filters, order=order, limit=limit, cursor=cursor, offset=offset)

    iterate = walks(list)

    @reads
    def list_by_agent(
        self,
        session: Session,
        agent_id: str,
        *,
        include_deleted: bool = False,
        order: str | None = None,
        limit: int = DEFAULT_LIMIT,
        cursor: str | None = None,
        offset: int = 0,
    ) -> Page[Context]:
        """Return a page of an agent's contexts: ``list`` for one agent."""
        # Without an agent this would be the list of all.
        filters = _filters(_AGENT_ID.check(agent_id, "agent_id"), None, include_deleted=include_deleted)
        return _LISTING.page(session, filters, order=order, limit=limit, cursor=cursor, offset=offset)

    @reads
    def count(
        self,
        session: Session,
        *,
        agent_id: str | None = None,
        session_id: str | None = None,
        include_deleted: bool = False,
    ) -> int:
        """Return how many contexts ``list`` would give."""
        return _LISTING.count(session, _filters(agent_id, session_id, include_deleted=include_deleted))

    @writes_once
    @repeatable
    def delete(self, session: Session, context_id: str) -> None:
        """Remove the context; raise NotFoundError for one that is unknown or has expired."""
        if session.execute(_DELETE, {"context_id": context_id}) == 0 and not session.repeated:
            raise NotFoundError(Context.entity, context_id)

    @writes_once
    def cleanup_expired(self, session: Session, *, limit: int = CLEANUP_BATCH) -> int:
        """Remove contexts that have expired, the longest first, at most ``limit`` of them; return how many.

        Nothing else needs this call: what has expired is not shown. One that is being saved anew is left alone. Call
        it until it returns less than ``limit``: each call is one short transaction.
        """
        check_whole("limit", limit, 1, LARGEST_BATCH)
        return session.execute(_CLEAN_UP, {"limit_": limit})


def _filters(agent_id: str | None, session_id: str | None, *, include_deleted: bool) -> dict[str, object]:
    return {
        "agent_id": agent_id,
        "session_id": session_id,
        "live": True,
        "open": None if include_deleted else True,
    }


_AGENT_ID = Identifier()
_IS_IT = _CONTEXTS.c.context_id == bindparam("context_id", type_=_CONTEXTS.c.context_id.type)
_NOW = from_now(0.0)
_LIVE = or_(_CONTEXTS.c.expires_at.is_(None), _CONTEXTS.c.expires_at > _NOW)
# Written out, for the partial index serves only a condition that says what the index says.
_EXPIRED = and_(text(f"{_CONTEXTS.name}.expires_at IS NOT NULL"), _CONTEXTS.c.expires_at <= _NOW)

# Another domain's table is known by its name alone.
_AGENTS = Table("agents", MetaData(), Column("agent_id", Identifier()), Column("deleted_at", UTCDateTime()))


def _deleted_at(parent: Table, is_its: Any) -> Any:
    """Return when a context's parent was deleted: NULL also for a context without one."""
    return select(parent.c.deleted_at).where(is_its).correlate(_CONTEXTS).scalar_subquery()


_OPEN = and_(
    _deleted_at(_SESSIONS, _SESSIONS.c.id == _CONTEXTS.c.session_id).is_(None),
    _deleted_at(_AGENTS, _AGENTS.c.agent_id == _CONTEXTS.c.agent_id).is_(None),
)

_LISTING = Listing(
    Context,
    filters={
        "agent_id": equals(Context.agent_id),
        "session_id": equals(Context.session_id),
        "live": Filter(Boolean(), lambda _: _LIVE),
        "open": Filter(Boolean(), lambda _: _OPEN),
    },
    orders={"created_at": (_CONTEXTS.c.created_at, _CONTEXTS.c.context_id)},
    default="created_at",
)


def _save(expires_at: Any) -> Statement[Context]:
    values = {
        "context_id": bindparam("context_id", type_=_CONTEXTS.c.context_id.type),
        "agent_id": bindparam("agent_id", type_=_CONTEXTS.c.agent_id.type),
        "session_id": bindparam("session_id", type_=_CONTEXTS.c.session_id.type),
        "context_data": bindparam("context_data", type_=_CONTEXTS.c.context_data.type),
        "created_at": bindparam("created_at", type_=_CONTEXTS.c.created_at.type),
        "expires_at": expires_at,
    }
    insertion = postgresql.insert(_CONTEXTS).values(values)
    new = insertion.excluded
    upsert = insertion.on_conflict_do_update(
        index_elements=[_CONTEXTS.c.context_id],
        set_={
            "agent_id": new.agent_id,
            "session_id": new.session_id,
            "context_data": new.context_data,
            "expires_at": new.expires_at,
            "created_at": case((_CONTEXTS.c.expires_at <= _NOW, new.created_at), else_=_CONTEXTS.c.created_at),
        },
    )
    called = {"until": "expires_at"}
    return Statement(upsert.returning(*_CONTEXTS.c), returns=Context, called=called)


_SAVE = _save(null())
_SAVE_FOR = _save(from_now(seconds("ttl")))
_SAVE_UNTIL = _save(bindparam("until", type_=_CONTEXTS.c.expires_at.type))
_GET: Statement[Context] = Statement(select(_CONTEXTS).where(_IS_IT, _LIVE), returns=Context)
_EXISTS: Statement[Any] = Statement(select(_CONTEXTS.c.context_id).where(_IS_IT, _LIVE))
_DELETE: Statement[Any] = Statement(delete(_CONTEXTS).where(_IS_IT, _LIVE))
_LONGEST_EXPIRED = (
    select(_CONTEXTS.c.context_id).where(_EXPIRED).order_by(_CONTEXTS.c.expires_at).limit(bindparam("limit_"))
)
_CLEAN_UP: Statement[Any] = Statement(
    delete(_CONTEXTS).where(
        # A row that another transaction has locked is being saved anew, or removed by another clean-up.
        among(_CONTEXTS.c.context_id, _LONGEST_EXPIRED.with_for_update(skip_locked=True).correlate(None))
    )
)
