"""Writing knowledge: sources once, which the ledger tells, and their chunks while nobody has indexed them anew."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from sqlalchemy import bindparam, update

from agentos_store.engine.session import Session
from agentos_store.engine.statement import Statement
from agentos_store.errors import NotFoundError
from agentos_store.importers.agentos.ledger import enter, entered
from agentos_store.importers.agentos.records import ChunkRecord, EmbeddingRecord, SourceRecord
from agentos_store.importers.agentos.shapes import ORIGIN_KEY
from agentos_store.importers.report import Note
from agentos_store.importers.row import add_origin
from agentos_store.importers.writing import NewRow, Outcome, add_rows, asking, stored
from agentos_store.knowledge.models import KbChunk, KbEmbedding, KbModel, KbSource
from agentos_store.knowledge.replacing import KIND, hash_of, texts_of
from agentos_store.knowledge.repository import KnowledgeRepository
from agentos_store.knowledge.sources import hold
from agentos_store.operation import Repository
from agentos_store.projects.models import Project
from agentos_store.search.index import put
from agentos_store.search.parts import indexed


def write_sources(session: Session, records: Sequence[SourceRecord]) -> Outcome:
    """Write sources; what the store has of a path stays, and the registry's source of that path is set aside."""
    outcome = Outcome()
    known = entered(session, "source", [record.source_id for record in records])
    there = stored(session, _SOURCES_THERE, [record.source_id for record in records])
    projects = stored(session, _PROJECTS_THERE, [record.project_id for record in records])
    rows: dict[int, NewRow] = {}
    for position, record in enumerate(records):
        project_id, metadata = record.project_id, record.metadata
        if project_id is not None and project_id not in projects:
            why = "project_id: the project was set aside; the id is in the metadata"
            outcome.change(position, Note("kb_sources", record.source_id, why))
            metadata = add_origin(metadata, ORIGIN_KEY, {"project_id": project_id})
            project_id = None
        if record.source_id in known:
            continue
        if record.source_id in there:
            why = "the store has another source with this key, and keeps it"
            outcome.refused[position] = Note("kb_sources", record.source_id, why)
            continue
        rows[position] = NewRow(
            "kb_sources",
            record.source_id,
            {
                "source_id": record.source_id,
                "project_id": project_id,
                "source_type": record.source_type,
                "source_path": record.source_path,
                "content_hash": record.content_hash,
                "indexed_at": record.indexed_at,
                "metadata": metadata,
            },
        )
    add_rows(session, KbSource, rows, outcome)
    came_in = stored(session, _SOURCES_THERE, [row.key for row in rows.values()])
    for position in rows.keys() - outcome.refused.keys():
        record = records[position]
        if record.source_id not in came_in:
            why = "the store has a source of this path already, and keeps that one"
            outcome.refused[position] = Note("kb_sources", record.source_id, why)
    fresh = [records[position] for position in rows if position not in outcome.refused]
    enter(session, "source", {record.source_id: (record.source_id, _state(record.indexed_at)) for record in fresh})
    return outcome


def write_chunks(session: Session, records: Sequence[ChunkRecord]) -> Outcome:
    """Write chunks and index them."""
    outcome = Outcome()
    sources = _held(session, (record.source_id for record in records))
    known = entered(session, "source", [record.source_id for record in records])
    there = stored(session, _CHUNKS_THERE, [record.chunk_id for record in records])
    rows: dict[int, NewRow] = {}
    for position, record in enumerate(records):
        source, why = sources.get(record.source_id), None
        if source is None or record.source_id not in known:
            why = "its source was set aside, or was deleted in the store"
        elif record.chunk_id in there:
            if there[record.chunk_id] != record.source_id:
                why = "another source of the store has a chunk with this key"
        elif known[record.source_id][1] != _state(source.indexed_at):
            # What it would bring back is what somebody has replaced.
            why = "its source was indexed anew in the store"
        else:
            rows[position] = NewRow(
                "kb_chunks",
                record.chunk_id,
                {
                    "chunk_id": record.chunk_id,
                    "source_id": record.source_id,
                    "content": record.content,
                    "chunk_index": record.chunk_index,
                    "heading": record.heading,
                    "start_line": record.start_line,
                    "end_line": record.end_line,
                    "token_count": record.token_count,
                    "content_hash": hash_of(record.heading, record.content),
                    "metadata": record.metadata,
                    "created_at": record.created_at,
                },
            )
        if why is not None:
            outcome.refused[position] = Note("kb_chunks", record.chunk_id, why)
    add_rows(session, KbChunk, rows, outcome)
    came_in = [row.values for position, row in rows.items() if position not in outcome.refused]
    put(
        session,
        KIND,
        [indexed(chunk["chunk_id"], texts_of(chunk["heading"], chunk["content"])) for chunk in came_in],
    )
    return outcome


def write_embeddings(repository: Repository[Any], session: Session, records: Sequence[EmbeddingRecord]) -> Outcome:
    """Write embeddings of chunks that the store has; one that it has already, of the same model, stays."""
    outcome = Outcome()
    chunks = stored(session, _CHUNKS_THERE, [record.chunk_id for record in records])
    models = stored(session, _MODELS_THERE, [record.model_name for record in records])
    new: dict[str, list[EmbeddingRecord]] = {}
    for position, record in enumerate(records):
        dimensions = models.get(record.model_name, record.dimensions)
        why: str | None = None
        if record.chunk_id not in chunks:
            why = "its chunk was set aside, or is gone in the store"
        elif dimensions != record.dimensions:
            why = f"its vector has {record.dimensions} dimensions, where the store's of the model have {dimensions}"
        else:
            new.setdefault(record.model_name, []).append(record)
        if why is not None:
            outcome.refused[position] = Note("kb_embeddings", record.chunk_id, why)
    for model_name, batch in sorted(new.items()):
        keys = [record.chunk_id for record in batch]
        there = stored(session, _EMBEDDINGS_THERE, keys, model_name=model_name)
        fresh = [record for record in batch if record.chunk_id not in there]
        outcome.imported += KnowledgeRepository.add_embeddings(
            repository,
            session,
            model_name,
            {record.chunk_id: record.embedding for record in fresh},
            made_of={record.chunk_id: record.content_hash for record in fresh},
        )
        made = [
            {"chunk_id": record.chunk_id, "model_name": model_name, "new_created_at": record.created_at}
            for record in fresh
        ]
        session.execute_many(_SET_CREATED, made)
    return outcome


def _held(session: Session, keys: Iterable[str]) -> dict[str, KbSource]:
    """Return the sources that there are, as they will stay until the commit."""
    found: dict[str, KbSource] = {}
    # In the order of the keys, so that two that run at once do not wait for each other.
    for key in sorted(set(keys)):
        try:
            found[key] = hold(session, key)
        except NotFoundError:
            continue
    return found


def _state(indexed_at: Any) -> str:
    return "" if indexed_at is None else str(indexed_at.isoformat())


_PROJECTS = Project.table()
_SOURCES = KbSource.table()
_CHUNKS = KbChunk.table()
_MODELS = KbModel.table()
_EMBEDDINGS = KbEmbedding.table()
_PROJECTS_THERE = asking(_PROJECTS.c.id, _PROJECTS.c.id)
_MODELS_THERE = asking(_MODELS.c.model_name, _MODELS.c.dimensions)
_IS_MODEL = _EMBEDDINGS.c.model_name == bindparam("model_name", type_=_EMBEDDINGS.c.model_name.type)
_EMBEDDINGS_THERE = asking(_EMBEDDINGS.c.chunk_id, _EMBEDDINGS.c.chunk_id, _IS_MODEL)
_SET_CREATED: Statement[Any] = Statement(
    update(_EMBEDDINGS)
    .where(_EMBEDDINGS.c.chunk_id == bindparam("chunk_id", type_=_EMBEDDINGS.c.chunk_id.type), _IS_MODEL)
    .values(created_at=bindparam("new_created_at", type_=_EMBEDDINGS.c.created_at.type))
)
_SOURCES_THERE = asking(_SOURCES.c.source_id, _SOURCES.c.source_id)
_CHUNKS_THERE = asking(_CHUNKS.c.chunk_id, _CHUNKS.c.source_id)
