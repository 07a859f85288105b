"""Operations on sessions."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any

from sqlalchemy import Column, MetaData, Table, bindparam, delete, func, literal, null, or_, select, text, update
from sqlalchemy.dialects import postgresql

from agentos_store.conversations.message_models import Message
from agentos_store.conversations.message_texts import KIND
from agentos_store.conversations.models import Session as Conversation
from agentos_store.engine.among import among
from agentos_store.engine.session import Session
from agentos_store.engine.statement import Statement, build_model, plain_json
from agentos_store.engine.violations import IntegrityViolation, explain
from agentos_store.errors import AlreadyExistsError, InvalidTransitionError, InvalidValueError, NotFoundError
from agentos_store.operation import F, Repository, reads, repeatable, walks, writes, writes_once
from agentos_store.page import DEFAULT_LIMIT, Filter, Listing, Page, at_least, below, contains, equals
from agentos_store.search.index import DOCUMENTS
from agentos_store.types import Boolean, Identifier, Money, UTCDateTime
from agentos_store.unset import UNSET, Unset, given

_MESSAGES = Message.table()
_SESSIONS = Conversation.table()

STEPS: Mapping[str, Sequence[str]] = {
    "active": ("paused", "completed", "cancelled"),
    "paused": ("active", "completed", "cancelled"),
    "completed": (),
    "cancelled": (),
}
"""By status, where a session may go from there."""


class SessionRepository(Repository[F]):
    """Sessions: conversations, and what they may cost."""

    name = "sessions"

    @writes_once
    @repeatable
    def create(
        self,
        session: Session,
        *,
        user_id: str | None = None,
        channel: str = "api",
        title: str | None = None,
        model: str | None = None,
        budget: Decimal | None = None,
        metadata: Mapping[str, Any] | None = None,
        id: str | None = None,
    ) -> Conversation:
        """Begin a conversation; its identifier is made unless given.

        Raises NotFoundError for an unknown user and AlreadyExistsError for an identifier that is taken.
        """
        _check_budget(budget)
        time = session.now()
        row = dict.fromkeys(_SESSIONS.c.keys()) | {
            "id": session.new_ulid() if id is None else id,
            "user_id": user_id,
            "channel": channel,
            "title": title,
            "status": "active",
            "model": model,
            "message_count": 0,
            "next_seq": 0,
            "generation": 0,
            "total_tokens": 0,
            "total_cost": Decimal(0),
            "budget": budget,
            "metadata": {} if metadata is None else plain_json(metadata),
            "created_at": time,
            "updated_at": time,
        }
        while True:
            try:
                added = session.execute(_INSERT, row)
            except IntegrityViolation as violation:
                raise explain(violation, Conversation, row, session) from None
            if added:
                return build_model(Conversation, row)
            found = session.first(_GET, row)
            if found is not None:
                # The time was drawn for this call alone: an earlier try of it was committed, and its answer got lost.
                if session.repeated and found.created_at == time:
                    return found
                raise AlreadyExistsError("session", row["id"])
            # Whatever had the identifier is gone by now.

    @reads
    def get(self, session: Session, session_id: str, *, include_deleted: bool = False) -> Conversation:
        """Return the session; raise NotFoundError for an unknown one, and for a deleted one unless it is asked for."""
        return _required(_find(session, session_id, include_deleted=include_deleted), session_id)

    @reads
    def find(self, session: Session, session_id: str, *, include_deleted: bool = False) -> Conversation | None:
        """Return the session, or None."""
        return _find(session, session_id, include_deleted=include_deleted)

    @reads
    def exists(self, session: Session, session_id: str, *, include_deleted: bool = False) -> bool:
        """Tell whether there is such a session."""
        return _find(session, session_id, include_deleted=include_deleted) is not None

    @reads
    def list(
        self,
        session: Session,
        *,
        user_id: str | None = None,
        status: str | None = None,
        channel: str | None = None,
        template_id: str | None = None,
        agent_id: str | None = None,
        created_after: dt.datetime | None = None,
        created_before: dt.datetime | None = None,
        updated_after: dt.datetime | None = None,
        updated_before: dt.datetime | None = None,
        metadata: Mapping[str, Any] | None = None,
        include_deleted: bool = False,
        order: str | None = None,
        limit: int = DEFAULT_LIMIT,
        cursor: str | None = None,
        offset: int = 0,
    ) -> Page[Conversation]:
        """Return a page of sessions: a user's with the latest change first, else the oldest first.

        ``order`` is ``created_at`` or ``updated_at``, with a ``-`` before it for the largest first. Times are
        inclusive ``after`` and exclusive ``before``. ``template_id`` and ``agent_id`` keep the conversations of such
        agents; ``metadata`` those whose metadata contains it, among what the other filters leave.
        """
        filters = {
            "user_id": user_id,
            "status": status,
            "channel": channel,
            "template_id": template_id,
            "agent_id": agent_id,
            "created_after": created_after,
            "created_before": created_before,
            "updated_after": updated_after,
            "updated_before": updated_before,
            "metadata": plain_json(metadata),
            "open": None if include_deleted else True,
        }
        if order is None:
            order = "created_at" if user_id is None else "-updated_at"
        return _LISTING.page(session, filters, order=order, limit=limit, cursor=cursor, offset=offset)

    iterate = walks(list)

    @reads
    def query(
        self,
        session: Session,
        *,
        template_id: str | None = None,
        created_after: dt.datetime | None = None,
        created_before: dt.datetime | None = None,
        metadata: Mapping[str, Any] | None = None,
        limit: int = DEFAULT_LIMIT,
        offset: int = 0,
    ) -> Page[Conversation]:
        """Return sessions by the KODE SDK's filters, the newest first: ``list`` by those names alone."""
        return SessionRepository.list(
            self,
            session,
            template_id=template_id,
            created_after=created_after,
            created_before=created_before,
            metadata=metadata,
            order="-created_at",
            limit=limit,
            offset=offset,
        )

    @reads
    def count(
        self,
        session: Session,
        *,
        user_id: str | None = None,
        status: str | None = None,
        channel: str | None = None,
        template_id: str | None = None,
        agent_id: str | None = None,
        metadata: Mapping[str, Any] | None = None,
        include_deleted: bool = False,
    ) -> int:
        """Return how many sessions pass the filters."""
        filters = {
            "user_id": user_id,
            "status": status,
            "channel": channel,
            "template_id": template_id,
            "agent_id": agent_id,
            "metadata": plain_json(metadata),
            "open": None if include_deleted else True,
        }
        return _LISTING.count(session, filters)

    @writes_once
    @repeatable
    def update(
        self,
        session: Session,
        session_id: str,
        *,
        user_id: str | None | Unset = UNSET,
        channel: str | Unset = UNSET,
        title: str | None | Unset = UNSET,
        model: str | None | Unset = UNSET,
        budget: Decimal | None | Unset = UNSET,
        metadata: Mapping[str, Any] | Unset = UNSET,
    ) -> Conversation:
        """Change what is given and leave the rest. Raises NotFoundError for the session or for an unknown user."""
        if budget is not UNSET:
            _check_budget(budget)
        changes = given(user_id=user_id, channel=channel, title=title, model=model, budget=budget)
        if metadata is not UNSET:
            changes["metadata"] = plain_json(metadata)
        return _change(session, session_id, changes)

    @writes
    @repeatable
    def merge_metadata(self, session: Session, session_id: str, metadata: Mapping[str, Any]) -> Conversation:
        """Set these keys of the session's metadata and keep the others; parallel merges keep each other's keys."""
        found = session.first(_LOCK if session.capabilities.row_locks else _GET, {"id": session_id})
        there = _required(None if found is None or found.deleted_at is not None else found, session_id)
        # What is no mapping is for the column's type to refuse.
        merged = {**there.metadata_, **metadata} if isinstance(metadata, Mapping) else metadata
        return _change(session, session_id, {"metadata": merged})

    @writes_once
    @repeatable
    def pause(self, session: Session, session_id: str) -> Conversation:
        """Pause an active session; one that is paused stays so. InvalidTransitionError for one that has ended."""
        return _step(session, session_id, "paused")

    @writes_once
    @repeatable
    def resume(self, session: Session, session_id: str) -> Conversation:
        """Make a paused session active again. InvalidTransitionError for one that has ended."""
        return _step(session, session_id, "active")

    @writes_once
    @repeatable
    def complete(self, session: Session, session_id: str) -> Conversation:
        """End a session; InvalidTransitionError for one that was cancelled. Messages are still taken."""
        return _step(session, session_id, "completed")

    @writes_once
    @repeatable
    def cancel(self, session: Session, session_id: str) -> Conversation:
        """Cancel a session; InvalidTransitionError for one that was completed. Messages are still taken."""
        return _step(session, session_id, "cancelled")

    @writes_once
    @repeatable
    def delete(self, session: Session, session_id: str) -> None:
        """Hide the session with all that belongs to it; NotFoundError when it is unknown or deleted already.

        Nothing is removed: ``restore`` brings it back, ``purge`` removes it for good.
        """
        time = session.now()
        if session.first(_DELETE, {"id": session_id, "now": time}) is not None:
            return
        found = session.first(_GET, {"id": session_id})
        if not (session.repeated and found is not None and found.deleted_at == time):
            raise NotFoundError("session", session_id)

    @writes_once
    @repeatable
    def restore(self, session: Session, session_id: str) -> Conversation:
        """Bring a deleted session back; one that is not deleted stays as it is. NotFoundError for an unknown one."""
        restored = session.first(_RESTORE, {"id": session_id, "now": session.now()})
        return restored or _required(session.first(_GET, {"id": session_id}), session_id)

    @writes
    @repeatable
    def purge(self, session: Session, session_id: str) -> None:
        """Remove the session, deleted or not, for good, with its messages, tool calls and contexts.

        Tasks and agents stay, without it. All goes in one transaction, which other writers wait for on SQLite: two
        seconds perhaps for 100,000 messages. ``delete`` and a retention policy remove so many in short steps.
        NotFoundError for an unknown one.
        """
        binds = {"id": session_id}
        # Who indexes its messages holds it, or them; afterwards there is nobody whose documents would not be seen here.
        if session.first(_HOLD if session.capabilities.row_locks else _GET, binds) is None:
            if not session.repeated:
                raise NotFoundError("session", session_id)
            return
        if session.capabilities.row_locks:
            session.first(_HOLD_MESSAGES, binds)
        session.execute(_FORGET, binds)
        session.execute(_PURGE, binds)


def _find(session: Session, session_id: str, *, include_deleted: bool) -> Conversation | None:
    return session.first(_GET if include_deleted else _GET_OPEN, {"id": session_id})


def _required(found: Conversation | None, session_id: str) -> Conversation:
    if found is None:
        raise NotFoundError("session", session_id)
    return found


def _check_budget(budget: object) -> None:
    if budget is not None and _MONEY.check(budget, "budget") < 0:
        raise InvalidValueError("budget", "must not be below zero")


def _change(session: Session, session_id: str, changes: Mapping[str, Any]) -> Conversation:
    key = frozenset(changes)
    statement = _CHANGES.get(key)
    if statement is None:
        values: dict[str, Any] = {name: bindparam(f"new_{name}", type_=_SESSIONS.c[name].type) for name in changes}
        changed = update(_SESSIONS).where(_IS_IT, _OPEN).values({**values, "updated_at": _NOW})
        called = {f"new_{name}": name for name in changes}
        statement = _CHANGES[key] = Statement(changed.returning(*_SESSIONS.c), returns=Conversation, called=called)
    binds = {f"new_{name}": value for name, value in changes.items()} | {"id": session_id, "now": session.now()}
    try:
        return _required(session.first(statement, binds), session_id)
    except IntegrityViolation as violation:
        row = dict.fromkeys(_SESSIONS.c.keys()) | dict(changes)
        raise explain(violation, Conversation, row, session) from None


def _step(session: Session, session_id: str, to: str) -> Conversation:
    while True:
        stepped = session.first(_STEPS[to], {"id": session_id, "now": session.now()})
        if stepped is not None:
            return stepped
        found = _required(_find(session, session_id, include_deleted=False), session_id)
        if found.status == to:
            return found
        allowed = STEPS[found.status]
        if to not in allowed:
            raise InvalidTransitionError("session", session_id, current=found.status, requested=to, allowed=allowed)
        # Somebody else took it somewhere from where it may go there, just now.


_MONEY = Money()
_ID = bindparam("id", type_=_SESSIONS.c.id.type)
_IS_IT = _SESSIONS.c.id == _ID
_NOW = bindparam("now", type_=UTCDateTime())
_OPEN = text(f"{_SESSIONS.name}.deleted_at IS NULL")

# Another domain's table is known by its name alone.
_AGENTS = Table(
    "agents",
    MetaData(),
    Column("agent_id", Identifier()),
    Column("session_id", Identifier()),
    Column("template_id", Identifier()),
    Column("deleted_at", UTCDateTime()),
)


def _held_by(column: Column[Any]) -> Filter:
    """Keep the conversations of agents with this value; agents that are deleted hold none."""
    held = select(_AGENTS.c.session_id).where(_AGENTS.c.deleted_at.is_(None))
    # Asked for each session instead, SQLite would walk through all of them to find the few of a rare template.
    return Filter(
        column.type,  # type: ignore[arg-type]
        lambda name: _SESSIONS.c.id.in_(held.where(column == bindparam(name, type_=column.type))),
    )


_LISTING = Listing(
    Conversation,
    filters={
        "user_id": equals(Conversation.user_id),
        "status": equals(Conversation.status),
        "channel": equals(Conversation.channel),
        "template_id": _held_by(_AGENTS.c.template_id),
        "agent_id": _held_by(_AGENTS.c.agent_id),
        "created_after": at_least(Conversation.created_at),
        "created_before": below(Conversation.created_at),
        "updated_after": at_least(Conversation.updated_at),
        "updated_before": below(Conversation.updated_at),
        "metadata": contains(Conversation.metadata_),
        "open": Filter(Boolean(), lambda _: _OPEN),  # type: ignore[arg-type,return-value]
    },
    orders={
        "created_at": (_SESSIONS.c.created_at, _SESSIONS.c.id),
        "updated_at": (_SESSIONS.c.updated_at, _SESSIONS.c.id),
    },
    default="created_at",
)

_INSERT: Statement[Any] = Statement(
    postgresql.insert(_SESSIONS)
    .values({c.name: bindparam(c.name, type_=c.type) for c in _SESSIONS.c})
    .on_conflict_do_nothing()
)
_GET: Statement[Conversation] = Statement(select(_SESSIONS).where(_IS_IT), returns=Conversation)
_GET_OPEN: Statement[Conversation] = Statement(select(_SESSIONS).where(_IS_IT, _OPEN), returns=Conversation)
_LOCK: Statement[Conversation] = Statement(
    select(_SESSIONS).where(_IS_IT).with_for_update(key_share=True), returns=Conversation
)
_DELETE: Statement[Any] = Statement(
    update(_SESSIONS).where(_IS_IT, _OPEN).values(deleted_at=_NOW, updated_at=_NOW).returning(_SESSIONS.c.id)
)
_RESTORE: Statement[Conversation] = Statement(
    update(_SESSIONS)
    .where(_IS_IT, text(f"{_SESSIONS.name}.deleted_at IS NOT NULL"))
    .values(deleted_at=null(), updated_at=_NOW)
    .returning(*_SESSIONS.c),
    returns=Conversation,
)
_HOLD: Statement[Any] = Statement(select(_SESSIONS.c.id).where(_IS_IT).with_for_update())
_ITS_MESSAGES = (
    select(_MESSAGES.c.id).where(_MESSAGES.c.session_id == _ID).order_by(_MESSAGES.c.id).with_for_update().subquery()
)
_HOLD_MESSAGES: Statement[Any] = Statement(select(func.count()).select_from(_ITS_MESSAGES))
_FORGET: Statement[Any] = Statement(
    delete(DOCUMENTS).where(
        DOCUMENTS.c.kind == KIND,
        among(DOCUMENTS.c.key, select(_MESSAGES.c.id).where(_MESSAGES.c.session_id == _ID)),
    )
)
_PURGE: Statement[Any] = Statement(delete(_SESSIONS).where(_IS_IT))
_CHANGES: dict[frozenset[str], Statement[Conversation]] = {}


def _step_to(to: str) -> Statement[Conversation]:
    origins = or_(*(_SESSIONS.c.status == literal(origin) for origin, steps in STEPS.items() if to in steps))
    changed = update(_SESSIONS).where(_IS_IT, _OPEN, origins).values(status=to, updated_at=_NOW)
    return Statement(changed.returning(*_SESSIONS.c), returns=Conversation)


_STEPS = {to: _step_to(to) for to in STEPS}
