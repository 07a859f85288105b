"""Rows of kb_embeddings and kb_models: how they are read, and written together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Column, bindparam, delete, exists, func, select, true
from sqlalchemy.dialects import postgresql

from agentos_store.engine.among import searched
from agentos_store.engine.recordset import recordset
from agentos_store.engine.session import Session
from agentos_store.engine.statement import Statement
from agentos_store.knowledge.models import KbEmbedding, KbModel
from agentos_store.knowledge.replacing import CHUNKS
from agentos_store.search.keys import keys_in
from agentos_store.types import Int64, Text

MODELS = KbModel.table()
EMBEDDINGS = KbEmbedding.table()

_MODEL_NAME = bindparam("model_name", type_=MODELS.c.model_name.type)
_OF_SOURCE = CHUNKS.c.source_id == bindparam("source_id", type_=CHUNKS.c.source_id.type)

MODEL: Statement[Any] = Statement(select(MODELS.c.dimensions).where(MODELS.c.model_name == _MODEL_NAME))
LIST_MODELS: Statement[KbModel] = Statement(select(MODELS).order_by(MODELS.c.model_name), returns=KbModel)
DELETE_MODEL: Statement[Any] = Statement(
    delete(MODELS).where(MODELS.c.model_name == _MODEL_NAME).returning(MODELS.c.model_name)
)
FIND: Statement[KbEmbedding] = Statement(
    select(EMBEDDINGS).where(
        EMBEDDINGS.c.chunk_id == bindparam("chunk_id", type_=EMBEDDINGS.c.chunk_id.type),
        EMBEDDINGS.c.model_name == _MODEL_NAME,
    ),
    returns=KbEmbedding,
)

_keys = keys_in("keys")
HASHES: Statement[Any] = Statement(
    select(CHUNKS.c.chunk_id, CHUNKS.c.content_hash).select_from(
        _keys.join(CHUNKS, searched(CHUNKS.c.chunk_id, _keys.c.value))
    )
)


def _bind(name: str) -> Any:
    return bindparam(name, type_=(MODELS.c if name in MODELS.c else EMBEDDINGS.c)[name].type)


_MODEL_COLUMNS = ("model_name", "dimensions", "revision", "created_at")


def _upsert_model(statement: Any) -> Any:
    # One spelling serves both dialects. A model of other dimensions is left as it is, and not returned.
    new = statement.excluded
    return statement.on_conflict_do_update(
        index_elements=["model_name"], set_={"revision": new.revision}, where=MODELS.c.dimensions == new.dimensions
    ).returning(MODELS.c.model_name)


def _upsert(statement: Any) -> Any:
    names = ("dimensions", "embedding", "content_hash", "revision", "created_at")
    return statement.on_conflict_do_update(
        index_elements=["chunk_id", "model_name"], set_={name: statement.excluded[name] for name in names}
    )


_PUT_MODEL: Statement[Any] = Statement(
    _upsert_model(postgresql.insert(MODELS).values({name: _bind(name) for name in _MODEL_COLUMNS}))
)
_PUT: Statement[Any] = Statement(
    _upsert(postgresql.insert(EMBEDDINGS).values({column.name: _bind(column.name) for column in EMBEDDINGS.c}))
)


def _write() -> Statement[Any]:
    """All of it in one statement, for databases where a statement can change several tables."""
    names = ("chunk_id", "embedding", "content_hash")
    rows, given = recordset("given", [Column(name, EMBEDDINGS.c[name].type) for name in names])
    # Held until the commit, so that none of them is deleted while its embedding is written.
    held = (
        select(
            CHUNKS.c.chunk_id,
            given["embedding"].label("embedding"),
            func.coalesce(given["content_hash"], CHUNKS.c.content_hash).label("content_hash"),
        )
        .select_from(rows.join(CHUNKS, searched(CHUNKS.c.chunk_id, given["chunk_id"])))
        .order_by(CHUNKS.c.chunk_id)
        .with_for_update(read=True, key_share=True, of=CHUNKS)
        .cte("held")
    )
    count = select(func.count()).select_from(held).scalar_subquery()
    model_row = select(*(_bind(name) for name in _MODEL_COLUMNS)).where(
        count > 0, count >= bindparam("least", type_=Int64())
    )
    of_model = postgresql.insert(MODELS).from_select(_MODEL_COLUMNS, model_row, include_defaults=False)
    model = _upsert_model(of_model).cte("model")
    values = {column.name: _bind(column.name) for column in EMBEDDINGS.c if column.name not in names}
    values |= {name: held.c[name] for name in names}
    columns = list(EMBEDDINGS.c)
    selected = select(*(values[column.name] for column in columns)).select_from(held.join(model, true()))
    written = _upsert(postgresql.insert(EMBEDDINGS).from_select(columns, selected, include_defaults=False))
    query = select(exists(select(model.c.model_name)), count)
    return Statement(query.add_cte(written.cte("written")), writes=True)


_WRITE = _write()


def _unembedded(*conditions: Any) -> Statement[Any]:
    fresh = exists().where(
        searched(EMBEDDINGS.c.chunk_id, CHUNKS.c.chunk_id),
        EMBEDDINGS.c.model_name == _MODEL_NAME,
        EMBEDDINGS.c.content_hash == CHUNKS.c.content_hash,
    )
    query = (
        select(CHUNKS.c.chunk_id, CHUNKS.c.heading, CHUNKS.c.content, CHUNKS.c.content_hash)
        .where(CHUNKS.c.chunk_id > bindparam("after", type_=Text()), ~fresh, *conditions)
        .order_by(CHUNKS.c.chunk_id)
        .limit(bindparam("limit_"))
    )
    return Statement(query)


UNEMBEDDED = _unembedded()
UNEMBEDDED_OF_SOURCE = _unembedded(_OF_SOURCE)


def _missing(*conditions: Any) -> Statement[Any]:
    found = exists().where(EMBEDDINGS.c.chunk_id == CHUNKS.c.chunk_id, EMBEDDINGS.c.model_name == _MODEL_NAME)
    return Statement(select(func.count()).select_from(CHUNKS).where(~found, *conditions))


MISSING = _missing()
MISSING_OF_SOURCE = _missing(_OF_SOURCE)


def _stale(*conditions: Any) -> Statement[Any]:
    query = (
        select(EMBEDDINGS.c.chunk_id, EMBEDDINGS.c.model_name)
        .join_from(EMBEDDINGS, CHUNKS, EMBEDDINGS.c.chunk_id == CHUNKS.c.chunk_id)
        .where(EMBEDDINGS.c.content_hash != CHUNKS.c.content_hash, *conditions)
        .order_by(EMBEDDINGS.c.chunk_id, EMBEDDINGS.c.model_name)
        .limit(bindparam("limit_"))
    )
    return Statement(query)


STALE = _stale()
STALE_OF_MODEL = _stale(EMBEDDINGS.c.model_name == _MODEL_NAME)


def write(session: Session, binds: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> tuple[bool, int]:
    """Write embeddings of the chunks that are there, if there are enough of them and the dimensions are the model's.

    Return whether it was done, and how many of the chunks there are.
    """
    if not session.capabilities.data_modifying_cte:
        return _write_one_by_one(session, binds, rows)
    found: tuple[bool, int] | None = session.first(_WRITE, {**binds, "given": rows})
    assert found is not None
    return found


def _write_one_by_one(
    session: Session, binds: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]
) -> tuple[bool, int]:
    hashes = dict(session.all(HASHES, {"keys": [row["chunk_id"] for row in rows]}))
    there = [row for row in rows if row["chunk_id"] in hashes]
    if not there or len(there) < binds["least"] or session.first(_PUT_MODEL, binds) is None:
        return False, len(there)
    session.execute_many(
        _PUT, [{**binds, **row, "content_hash": row["content_hash"] or hashes[row["chunk_id"]]} for row in there]
    )
    return True, len(there)
