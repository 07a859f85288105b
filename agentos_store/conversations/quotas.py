"""Operations on quotas: what a user may consume, and what is set aside for work that has begun.

``users.quota_reserved`` counts the user's reservations, those included that lapsed, until somebody needs their tokens.
So the usual question is one condition on the user's own row, which PostgreSQL asks again after it waited for the row.
Whoever is refused takes back what lapsed and asks once more, all in one statement: nothing changes unless it fits.

Every statement that touches reservations holds their user's row first, so that two of them never wait for each other.
"""

from __future__ import annotations

import datetime as dt
from collections import Counter
from collections.abc import Callable
from typing import Any

from sqlalchemy import (
    CTE,
    Select,
    Update,
    bindparam,
    cast,
    delete,
    func,
    insert,
    literal,
    not_,
    or_,
    select,
    true,
    union_all,
    update,
)
from sqlalchemy.sql.dml import ReturningInsert, ReturningUpdate

from agentos_store.conversations.models import QuotaReservation, User
from agentos_store.engine.among import among
from agentos_store.engine.clock import from_now, seconds
from agentos_store.engine.session import Session
from agentos_store.engine.statement import Statement
from agentos_store.engine.violations import IntegrityViolation, explain
from agentos_store.errors import (
    AlreadyExistsError,
    InvalidValueError,
    NotFoundError,
    QuotaExceededError,
    TransientError,
)
from agentos_store.operation import F, Repository, reads, repeatable, writes_once
from agentos_store.types import Int64, Text, check_duration, check_whole

USERS = User.table()
RESERVATIONS = QuotaReservation.table()
SWEEP_BATCH = 1000
LARGEST_BATCH = 10_000

_TOKENS = Int64()


class UserQuotas(Repository[F]):
    """The part of the user repository that is about quotas. All amounts are tokens."""

    @reads
    def check_quota(self, session: Session, user_id: str, required_tokens: int = 0) -> bool:
        """Tell whether that much is neither consumed nor held by a reservation; NotFoundError for an unknown user.

        The answer may be out of date when it arrives: to be sure, consume or reserve.
        """
        check_tokens("required_tokens", required_tokens)
        return _available(session, user_id) >= required_tokens

    @writes_once
    def consume_quota(self, session: Session, user_id: str, tokens: int) -> User:
        """Consume so much of the quota, or nothing: QuotaExceededError when it does not fit.

        Parallel consumers never pass the total together. A call whose answer was lost is not made again, for it might
        count twice; work that has to survive that reserves first and settles.
        """
        check_tokens("tokens", tokens)
        time = session.now()
        binds = {"user_id": user_id, "tokens": tokens, "now": time}
        found = session.first(_CONSUME, binds)
        while found is None:
            _require(session, user_id, tokens)
            # It fits, with what lapsed.
            if session.capabilities.data_modifying_cte:
                found = session.first(_SWEEP_AND_CONSUME, binds)
            else:
                _sweep_user(session, user_id, time)
                found = session.first(_CONSUME, binds)
        return found

    @writes_once
    @repeatable
    def reserve_quota(
        self, session: Session, user_id: str, tokens: int, *, ttl: dt.timedelta, id: str | None = None
    ) -> QuotaReservation:
        """Set so much of the quota aside until it is settled or released, at the longest for ``ttl``.

        The time counts by the database's clock; what is reserved cannot be consumed or reserved by others meanwhile.
        Raises QuotaExceededError when it does not fit and AlreadyExistsError for an identifier that is taken.
        """
        check_tokens("tokens", tokens, least=1)
        check_duration("ttl", ttl)
        time = session.now()
        key = session.new_ulid() if id is None else id
        row = {"id": key, "user_id": user_id, "tokens": tokens, "created_at": time}
        binds = {**row, "now": time, "ttl": ttl.total_seconds()}
        if session.repeated:
            earlier = session.first(_GET, {"id": key})
            if earlier is not None and earlier.created_at == time:
                # An earlier try of this very call was committed, and its answer got lost.
                return earlier
        try:
            found = _reserve(session, binds)
            while found is None:
                _require(session, user_id, tokens)
                if session.capabilities.data_modifying_cte:
                    found = session.first(_SWEEP_AND_RESERVE, binds)
                else:
                    if session.first(_GET, binds) is not None:
                        # It may be one that lapsed, whose identifier would come free with it here and only here.
                        raise AlreadyExistsError(QuotaReservation.entity, key)
                    _sweep_user(session, user_id, time)
                    found = _reserve(session, binds)
        except IntegrityViolation as violation:
            raise explain(violation, QuotaReservation, row, session) from None
        return found

    @writes_once
    @repeatable
    def settle(self, session: Session, reservation_id: str, tokens: int) -> User:
        """End a reservation: consume what was really used, and give the rest of it back.

        More than was reserved is consumed too if it fits; if not, QuotaExceededError is raised and the reservation
        stays as it is. One that was settled, was released or lapsed raises NotFoundError. Of two that settle one
        reservation at once, one does. Where the answer was lost and the user was changed since, TransientError says
        that the outcome is not known.
        """
        check_tokens("tokens", tokens)
        time = session.now()
        found = _settle(session, reservation_id, tokens, time)
        if found is None and session.repeated:
            found = session.first(_CHANGED_AT, {"now": time})
            if found is None:
                raise TransientError("the reservation was settled, or lapsed meanwhile", outcome_unknown=True)
        if found is None:
            raise NotFoundError(QuotaReservation.entity, reservation_id)
        return found

    @writes_once
    @repeatable
    def release(self, session: Session, reservation_id: str) -> None:
        """End a reservation of which nothing was used; NotFoundError for one that is settled, released or lapsed."""
        if _settle(session, reservation_id, 0, session.now()) is None and not session.repeated:
            raise NotFoundError(QuotaReservation.entity, reservation_id)

    @writes_once
    def sweep_reservations(self, session: Session, *, limit: int = SWEEP_BATCH) -> int:
        """Remove reservations of all users that lapsed, at most ``limit`` of them; return how many.

        Quotas need no such call: what lapsed does not count. Those of users that others are at work on are left to
        the next call. Call it until it returns less than ``limit``: each call is one short transaction.
        """
        check_whole("limit", limit, 1, LARGEST_BATCH)
        binds = {"limit_": limit, "now": session.now()}
        if session.capabilities.data_modifying_cte:
            return sum(count for (count,) in session.all(_SWEEP, binds))
        removed = session.all(_REMOVE_LAPSED, binds)
        freed: Counter[str] = Counter()
        for user_id, tokens in removed:
            freed[user_id] += tokens
        session.execute_many(_GIVE_BACK, [{**binds, "user_id": each, "freed": freed[each]} for each in freed])
        return len(removed)


def check_tokens(name: str, value: object, *, least: int = 0) -> None:
    """Raise InvalidValueError for what is no number of tokens."""
    if value is None:
        raise InvalidValueError(name, "must be a whole number, not None")
    if _TOKENS.check(value, name) < least:
        raise InvalidValueError(name, f"must be a whole number of at least {least}")


def _available(session: Session, user_id: str) -> int:
    found = session.first(_AVAILABLE, {"user_id": user_id})
    if found is None:
        raise NotFoundError(User.entity, user_id)
    return int(found[0])


def _require(session: Session, user_id: str, tokens: int) -> None:
    available = _available(session, user_id)
    if available < tokens:
        raise QuotaExceededError(user_id, requested=tokens, available=available)


def _reserve(session: Session, binds: dict[str, Any]) -> QuotaReservation | None:
    if session.capabilities.data_modifying_cte:
        return session.first(_RESERVE, binds)
    return session.first(_INSERT, binds) if session.first(_HOLD, binds) is not None else None


def _settle(session: Session, reservation_id: str, tokens: int, time: dt.datetime) -> User | None:
    """Return the user, or None when the reservation is there no more."""
    binds = {"id": reservation_id, "tokens": tokens, "now": time}
    in_one = session.capabilities.data_modifying_cte
    while True:
        found = session.first(_SETTLE, binds) if in_one else None
        if found is not None:
            return found
        live = session.first(_LIVE, binds)
        if live is None:
            return None
        user_id, held, free = live
        if tokens > held and free < tokens - held:
            raise QuotaExceededError(user_id, requested=tokens, available=free + held)
        if not in_one:
            _sweep_user(session, user_id, time, kept=reservation_id)
            session.execute(_REMOVE, binds)
            return session.first(_SPEND, {**binds, "user_id": user_id, "held": held})
        # Whatever stood in the way is gone by now.


def _sweep_user(session: Session, user_id: str, time: dt.datetime, *, kept: str = "") -> None:
    """Take back what the user's reservations hold that lapsed, without the one that is being worked on."""
    rows = session.all(_REMOVE_LAPSED_OF_USER, {"user_id": user_id, "kept": kept})
    if rows:
        session.execute(_GIVE_BACK, {"user_id": user_id, "freed": sum(tokens for (tokens,) in rows), "now": time})


def _tokens(name: str) -> Any:
    return bindparam(name, type_=_TOKENS)


def _sum(column: Any) -> Any:
    # PostgreSQL makes the sum a NUMERIC.
    return cast(func.coalesce(func.sum(column), literal(0, _TOKENS)), _TOKENS)


_IS_USER = USERS.c.id == bindparam("user_id", type_=USERS.c.id.type)
_IS_IT = RESERVATIONS.c.id == bindparam("id", type_=RESERVATIONS.c.id.type)
_TIME = bindparam("now", type_=USERS.c.updated_at.type)
_FREE = USERS.c.quota_total - USERS.c.quota_used - USERS.c.quota_reserved
"""Without what lapsed reservations still hold."""
_LAPSED = RESERVATIONS.c.expires_at <= from_now(0.0)
_VALUES = {
    "id": bindparam("id", type_=RESERVATIONS.c.id.type),
    "user_id": bindparam("user_id", type_=RESERVATIONS.c.user_id.type),
    "tokens": _tokens("tokens"),
    "expires_at": from_now(seconds("ttl")),
    "created_at": bindparam("created_at", type_=RESERVATIONS.c.created_at.type),
}


def _change(*, used: Any = None, reserved: Any = None) -> Update:
    """Return the UPDATE of a user's row by these differences."""
    values: dict[str, Any] = {"updated_at": _TIME}
    if used is not None:
        values["quota_used"] = USERS.c.quota_used + used
    if reserved is not None:
        values["quota_reserved"] = USERS.c.quota_reserved + reserved
    return update(USERS).values(values)


def _lapsed_tokens(*but: Any) -> Any:
    """Return the query, for a query of a user, for what lapsed reservations still hold."""
    mine = select(_sum(RESERVATIONS.c.tokens)).where(RESERVATIONS.c.user_id == USERS.c.id, _LAPSED, *but)
    return mine.correlate(USERS).scalar_subquery()


_AVAILABLE: Statement[Any] = Statement(select(_FREE + _lapsed_tokens()).where(_IS_USER))
_GET: Statement[QuotaReservation] = Statement(select(RESERVATIONS).where(_IS_IT), returns=QuotaReservation)
_LIVE: Statement[Any] = Statement(
    # Each question for the time gives another one: what has just not lapsed may have lapsed by the next.
    select(USERS.c.id, RESERVATIONS.c.tokens, _FREE + _lapsed_tokens(not_(_IS_IT)))
    .join_from(RESERVATIONS, USERS, USERS.c.id == RESERVATIONS.c.user_id)
    .where(_IS_IT, not_(_LAPSED))
)
# It reads all users, which a call that was cut off while it was answered is rare enough for.
_CHANGED_AT: Statement[User] = Statement(select(USERS).where(USERS.c.updated_at == _TIME).limit(1), returns=User)

_FITS = _tokens("tokens") <= _FREE
_CONSUME: Statement[User] = Statement(
    _change(used=_tokens("tokens")).where(_IS_USER, _FITS).returning(*USERS.c), returns=User
)

# --- step by step, where one writer is at work at a time

_HOLD: Statement[Any] = Statement(_change(reserved=_tokens("tokens")).where(_IS_USER, _FITS).returning(USERS.c.id))
_INSERT: Statement[QuotaReservation] = Statement(
    insert(RESERVATIONS).values(_VALUES).returning(*RESERVATIONS.c), returns=QuotaReservation
)
_REMOVE: Statement[Any] = Statement(delete(RESERVATIONS).where(_IS_IT))
_SPEND: Statement[User] = Statement(
    _change(used=_tokens("tokens"), reserved=-_tokens("held")).where(_IS_USER).returning(*USERS.c), returns=User
)
_REMOVE_LAPSED_OF_USER: Statement[Any] = Statement(
    delete(RESERVATIONS)
    .where(
        RESERVATIONS.c.user_id == bindparam("user_id", type_=RESERVATIONS.c.user_id.type),
        RESERVATIONS.c.id != bindparam("kept", type_=Text()),
        _LAPSED,
    )
    .returning(RESERVATIONS.c.tokens)
)
_SOME_LAPSED = select(RESERVATIONS.c.id, RESERVATIONS.c.user_id).where(_LAPSED).limit(bindparam("limit_"))
_REMOVE_LAPSED: Statement[Any] = Statement(
    delete(RESERVATIONS)
    .where(among(RESERVATIONS.c.id, _SOME_LAPSED.with_only_columns(RESERVATIONS.c.id).correlate(None)))
    .returning(RESERVATIONS.c.user_id, RESERVATIONS.c.tokens)
)
_GIVE_BACK: Statement[Any] = Statement(_change(reserved=-_tokens("freed")).where(_IS_USER))

# --- in one statement
#
# Its parts take their locks in the order in which they need each other's rows: first the user's. A row that another
# transaction removed while a part waited is none of its rows; what only reads would still see it. A query that locks
# is run once, however often it is named.


def _reserve_at_once(held: CTE) -> ReturningInsert[Any]:
    names = list(_VALUES)
    row = select(*({**_VALUES, "user_id": held.c.id}[name] for name in names))
    return insert(RESERVATIONS).from_select(names, row, include_defaults=False).returning(*RESERVATIONS.c)


def _locked(query: Select[Any], name: str) -> CTE:
    return query.with_for_update(key_share=True, of=USERS).cte(name)


def _locked_lapsed(user: CTE, *but: Any) -> CTE:
    owner = select(user.c.id).scalar_subquery()
    query = select(RESERVATIONS.c.id, RESERVATIONS.c.tokens).where(RESERVATIONS.c.user_id == owner, _LAPSED, *but)
    return query.with_for_update().cte("lapsed")


def _freed(lapsed: CTE) -> CTE:
    return select(_sum(lapsed.c.tokens).label("tokens")).cte("freed")


def _sweep_and(change: Callable[[CTE], Any]) -> Any:
    """Return what the function makes of the user for whom it fits with what lapsed, which is then taken back."""
    user = _locked(select(USERS.c.id, _FREE.label("free")).where(_IS_USER), "locked")
    lapsed = _locked_lapsed(user)
    freed = _freed(lapsed)
    fitting = (
        select(user.c.id, freed.c.tokens.label("freed"))
        .select_from(user.join(freed, true()))
        .where(user.c.free + freed.c.tokens >= _tokens("tokens"))
        .cte("fitting")
    )
    return change(fitting).add_cte(_removal(select(lapsed.c.id), fitting))


def _removal(doomed: Select[Any], condition: CTE) -> CTE:
    found = doomed.where(select(condition.c.id).exists())
    return delete(RESERVATIONS).where(among(RESERVATIONS.c.id, found)).cte("removed")


def _consume_with(fitting: CTE) -> ReturningUpdate[Any]:
    changed = _change(used=_tokens("tokens"), reserved=-fitting.c.freed)
    return changed.where(USERS.c.id == fitting.c.id).returning(*USERS.c)


def _reserve_with(fitting: CTE) -> ReturningInsert[Any]:
    changed = _change(reserved=_tokens("tokens") - fitting.c.freed)
    return _reserve_at_once(changed.where(USERS.c.id == fitting.c.id).returning(USERS.c.id).cte("held"))


_RESERVE: Statement[QuotaReservation] = Statement(_reserve_at_once(_HOLD.element.cte("held")), returns=QuotaReservation)
_SWEEP_AND_CONSUME: Statement[User] = Statement(_sweep_and(_consume_with), returns=User)
_SWEEP_AND_RESERVE: Statement[QuotaReservation] = Statement(_sweep_and(_reserve_with), returns=QuotaReservation)


def _settle_at_once() -> ReturningUpdate[Any]:
    owner = select(USERS.c.id, _FREE.label("free")).join_from(USERS, RESERVATIONS, RESERVATIONS.c.user_id == USERS.c.id)
    user = _locked(owner.where(_IS_IT), "locked")
    its_user = RESERVATIONS.c.user_id == select(user.c.id).scalar_subquery()
    own = select(RESERVATIONS.c.id, RESERVATIONS.c.tokens).where(_IS_IT, its_user, not_(_LAPSED))
    own_ = own.with_for_update().cte("own")
    lapsed = _locked_lapsed(user, not_(_IS_IT))
    freed = _freed(lapsed)
    excess = _tokens("tokens") - own_.c.tokens
    fitting = (
        select(user.c.id, (own_.c.tokens + freed.c.tokens).label("freed"))
        .select_from(user.join(own_, true()).join(freed, true()))
        .where(or_(excess <= literal(0, _TOKENS), user.c.free + freed.c.tokens >= excess))
        .cte("fitting")
    )
    doomed = union_all(select(own_.c.id), select(lapsed.c.id)).cte("doomed")
    return _consume_with(fitting).add_cte(_removal(select(doomed.c.id), fitting))


def _sweep() -> ReturningUpdate[Any]:
    chosen = _SOME_LAPSED.cte("chosen")
    users = select(USERS.c.id).where(among(USERS.c.id, select(chosen.c.user_id)))
    locked = users.with_for_update(key_share=True, skip_locked=True).cte("locked")
    doomed = select(chosen.c.id).where(chosen.c.user_id.in_(select(locked.c.id)))
    removed = (
        delete(RESERVATIONS)
        .where(among(RESERVATIONS.c.id, doomed))
        .returning(RESERVATIONS.c.user_id, RESERVATIONS.c.tokens)
        .cte("removed")
    )
    freed = (
        select(removed.c.user_id, _sum(removed.c.tokens).label("tokens"), func.count().label("count"))
        .group_by(removed.c.user_id)
        .cte("freed")
    )
    changed = _change(reserved=-freed.c.tokens).where(USERS.c.id == freed.c.user_id)
    return changed.returning(freed.c["count"])


_SETTLE: Statement[User] = Statement(_settle_at_once(), returns=User)
_SWEEP: Statement[Any] = Statement(_sweep())
