"""Keeping what agents remember in order: wider scopes, duplicates, fading, and cleaning up."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import bindparam, delete, func, select, text, union_all, update

from agentos_store.engine.among import among
from agentos_store.engine.clock import from_now, seconds
from agentos_store.engine.session import Session
from agentos_store.engine.statement import Statement
from agentos_store.errors import AlreadyExistsError, ConflictError, InvalidValueError
from agentos_store.memory.items import ITEMS, KEY, PLACE, SAME, change, locked, required
from agentos_store.memory.merging import merged
from agentos_store.memory.models import EXPIRES, FADES, GOES, SCOPE, SCOPES, MemoryItem
from agentos_store.memory.texts import KIND, likeness
from agentos_store.operation import F, Repository, repeatable, writes, writes_once
from agentos_store.search.index import Removing
from agentos_store.types import Text, UTCDateTime, check_duration, check_whole

BATCH = 1000
LARGEST_BATCH = 10_000
DAY = dt.timedelta(days=1)
HALF_LIFE = dt.timedelta(days=90)
UNUSED = dt.timedelta(days=30)
MOST_COMPARED = 10_000
"""Items of a scope that are looked at for duplicates in one call."""


@dataclass(frozen=True, slots=True)
class Merger:
    """Items that became one."""

    kept: MemoryItem
    removed: Sequence[str]
    """The identifiers of those that it took in."""


@dataclass(frozen=True, slots=True)
class Decay:
    """What one batch of fading did."""

    items: int
    """How many items are less sure than they were."""
    more: bool
    """Whether there may be others: call again."""


@dataclass(frozen=True, slots=True)
class Cleanup:
    """What one batch of cleaning up removed."""

    expired: int
    unused: int
    """Temporary items that nobody had used for a while."""
    more: bool
    """Whether there may be others: call again."""

    @property
    def removed(self) -> int:
        """All that were removed."""
        return self.expired + self.unused


class MemoryKeeping(Repository[F]):
    """The part of the memory that keeps order."""

    @writes
    @repeatable
    def promote(self, session: Session, id: str, to: str, *, scope_id: str | None = None) -> MemoryItem:
        """Let the item hold in a wider scope; return it, or the item there that says the same and has taken it in.

        From task over agent, repository and project to global. A project's ``scope_id`` is the item's project unless
        it is given. Raises InvalidValueError for a scope that is not wider, or that lacks its identifier, and
        ConflictError when another writer puts the same content there in the same moment.
        """
        SCOPE.check(to, "to")
        item = locked(session, id)
        place = item.project_id if to == "project" and scope_id is None else scope_id
        if (item.scope, item.scope_id) == (to, place) and session.repeated:
            return item
        _check_wider(item, to, place)
        target = {"scope": to, "scope_id": place, "type": item.type, "content_hash": item.content_hash}
        there = session.first(SAME, target)
        if there is not None:
            return _merge(session, [there.id, item.id]).kept
        try:
            return required(change(session, id, {"scope": to, "scope_id": place}, time=session.now()), id)
        except AlreadyExistsError:
            raise ConflictError("memory item", id, f"the same was just remembered in the scope {to}") from None

    @writes
    @repeatable
    def merge(self, session: Session, id: str, *others: str) -> MemoryItem:
        """Let the first item take in the others, which are gone then; return it.

        It keeps its content and scope, and has the tags and sources of all, the greatest confidence, the strongest
        retention, the latest expiry, and all uses together.
        """
        if id in others:
            raise InvalidValueError("others", "an item cannot take in itself")
        if session.repeated:
            others = tuple(each for each in others if session.first(_IS_THERE, {"id": each}) is not None)
        return _merge(session, [id, *dict.fromkeys(others)]).kept

    @writes
    @repeatable
    def merge_duplicates(
        self, session: Session, *, scope: str = "global", scope_id: str | None = None, type: str | None = None
    ) -> Sequence[Merger]:
        """Make one item of those in a scope that say the same but for case, accents and punctuation; return which.

        The oldest of them stays. At most the 10,000 oldest items of the scope are compared.
        """
        alike: dict[tuple[str, str], list[str]] = {}
        binds = {"scope": scope, "place": scope_id or "", "limit_": MOST_COMPARED}
        for item in session.all(_OF_SCOPE, binds):
            if type is None or item.type == type:
                alike.setdefault((item.type, likeness(item.content)), []).append(item.id)
        return [_merge(session, keys) for keys in alike.values() if len(keys) > 1]

    @writes
    def decay(
        self,
        session: Session,
        *,
        half_life: dt.timedelta = HALF_LIFE,
        at: dt.datetime | None = None,
        limit: int = BATCH,
    ) -> Decay:
        """Let the confidence of items fade, by half in each ``half_life``, up to ``limit`` of them.

        It fades by whole days since it was last given or faded, so that to call this ten times in ten days gives the
        same, to the last bit, as to call it once after ten. Permanent items do not fade. ``at`` is the moment up to
        which it fades: now, unless it is given. Call it until there are no more: each call is one short transaction.
        """
        check_duration("half_life", half_life)
        check_whole("limit", limit, 1, LARGEST_BATCH)
        if at is None:
            rows = session.all(_FADING, {"limit_": limit})
        else:
            at = _TIME.check(at, "at")
            rows = session.all(_FADING_AT, {"at": at, "day_before": at - DAY, "limit_": limit})
        factor = 0.5 ** (DAY / half_life)
        time = session.now()
        changes = []
        # Rows are locked in the order of their keys, so that two that run at once do not wait for each other.
        for key, confidence, decayed_at, until in sorted(rows):
            days = (until - decayed_at) // DAY
            changes.append(
                {
                    "id": key,
                    "old_confidence": confidence,
                    "old_decayed_at": decayed_at,
                    "new_confidence": _faded(confidence, factor, days),
                    "new_decayed_at": decayed_at + days * DAY,
                    "new_updated_at": time,
                }
            )
        return Decay(session.execute_many(_FADE, changes), len(rows) == limit)

    @writes_once
    def cleanup(self, session: Session, *, unused_for: dt.timedelta = UNUSED, limit: int = BATCH) -> Cleanup:
        """Remove items that have expired, and temporary ones that were not used for a while; ``limit`` at most.

        Permanent items stay, whatever their expiry, and temporary ones whose ``auto_cleanup`` is off. Call it until
        there are no more: each call is one short transaction.
        """
        check_duration("unused_for", unused_for)
        check_whole("limit", limit, 1, LARGEST_BATCH)
        gone = _CLEAN_UP.all(session, {"age": -unused_for.total_seconds(), "limit_": limit})
        expired = sum(item.expires_at is not None and item.expires_at <= session.now() for item in gone)
        return Cleanup(expired, len(gone) - expired, len(gone) == limit)


def _merge(session: Session, keys: Sequence[str]) -> Merger:
    # In the order of the keys, so that two that run at once do not wait for each other.
    found = {key: locked(session, key) for key in sorted(keys)}
    items = [found[key] for key in keys]
    first, others = items[0], items[1:]
    for other in others:
        _REMOVE.all(session, {"id": other.id})
    kept = change(session, first.id, merged(items), time=session.now(), seen=first) if others else first
    return Merger(required(kept, first.id), [other.id for other in others])


def _check_wider(item: MemoryItem, to: str, place: str | None) -> None:
    if SCOPES.index(to) <= SCOPES.index(item.scope):
        raise InvalidValueError("to", f"{to} is not wider than {item.scope}")
    if (to == "global") != (place is None):
        raise InvalidValueError("scope_id", "what is global has none" if to == "global" else f"a {to} needs one")


def _faded(confidence: float, factor: float, days: int) -> float:
    # Day by day, for powers are not exact: the sum of the days would make a difference.
    for _ in range(days):
        if confidence == 0:
            break
        confidence *= factor
    return confidence


_TIME = UTCDateTime()
_LIMIT: Any = bindparam("limit_")
_IS_THERE: Statement[Any] = Statement(select(ITEMS.c.id).where(ITEMS.c.id == KEY))
_OF_SCOPE: Statement[MemoryItem] = Statement(
    select(ITEMS)
    .where(
        ITEMS.c.scope == bindparam("scope", type_=ITEMS.c.scope.type),
        bindparam("place", type_=Text()) == PLACE,
    )
    .order_by(ITEMS.c.created_at, ITEMS.c.id)
    .limit(_LIMIT),
    returns=MemoryItem,
)
_REMOVE = Removing(delete(ITEMS).where(ITEMS.c.id == KEY).returning(*ITEMS.c), returns=MemoryItem, kind=KIND)


_CHOSEN = (ITEMS.c.id, ITEMS.c.confidence, ITEMS.c.decayed_at)
_FADES = text(FADES)
_IN_ORDER = (ITEMS.c.decayed_at, ITEMS.c.id)
_FADING: Statement[Any] = Statement(
    select(*_CHOSEN, from_now(0.0))
    .where(_FADES, ITEMS.c.decayed_at <= from_now(-DAY.total_seconds()))
    .order_by(*_IN_ORDER)
    .limit(_LIMIT)
)
_FADING_AT: Statement[Any] = Statement(
    select(*_CHOSEN, bindparam("at", type_=_TIME))
    .where(_FADES, ITEMS.c.decayed_at <= bindparam("day_before", type_=_TIME))
    .order_by(*_IN_ORDER)
    .limit(_LIMIT),
    called={"day_before": "at"},
)
_FADE: Statement[Any] = Statement(
    update(ITEMS)
    .where(
        ITEMS.c.id == KEY,
        ITEMS.c.confidence == bindparam("old_confidence", type_=ITEMS.c.confidence.type),
        ITEMS.c.decayed_at == bindparam("old_decayed_at", type_=_TIME),
    )
    .values(
        {
            name: bindparam(f"new_{name}", type_=ITEMS.c[name].type)
            for name in ("confidence", "decayed_at", "updated_at")
        }
    )
)


def _clean_up() -> Any:
    expired = (
        select(ITEMS.c.id)
        .where(text(EXPIRES), ITEMS.c.expires_at <= from_now(0.0))
        .order_by(ITEMS.c.expires_at, ITEMS.c.id)
        .limit(_LIMIT)
    )
    old = from_now(seconds("age"))
    unused = (
        select(ITEMS.c.id)
        .where(text(GOES), ITEMS.c.created_at < old, func.coalesce(ITEMS.c.last_used_at, ITEMS.c.created_at) < old)
        .order_by(ITEMS.c.created_at, ITEMS.c.id)
        .limit(_LIMIT)
    )
    both = union_all(select(expired.subquery()), select(unused.subquery())).subquery("both")
    chosen = select(both.c.id).limit(_LIMIT)
    return delete(ITEMS).where(among(ITEMS.c.id, chosen.correlate(None))).returning(*ITEMS.c)


_CLEAN_UP = Removing(_clean_up(), returns=MemoryItem, kind=KIND)
