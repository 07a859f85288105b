"""Operations on what agents remember."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from typing import Any

from sqlalchemy import bindparam, delete, literal, select, update
from sqlalchemy.dialects import postgresql

from agentos_store.engine.session import Session
from agentos_store.engine.statement import Statement, plain_json
from agentos_store.engine.violations import IntegrityViolation, explain
from agentos_store.errors import AlreadyExistsError, InvalidValueError
from agentos_store.memory.finding import MemoryFinding
from agentos_store.memory.items import GET, ITEMS, KEY, SAME, change, required
from agentos_store.memory.keeping import MemoryKeeping
from agentos_store.memory.merging import learnt, union
from agentos_store.memory.models import MemoryItem
from agentos_store.memory.texts import KIND, check_content, content_hash, document
from agentos_store.operation import F, reads, repeatable, walks, writes_once
from agentos_store.page import DEFAULT_LIMIT, Listing, Page, at_least, below, contains, equals
from agentos_store.search.index import Removing, Writing
from agentos_store.types import Float64
from agentos_store.unset import UNSET, Unset, given

_LISTING = Listing(
    MemoryItem,
    filters={
        "scope": equals(MemoryItem.scope),
        "scope_id": equals(MemoryItem.scope_id),
        "type": equals(MemoryItem.type),
        "project_id": equals(MemoryItem.project_id),
        "created_after": at_least(MemoryItem.created_at),
        "created_before": below(MemoryItem.created_at),
        "tags": contains(MemoryItem.tags),
    },
    orders={"created_at": (ITEMS.c.created_at, ITEMS.c.id)},
    default="created_at",
)


class MemoryRepository(MemoryFinding[F], MemoryKeeping[F]):
    """Decisions, conventions, constraints, known issues: what is worth remembering, for whom, and how surely."""

    name = "memory"

    @writes_once
    @repeatable
    def remember(
        self,
        session: Session,
        content: Any,
        *,
        type: str,
        scope: str = "global",
        scope_id: str | None = None,
        tags: Sequence[str] = (),
        sources: Sequence[Any] = (),
        confidence: float = 0.5,
        project_id: str | None = None,
        retention_type: str = "project",
        expires_at: dt.datetime | None = None,
        auto_cleanup: bool = True,
        id: str | None = None,
    ) -> MemoryItem:
        """Remember a content, any JSON but ``null``; it can be found once this returns.

        The same content again, in the same scope and as the same type, is the first item, which learns: it has the
        tags and sources of both, the greater confidence, the stronger retention and the later expiry. What is global
        has no ``scope_id``; a project's is its ``project_id`` unless it is given. Raises NotFoundError for a project
        that does not exist, and AlreadyExistsError for an ``id`` of another content.
        """
        check_content(content)
        time = session.now()
        row = {
            "id": session.new_ulid() if id is None else id,
            "scope": scope,
            "scope_id": _place(scope, scope_id, project_id),
            "type": type,
            "content": content,
            "content_hash": content_hash(content),
            "tags": check_tags(tags),
            "sources": plain_json(sources),
            "confidence": _check_confidence(confidence),
            "project_id": project_id,
            "last_used_at": None,
            "use_count": 0,
            "decayed_at": time,
            "retention_type": retention_type,
            "expires_at": expires_at,
            "auto_cleanup": auto_cleanup,
            "created_at": time,
            "updated_at": time,
        }
        while True:
            try:
                made = _REMEMBER.first(session, row, document(row["id"], content, row["tags"]))
            except IntegrityViolation as violation:
                raise explain(violation, MemoryItem, row, session) from None
            if made is not None:
                return made
            found = session.first(SAME, row)
            if found is not None:
                if session.repeated and found.updated_at == time:
                    # An earlier try of this very call was committed, and its answer got lost.
                    return found
                changed = change(session, found.id, learnt(found, row), time=time, seen=found)
                if changed is not None:
                    return changed
            elif session.first(GET, row) is not None:
                raise AlreadyExistsError("memory item", row["id"])
            # Somebody was faster, or what stood in the way is gone by now.

    @reads
    def get(self, session: Session, id: str) -> MemoryItem:
        """Return the item, though it has expired; raise NotFoundError for an unknown identifier."""
        return required(session.first(GET, {"id": id}), id)

    @reads
    def find(self, session: Session, id: str) -> MemoryItem | None:
        """Return the item, or None."""
        return session.first(GET, {"id": id})

    @reads
    def exists(self, session: Session, id: str) -> bool:
        """Tell whether there is such an item."""
        return session.first(_EXISTS, {"id": id}) is not None

    @reads
    def list(
        self,
        session: Session,
        *,
        scope: str | None = None,
        scope_id: str | None = None,
        type: str | None = None,
        project_id: str | None = None,
        tags: Sequence[str] | None = None,
        created_after: dt.datetime | None = None,
        created_before: dt.datetime | None = None,
        order: str | None = None,
        limit: int = DEFAULT_LIMIT,
        cursor: str | None = None,
        offset: int = 0,
    ) -> Page[MemoryItem]:
        """Return a page of items, the oldest first, those included that have expired.

        ``tags`` keeps the items that have all of them; on SQLite it narrows what the other filters leave.
        """
        filters = {
            "scope": scope,
            "scope_id": scope_id,
            "type": type,
            "project_id": project_id,
            "tags": plain_json(tags),
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
        scope: str | None = None,
        scope_id: str | None = None,
        type: str | None = None,
        project_id: str | None = None,
        tags: Sequence[str] | None = None,
    ) -> int:
        """Return how many items pass the filters."""
        filters = {
            "scope": scope,
            "scope_id": scope_id,
            "type": type,
            "project_id": project_id,
            "tags": plain_json(tags),
        }
        return _LISTING.count(session, filters)

    @writes_once
    @repeatable
    def update(
        self,
        session: Session,
        id: str,
        *,
        content: Any | Unset = UNSET,
        tags: Sequence[str] | Unset = UNSET,
        sources: Sequence[Any] | Unset = UNSET,
        confidence: float | Unset = UNSET,
        project_id: str | None | Unset = UNSET,
        retention_type: str | Unset = UNSET,
        expires_at: dt.datetime | None | Unset = UNSET,
        auto_cleanup: bool | Unset = UNSET,
    ) -> MemoryItem:
        """Change what is given and leave the rest; what is found changes in the same moment.

        A confidence that is given fades from now on. Raises AlreadyExistsError for a content that another item of the
        scope and type has, and NotFoundError for a project that does not exist.
        """
        changes = given(
            content=content,
            tags=tags,
            sources=plain_json(sources),
            confidence=confidence,
            project_id=project_id,
            retention_type=retention_type,
            expires_at=expires_at,
            auto_cleanup=auto_cleanup,
        )
        time = session.now()
        if "content" in changes:
            check_content(content)
        if "tags" in changes:
            changes["tags"] = check_tags(changes["tags"])
        if "confidence" in changes:
            changes |= {"confidence": _check_confidence(confidence), "decayed_at": time}
        if not changes.keys() & {"content", "tags"}:
            return required(change(session, id, changes, time=time), id)
        while True:
            seen = required(session.first(GET, {"id": id}), id)
            if session.repeated and seen.updated_at == time:
                return seen
            changed = change(session, id, changes, time=time, seen=seen)
            if changed is not None:
                return changed
            # Somebody else changed it between the two statements.

    @writes_once
    @repeatable
    def delete(self, session: Session, id: str) -> None:
        """Forget the item for good."""
        if not _DELETE.all(session, {"id": id}) and not session.repeated:
            required(None, id)

    @writes_once
    def touch(self, session: Session, id: str) -> MemoryItem:
        """Count that the item was used; parallel uses are all counted."""
        return required(session.first(_TOUCH, {"id": id, "now": session.now()}), id)


_VALUES = {column.name: bindparam(column.name, type_=column.type) for column in ITEMS.c}
# One spelling serves both dialects; without a target it passes over any unique key that is taken.
_REMEMBER = Writing(
    postgresql.insert(ITEMS).values(_VALUES).on_conflict_do_nothing().returning(*ITEMS.c),
    returns=MemoryItem,
    kind=KIND,
)
_DELETE = Removing(delete(ITEMS).where(ITEMS.c.id == KEY).returning(*ITEMS.c), returns=MemoryItem, kind=KIND)
_EXISTS: Statement[Any] = Statement(select(literal(1)).where(ITEMS.c.id == KEY))
_NOW = bindparam("now", type_=ITEMS.c.updated_at.type)
_TOUCH: Statement[MemoryItem] = Statement(
    update(ITEMS)
    .where(ITEMS.c.id == KEY)
    .values(use_count=ITEMS.c.use_count + 1, last_used_at=_NOW, updated_at=_NOW)
    .returning(*ITEMS.c),
    returns=MemoryItem,
)


def _place(scope: str, scope_id: str | None, project_id: str | None) -> str | None:
    if scope == "global" and scope_id is not None:
        raise InvalidValueError("scope_id", "what is global has none")
    return project_id if scope == "project" and scope_id is None else scope_id


def check_tags(tags: object) -> list[str]:
    """Return the tags, each once; refuse what is no sequence of texts."""
    if isinstance(tags, str) or not isinstance(tags, Sequence):
        raise InvalidValueError("tags", "must be a sequence of texts")
    for number, tag in enumerate(tags):
        if not isinstance(tag, str):
            raise InvalidValueError(f"tags[{number}]", "is no text")
    return union(tags)


_CONFIDENCE = Float64()


def _check_confidence(value: object) -> float:
    confidence = _CONFIDENCE.check(value, "confidence")
    if not 0 <= confidence <= 1:
        raise InvalidValueError("confidence", "must be from 0 to 1")
    return confidence
