"""Operations on users: who they are; what they may consume and what they used is mixed in."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from typing import Any

from sqlalchemy import bindparam, delete, literal, select, update

from agentos_store.conversations.models import User
from agentos_store.conversations.quotas import UserQuotas, check_tokens
from agentos_store.conversations.usage import UserUsage
from agentos_store.engine.session import Session
from agentos_store.engine.statement import Statement, plain_json
from agentos_store.engine.violations import IntegrityViolation, explain
from agentos_store.errors import ConflictError, NotFoundError
from agentos_store.operation import F, reads, repeatable, walks, writes, writes_once
from agentos_store.page import DEFAULT_LIMIT, Listing, Page, at_least, below, contains
from agentos_store.unset import UNSET, Unset, given

_USERS = User.table()
_KEY = bindparam("id", type_=_USERS.c.id.type)
DEFAULT_QUOTA = 100_000

_LISTING = Listing(
    User,
    filters={
        "preferences": contains(User.preferences),
        "created_after": at_least(User.created_at),
        "created_before": below(User.created_at),
    },
    orders={"created_at": (_USERS.c.created_at, _USERS.c.id)},
    default="created_at",
)


class UserRepository(UserQuotas[F], UserUsage[F]):
    """Users: on whose account sessions run, what they may consume and what they used."""

    name = "users"

    @writes_once
    @repeatable
    def create(
        self,
        session: Session,
        *,
        name: str,
        email: str | None = None,
        quota_total: int = DEFAULT_QUOTA,
        preferences: Mapping[str, Any] | None = None,
        api_key_hash: str | None = None,
        id: str | None = None,
    ) -> User:
        """Add a user; the identifier is made unless given, and ``quota_total`` counts tokens.

        An empty email is none at all. Raises AlreadyExistsError for an identifier or an email that is taken; its
        ``field`` tells which.
        """
        check_tokens("quota_total", quota_total)
        time = session.now()
        row = {
            "id": session.new_ulid() if id is None else id,
            "name": name,
            "email": _email(email),
            "api_key_hash": api_key_hash,
            "quota_total": quota_total,
            "quota_used": 0,
            "quota_reserved": 0,
            "preferences": {} if preferences is None else plain_json(preferences),
            "created_at": time,
            "updated_at": time,
        }
        if session.repeated:
            earlier = session.first(_GET, row)
            if earlier is not None and earlier.created_at == time:
                # An earlier try of this very call was committed, and its answer got lost.
                return earlier
        return session.insert(User, row)

    @reads
    def get(self, session: Session, user_id: str) -> User:
        """Return the user; raise NotFoundError for an unknown identifier."""
        return _required(session.first(_GET, {"id": user_id}), user_id)

    @reads
    def find(self, session: Session, user_id: str) -> User | None:
        """Return the user, or None."""
        return session.first(_GET, {"id": user_id})

    @reads
    def find_by_email(self, session: Session, email: str) -> User | None:
        """Return the user with exactly this email, or None."""
        return session.first(_BY_EMAIL, {"email": email})

    @reads
    def exists(self, session: Session, user_id: str) -> bool:
        """Tell whether there is such a user."""
        return session.first(_EXISTS, {"id": user_id}) is not None

    @reads
    def list(
        self,
        session: Session,
        *,
        preferences: Mapping[str, Any] | None = None,
        created_after: dt.datetime | None = None,
        created_before: dt.datetime | None = None,
        order: str | None = None,
        limit: int = DEFAULT_LIMIT,
        cursor: str | None = None,
        offset: int = 0,
    ) -> Page[User]:
        """Return a page of users, the oldest first; ``order="-created_at"`` turns that round.

        ``created_after`` is inclusive and ``created_before`` is not. ``preferences`` keeps the users whose preferences
        contain it; on SQLite it narrows what the other filters leave.
        """
        filters = {
            "preferences": plain_json(preferences),
            "created_after": created_after,
            "created_before": created_before,
        }
        return _LISTING.page(session, filters, order=order, limit=limit, cursor=cursor, offset=offset)

    iterate = walks(list)

    @reads
    def count(
        self,
        session: Session,
        *,
        preferences: Mapping[str, Any] | None = None,
        created_after: dt.datetime | None = None,
        created_before: dt.datetime | None = None,
    ) -> int:
        """Return how many users pass the filters."""
        filters = {
            "preferences": plain_json(preferences),
            "created_after": created_after,
            "created_before": created_before,
        }
        return _LISTING.count(session, filters)

    @writes_once
    @repeatable
    def update(
        self,
        session: Session,
        user_id: str,
        *,
        name: str | Unset = UNSET,
        email: str | None | Unset = UNSET,
        quota_total: int | Unset = UNSET,
        preferences: Mapping[str, Any] | Unset = UNSET,
        api_key_hash: str | None | Unset = UNSET,
    ) -> User:
        """Change what is given and leave the rest.

        A quota may be lowered below what is consumed: then nothing more is to be had of it. Raises AlreadyExistsError
        for an email that another user has.
        """
        if quota_total is not UNSET:
            check_tokens("quota_total", quota_total)
        changes = given(
            name=name,
            email=_email(email),
            quota_total=quota_total,
            preferences=plain_json(preferences),
            api_key_hash=api_key_hash,
        )
        return _change(session, user_id, changes)

    @writes
    @repeatable
    def merge_preferences(self, session: Session, user_id: str, preferences: Mapping[str, Any]) -> User:
        """Set these keys of the user's preferences and keep the others; parallel merges keep each other's keys."""
        user = _required(session.first(_LOCK if session.capabilities.row_locks else _GET, {"id": user_id}), user_id)
        # What is no mapping is for the column's type to refuse.
        merged = {**user.preferences, **preferences} if isinstance(preferences, Mapping) else preferences
        return _change(session, user_id, {"preferences": merged})

    @writes_once
    @repeatable
    def delete(self, session: Session, user_id: str) -> None:
        """Remove the user and what is reserved for them, for good; ConflictError while they have sessions.

        Sessions that are softly deleted count too, for they can be restored.
        """
        try:
            deleted = session.execute(_DELETE, {"id": user_id})
        except IntegrityViolation:
            # Nothing else holds a user back; SQLite does not tell RESTRICT from a trigger.
            why = "sessions belong to it, softly deleted ones included; remove them first"
            raise ConflictError(User.entity, user_id, why) from None
        if deleted == 0 and not session.repeated:
            raise NotFoundError(User.entity, user_id)


_GET: Statement[User] = Statement(select(_USERS).where(_USERS.c.id == _KEY), returns=User)
_LOCK: Statement[User] = Statement(
    select(_USERS).where(_USERS.c.id == _KEY).with_for_update(key_share=True), returns=User
)
_BY_EMAIL: Statement[User] = Statement(
    select(_USERS).where(_USERS.c.email == bindparam("email", type_=_USERS.c.email.type)), returns=User
)
_EXISTS: Statement[Any] = Statement(select(literal(1)).where(_USERS.c.id == _KEY))
_DELETE: Statement[Any] = Statement(delete(_USERS).where(_USERS.c.id == _KEY))
_CHANGES: dict[frozenset[str], Statement[User]] = {}


def _email(email: Any) -> Any:
    # Chapter 14's store writes an empty text for none, of which there can be only one.
    return None if email == "" else email


def _change(session: Session, user_id: str, changes: Mapping[str, Any]) -> User:
    key = frozenset(changes)
    statement = _CHANGES.get(key)
    if statement is None:
        statement = _CHANGES[key] = _change_of(changes)
    binds = {f"new_{name}": value for name, value in changes.items()}
    binds |= {"id": user_id, "new_updated_at": session.now()}
    try:
        return _required(session.first(statement, binds), user_id)
    except IntegrityViolation as violation:
        row = dict.fromkeys(_USERS.c.keys()) | dict(changes)
        raise explain(violation, User, row, session) from None


def _change_of(changes: Mapping[str, Any]) -> Statement[User]:
    values = {name: bindparam(f"new_{name}", type_=_USERS.c[name].type) for name in (*changes, "updated_at")}
    query = update(_USERS).where(_USERS.c.id == _KEY).values(values).returning(*_USERS.c)
    return Statement(query, returns=User, called={f"new_{name}": name for name in changes})


def _required(user: User | None, user_id: str) -> User:
    if user is None:
        raise NotFoundError(User.entity, user_id)
    return user
