"""Operations on the documents that agents keep: written whole, read whole, and counted with each writing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy import bindparam, delete, literal, select, text, update
from sqlalchemy.dialects import postgresql

from agentos_store.agents.models import Agent, AgentDocument
from agentos_store.engine.session import Session
from agentos_store.engine.statement import Statement, plain_json
from agentos_store.engine.violations import IntegrityViolation, explain
from agentos_store.errors import ConflictError, NotFoundError
from agentos_store.operation import F, Repository, reads, repeatable, walks, writes_once
from agentos_store.page import DEFAULT_LIMIT, Filter, Listing, Page, equals
from agentos_store.types import Boolean, check_whole
from agentos_store.unset import UNSET, Unset

_AGENTS = Agent.table()
_DOCUMENTS = AgentDocument.table()
_AGENT = bindparam("agent_id", type_=_DOCUMENTS.c.agent_id.type)
_OPEN_AGENT: Any = select(_AGENTS.c.agent_id).where(_AGENTS.c.agent_id == _AGENT, _AGENTS.c.deleted_at.is_(None))

ONLY = "main"
"""The key where an agent has one document of a kind."""

_LISTING = Listing(
    AgentDocument,
    filters={
        "agent_id": equals(AgentDocument.agent_id),
        "kind": equals(AgentDocument.kind),
        "open": Filter(Boolean(), lambda _: _OPEN_AGENT.exists()),
    },
    # Unique within an agent, and an agent is always given.
    orders={"key": (_DOCUMENTS.c.kind, _DOCUMENTS.c.key)},
    default="key",
)


class DocumentRepository(Repository[F]):
    """What agents keep for themselves: todos, history windows, compressions, recovered files, the media cache."""

    name = "documents"

    @writes_once
    @repeatable
    def save(
        self,
        session: Session,
        agent_id: str,
        kind: str,
        key: str = ONLY,
        *,
        content: Any,
        metadata: Mapping[str, Any] | Unset = UNSET,
        version: int | None = None,
    ) -> AgentDocument:
        """Write a document whole, and return it with its new version; ``metadata`` that is left out stays.

        ``content`` is any JSON value and comes back exactly as it was given. With ``version``, only if the document is
        still at it, where 0 says that there is none yet; else ConflictError. Without it the last one to write wins,
        and each writing counts. Raises NotFoundError for an agent that is unknown or softly deleted.
        """
        if version is not None:
            check_whole("version", version, 0)
        time = session.now()
        key_ = {"agent_id": agent_id, "kind": kind, "key": key}
        with_metadata = not isinstance(metadata, Unset)
        row = key_ | {
            "content": content,
            "metadata": plain_json(metadata) if with_metadata else {},
            "version": 1,
            "created_at": time,
            "updated_at": time,
        }
        if session.repeated:
            found = session.first(_GET, key_)
            # The time was drawn for this call alone: an earlier try of it was committed, and its answer got lost.
            if found is not None and found.updated_at == time:
                return found
        try:
            if version is None:
                saved = session.first(_SAVE[with_metadata], row)
            elif version == 0:
                saved = session.first(_ADD, row)
            else:
                changes = {f"new_{name}": row[name] for name in ("metadata", "updated_at")}
                saved = session.first(_REPLACE[with_metadata], row | changes | {"given_version": version})
        except IntegrityViolation as violation:
            raise explain(violation, AgentDocument, row, session) from None
        if saved is not None:
            return saved
        if session.first(_HAS_AGENT, key_) is None:
            raise NotFoundError("agent", agent_id)
        there = session.first(_GET, key_)
        if there is None:
            raise NotFoundError("document", (agent_id, kind, key))
        why = f"it is at version {there.version}, not {version}"
        raise ConflictError("document", (agent_id, kind, key), why)

    @reads
    def get(self, session: Session, agent_id: str, kind: str, key: str = ONLY) -> AgentDocument:
        """Return the document, whose agent may be softly deleted; raise NotFoundError when there is none."""
        found = session.first(_GET, {"agent_id": agent_id, "kind": kind, "key": key})
        if found is None:
            raise NotFoundError("document", (agent_id, kind, key))
        return found

    @reads
    def find(self, session: Session, agent_id: str, kind: str, key: str = ONLY) -> AgentDocument | None:
        """Return the document, or None."""
        return session.first(_GET, {"agent_id": agent_id, "kind": kind, "key": key})

    @reads
    def exists(self, session: Session, agent_id: str, kind: str, key: str = ONLY) -> bool:
        """Tell whether there is such a document."""
        return session.first(_EXISTS, {"agent_id": agent_id, "kind": kind, "key": key}) is not None

    @reads
    def list(
        self,
        session: Session,
        agent_id: str,
        *,
        kind: str | None = None,
        include_deleted: bool = False,
        order: str | None = None,
        limit: int = DEFAULT_LIMIT,
        cursor: str | None = None,
        offset: int = 0,
    ) -> Page[AgentDocument]:
        """Return a page of the agent's documents, by kind and key; ``order="-key"`` turns that round.

        Those of a softly deleted agent are left out unless ``include_deleted``.
        """
        filters = {"agent_id": agent_id, "kind": kind, "open": None if include_deleted else True}
        return _LISTING.page(session, filters, order=order, limit=limit, cursor=cursor, offset=offset)

    iterate = walks(list)

    @reads
    def count(self, session: Session, agent_id: str, *, kind: str | None = None, include_deleted: bool = False) -> int:
        """Return how many documents the agent has."""
        return _LISTING.count(session, {"agent_id": agent_id, "kind": kind, "open": None if include_deleted else True})

    @writes_once
    @repeatable
    def delete(self, session: Session, agent_id: str, kind: str, key: str = ONLY) -> None:
        """Remove a document; raise NotFoundError when there is none."""
        if session.execute(_DELETE, {"agent_id": agent_id, "kind": kind, "key": key}) == 0 and not session.repeated:
            raise NotFoundError("document", (agent_id, kind, key))


_THIS = (
    _DOCUMENTS.c.agent_id == _AGENT,
    _DOCUMENTS.c.kind == bindparam("kind", type_=_DOCUMENTS.c.kind.type),
    _DOCUMENTS.c.key == bindparam("key", type_=_DOCUMENTS.c.key.type),
)
_GET: Statement[AgentDocument] = Statement(select(_DOCUMENTS).where(*_THIS), returns=AgentDocument)
_EXISTS: Statement[Any] = Statement(select(literal(1)).where(*_THIS))
_HAS_AGENT: Statement[Any] = Statement(_OPEN_AGENT)
_DELETE: Statement[Any] = Statement(delete(_DOCUMENTS).where(*_THIS))


_CALLED = {"given_version": "version"}


def _insert() -> Any:
    values = {c.name: bindparam(c.name, type_=c.type) for c in _DOCUMENTS.c}
    source = select(*values.values()).select_from(_AGENTS)
    source = source.where(_AGENTS.c.agent_id == _AGENT, text(f"{_AGENTS.name}.deleted_at IS NULL"))
    # One spelling serves both dialects.
    return postgresql.insert(_DOCUMENTS).from_select([*values], source, include_defaults=False)


def _changes(source: Any, *, with_metadata: bool) -> dict[str, Any]:
    names = ["content", "updated_at", *(["metadata"] if with_metadata else [])]
    return {name: source(name) for name in names} | {"version": _DOCUMENTS.c.version + 1}


def _save(*, with_metadata: bool) -> Statement[AgentDocument]:
    query = _insert()
    query = query.on_conflict_do_update(
        index_elements=[*_DOCUMENTS.primary_key.columns],
        set_=_changes(lambda name: query.excluded[name], with_metadata=with_metadata),
    )
    return Statement(query.returning(*_DOCUMENTS.c), returns=AgentDocument, called=_CALLED)


def _replace(*, with_metadata: bool) -> Statement[AgentDocument]:
    changes = _changes(
        lambda name: bindparam(f"new_{name}", type_=_DOCUMENTS.c[name].type),
        with_metadata=with_metadata,
    )
    version = bindparam("given_version", type_=_DOCUMENTS.c.version.type)
    changes["content"] = bindparam("content", type_=_DOCUMENTS.c.content.type)
    query = update(_DOCUMENTS).where(*_THIS, _DOCUMENTS.c.version == version, _OPEN_AGENT.exists())
    called = _CALLED | {f"new_{name}": name for name in changes}
    return Statement(query.values(changes).returning(*_DOCUMENTS.c), returns=AgentDocument, called=called)


_SAVE = {with_metadata: _save(with_metadata=with_metadata) for with_metadata in (False, True)}
_REPLACE = {with_metadata: _replace(with_metadata=with_metadata) for with_metadata in (False, True)}
_ADD: Statement[AgentDocument] = Statement(
    _insert().on_conflict_do_nothing().returning(*_DOCUMENTS.c), returns=AgentDocument, called=_CALLED
)
