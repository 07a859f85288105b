"""Operations on leases: one holder at a time, whoever dies, pauses or comes too late."""

from __future__ import annotations

import datetime as dt
import os
import socket
import threading
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from sqlalchemy import and_, bindparam, null, or_, select, text, update
from sqlalchemy.dialects import postgresql

from agentos_store.engine.among import among, searched
from agentos_store.engine.clock import from_now, seconds
from agentos_store.engine.prefix import behind
from agentos_store.engine.recordset import recordset
from agentos_store.engine.session import Session
from agentos_store.engine.statement import Statement
from agentos_store.errors import InvalidValueError, LeaseLostError, NotFoundError, UsageError
from agentos_store.leases.faces import faces
from agentos_store.leases.held import Held
from agentos_store.leases.keeper import Outcome, TaskKeeper, ThreadKeeper
from agentos_store.leases.models import Fence, Lease
from agentos_store.leases.waiting import Standing, acquire, acquire_awaiting, hold, hold_awaiting
from agentos_store.operation import F, Repository, reads, repeatable, walks, writes, writes_once
from agentos_store.page import DEFAULT_LIMIT, Filter, Listing, Page, equals
from agentos_store.types import Boolean, Identifier, Int64, Text, check_duration

K = TypeVar("K")

_LEASES = Lease.table()
_making = threading.Lock()

AnyLease = Lease | Held | Fence
"""What names a lease and the token under which it is held."""


class LeaseRepository(Repository[F]):
    """Leases: names that one at a time may hold, by the database's clock.

    A lease that nobody holds is not there; only its token is kept, so that the next holder's is greater.
    """

    name = "leases"

    may_lag = False

    acquire = faces(acquire, acquire_awaiting)
    hold = faces(hold, hold_awaiting)

    @writes_once
    @repeatable
    def try_acquire(self, session: Session, name: str, *, owner: str | None = None, ttl: dt.timedelta) -> Lease | None:
        """Acquire the lease as ``acquire`` does when it is free at this moment; else return None, at once.

        One that has lapsed is not free while its holder has a guarded transaction open.
        """
        row = {
            "name": Identifier().check(name, "name"),
            "owner": _default_owner() if owner is None else owner,
            "acquisition_id": session.new_ulid(),
            "ttl": check_duration("ttl", ttl).total_seconds(),
        }
        if session.repeated:
            own = session.first(_OWN, row)
            if own is not None:
                return own
        if session.capabilities.data_modifying_cte:
            return session.first(_ACQUIRE, row)
        return session.first(_TAKE, row) or session.first(_MAKE, row)

    @writes_once
    @repeatable
    def renew(self, session: Session, lease: AnyLease, *, ttl: dt.timedelta) -> Lease:
        """Let the lease last for ``ttl`` from now; LeaseLostError when it is not held under this token any more.

        One that has lapsed is lost, even if nobody else has acquired it since.
        """
        binds = _binds(lease) | {"ttl": check_duration("ttl", ttl).total_seconds()}
        found = session.first(_RENEW, binds)
        if found is None:
            raise LeaseLostError(lease.name, lease.token)
        return found

    @writes_once
    @repeatable
    def release(self, session: Session, lease: AnyLease) -> None:
        """Give the lease back; LeaseLostError when it is not held under this token any more.

        Whoever knows name and token may do it, so that an operator can take a lease that ``holders`` shows away.
        """
        binds = _binds(lease)
        if session.execute(_RELEASE, binds) == 0 and not (session.repeated and session.first(_RELEASED, binds)):
            raise LeaseLostError(lease.name, lease.token)

    @writes
    def guard(self, session: Session, lease: AnyLease) -> None:
        """Let this transaction commit only while nobody else has the lease: LeaseLostError when it is lost already.

        From here to the end of the transaction nobody acquires the lease, even if it lapses meanwhile; it can still be
        renewed. Outside a transaction it would say nothing about what follows, and raises UsageError.
        """
        if not self.in_transaction:
            raise UsageError("leases.guard: guard a lease inside a transaction, with what it protects")
        if session.first(_GUARD, _binds(lease)) is None:
            raise LeaseLostError(lease.name, lease.token)

    @reads
    def get(self, session: Session, name: str) -> Lease:
        """Return the lease that somebody holds; raise NotFoundError when nobody does."""
        found = session.first(_GET, {"name": name})
        if found is None:
            raise NotFoundError(Lease.entity, name)
        return found

    @reads
    def find(self, session: Session, name: str) -> Lease | None:
        """Return the lease that somebody holds, or None."""
        return session.first(_GET, {"name": name})

    @reads
    def exists(self, session: Session, name: str) -> bool:
        """Tell whether somebody holds the lease."""
        return session.first(_GET, {"name": name}) is not None

    @reads
    def list(
        self,
        session: Session,
        *,
        prefix: str | None = None,
        owner: str | None = None,
        order: str | None = None,
        limit: int = DEFAULT_LIMIT,
        cursor: str | None = None,
        offset: int = 0,
    ) -> Page[Lease]:
        """Return a page of the leases that somebody holds, by name.

        ``prefix`` is what names begin with, character by character: no character of it stands for another.
        """
        filters = _filters(prefix, owner)
        return _LISTING.page(session, filters, order=order, limit=limit, cursor=cursor, offset=offset)

    iterate = walks(list)

    @reads
    def holders(
        self,
        session: Session,
        prefix: str | None = None,
        *,
        limit: int = DEFAULT_LIMIT,
        cursor: str | None = None,
    ) -> Page[Lease]:
        """Return who holds what, as ``list`` does."""
        return _LISTING.page(session, _filters(prefix, None), limit=limit, cursor=cursor)

    @reads
    def count(self, session: Session, *, prefix: str | None = None, owner: str | None = None) -> int:
        """Return how many leases are held."""
        return _LISTING.count(session, _filters(prefix, owner))

    # --- what acquire and hold are made of

    @property
    def in_transaction(self) -> bool:
        """Whether the operations are those of an open transaction."""
        return self._runner.in_transaction

    @property
    def _threads(self) -> ThreadKeeper:
        return self._keeper(ThreadKeeper)

    @property
    def _tasks(self) -> TaskKeeper:
        return self._keeper(TaskKeeper)

    def _keeper(self, kind: Callable[[Any], K]) -> K:
        # Made when the first lease is held: each transaction has a repository too, and holds none.
        with _making:
            found: K | None = self.__dict__.get("_found_keeper")
            if found is None:
                own: Any = self
                found = self.__dict__["_found_keeper"] = kind(own._keep)  # noqa: SLF001  its face is not known here
            return found

    @reads
    def _look(self, session: Session, name: str) -> Standing:
        """Return how the lease stands."""
        found = session.first(_LOOK, {"name": name})
        if found is None:
            return Standing(free=True, owner=None, remaining=0.0)
        owner, expires_at, now = found
        remaining = (expires_at - now).total_seconds()
        return Standing(owner is None or remaining <= 0, owner, max(remaining, 0.0))

    @writes_once
    @repeatable
    def _keep(self, session: Session, fences: Sequence[Fence], duration: dt.timedelta) -> Outcome:
        """Renew leases together; wait for none of them."""
        ttl = check_duration("ttl", duration).total_seconds()
        if not session.capabilities.data_modifying_cte:
            return Outcome({each for each in fences if session.execute(_RENEW, {**each._asdict(), "ttl": ttl})}, ())
        wanted = [each._asdict() for each in fences]
        renewed = {Fence(*row) for row in session.all(_KEEP, {"held": wanted, "ttl": ttl})}
        missing = [each._asdict() for each in fences if each not in renewed]
        busy = {Fence(*row) for row in session.all(_STILL_HELD, {"held": missing})} if missing else set()
        return Outcome(renewed, busy)


def _default_owner() -> str:
    return f"{socket.gethostname()[:200]}:{os.getpid()}"


def _binds(lease: AnyLease) -> dict[str, object]:
    if not isinstance(lease, Lease | Held | Fence):
        raise InvalidValueError("lease", "must be a lease, or a Fence of its name and its token")
    return {"name": Identifier().check(lease.name, "name"), "token": Int64().check(lease.token, "token")}


def _filters(prefix: str | None, owner: str | None) -> dict[str, object]:
    return {
        "prefix": None if prefix == "" else prefix,
        "behind": None if not isinstance(prefix, str) else behind(prefix),
        "owner": owner,
        "held": True,
    }


_NAME = bindparam("name", type_=_LEASES.c.name.type)
_TOKEN = bindparam("token", type_=_LEASES.c.token.type)
_NOW = from_now(0.0)
_UNTIL = from_now(seconds("ttl"))
# Written out, for a partial index serves only a condition that says what the index says.
_NOT_GIVEN_BACK = text(f"{_LEASES.name}.owner IS NOT NULL")
_LIVE = _LEASES.c.expires_at > _NOW
_HELD = (_NOT_GIVEN_BACK, _LIVE)
_IS_HELD = (_LEASES.c.name == _NAME, _LEASES.c.token == _TOKEN, *_HELD)

_LISTING = Listing(
    Lease,
    filters={
        "prefix": Filter(Identifier(), lambda name: _LEASES.c.name >= bindparam(name, type_=_LEASES.c.name.type)),
        "behind": Filter(Text(1), lambda name: _LEASES.c.name < bindparam(name, type_=_LEASES.c.name.type)),
        "owner": equals(Lease.owner),
        "held": Filter(Boolean(), lambda _: and_(*_HELD)),
    },
    orders={"name": (_LEASES.c.name,)},
    default="name",
)


_ACQUIRED = {
    "owner": bindparam("owner", type_=_LEASES.c.owner.type),
    "acquisition_id": bindparam("acquisition_id", type_=_LEASES.c.acquisition_id.type),
    "acquired_at": _NOW,
    "expires_at": _UNTIL,
}


def _take() -> Any:
    free = select(_LEASES.c.name).where(
        _LEASES.c.name == _NAME, or_(_LEASES.c.owner.is_(None), _LEASES.c.expires_at <= _NOW)
    )
    # The strongest lock, which a guard keeps from being had; and nobody waits for it, with a connection in hand.
    free = free.with_for_update(skip_locked=True).correlate(None)
    return (
        update(_LEASES)
        .where(among(_LEASES.c.name, free))
        .values(token=_LEASES.c.token + 1, **_ACQUIRED)
        .returning(*_LEASES.c)
    )


def _make() -> Any:
    return (
        postgresql.insert(_LEASES)
        .values(name=_NAME, token=1, **_ACQUIRED)
        .on_conflict_do_nothing()
        .returning(*_LEASES.c)
    )


def _acquire() -> Statement[Lease]:
    taken, made = _take().cte("taken"), _make().cte("made")
    either = select(*taken.c).union_all(select(*made.c)).subquery("either")
    return Statement(select(*either.c), returns=Lease, writes=True)


def _keep() -> Statement[Any]:
    wanted, columns = recordset("held", [_LEASES.c.name, _LEASES.c.token])
    found = select(_LEASES.c.name).select_from(wanted, _LEASES)
    found = found.where(searched(_LEASES.c.name, columns["name"]), _LEASES.c.token == columns["token"], *_HELD)
    # In one order, so that two that renew the same leases cannot stop each other. A guard's lock lets this one pass.
    found = found.order_by(_LEASES.c.name).with_for_update(key_share=True, skip_locked=True, of=_LEASES)
    renewed = update(_LEASES).where(among(_LEASES.c.name, found.correlate(None))).values(expires_at=_UNTIL)
    return Statement(renewed.returning(_LEASES.c.name, _LEASES.c.token))


def _still_held() -> Statement[Any]:
    wanted, columns = recordset("held", [_LEASES.c.name, _LEASES.c.token])
    found = select(_LEASES.c.name, _LEASES.c.token).select_from(wanted, _LEASES)
    return Statement(
        found.where(searched(_LEASES.c.name, columns["name"]), _LEASES.c.token == columns["token"], *_HELD)
    )


_TAKE: Statement[Lease] = Statement(_take(), returns=Lease)
_MAKE: Statement[Lease] = Statement(_make(), returns=Lease)
_ACQUIRE = _acquire()
_OWN: Statement[Lease] = Statement(
    select(_LEASES).where(
        _LEASES.c.name == _NAME,
        _LEASES.c.acquisition_id == bindparam("acquisition_id", type_=_LEASES.c.acquisition_id.type),
        *_HELD,
    ),
    returns=Lease,
)
_GET: Statement[Lease] = Statement(select(_LEASES).where(_LEASES.c.name == _NAME, *_HELD), returns=Lease)
_LOOK: Statement[Any] = Statement(select(_LEASES.c.owner, _LEASES.c.expires_at, _NOW).where(_LEASES.c.name == _NAME))
_RENEW: Statement[Lease] = Statement(
    update(_LEASES).where(*_IS_HELD).values(expires_at=_UNTIL).returning(*_LEASES.c), returns=Lease
)
_RELEASE: Statement[Any] = Statement(update(_LEASES).where(*_IS_HELD).values(owner=null(), expires_at=_NOW))
_RELEASED: Statement[Any] = Statement(
    select(_LEASES.c.name).where(_LEASES.c.name == _NAME, _LEASES.c.token == _TOKEN, _LEASES.c.owner.is_(None))
)
_GUARD: Statement[Any] = Statement(
    # The weakest lock: only what acquires the lease has to wait for it, the holder's renewals have not.
    select(_LEASES.c.name).where(*_IS_HELD).with_for_update(read=True, key_share=True)
)
_KEEP = _keep()
_STILL_HELD = _still_held()
