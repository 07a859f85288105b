"""Giving a source its chunks: what stayed keeps its key, its embeddings and its place in the index of words."""

from __future__ import annotations

import datetime as dt
import hashlib
from collections import defaultdict, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import bindparam, delete, func, insert, select, update

from agentos_store.engine.recordset import recordset
from agentos_store.engine.session import Session
from agentos_store.engine.statement import Statement, build_model, insert_into, plain_json
from agentos_store.errors import InvalidValueError
from agentos_store.knowledge.chunks import NewChunk
from agentos_store.knowledge.models import KbChunk
from agentos_store.knowledge.sources import alike
from agentos_store.search import index
from agentos_store.search.index import remove
from agentos_store.search.parts import indexed
from agentos_store.search.sources import Source
from agentos_store.types import Int64, JSONValue, Text, new_ulid

KIND = "chunk"
CHUNKS = KbChunk.table()
CHUNK_KEY = bindparam("chunk_id", type_=CHUNKS.c.chunk_id.type)
OF_SOURCE = CHUNKS.c.source_id == bindparam("source_id", type_=CHUNKS.c.source_id.type)


@dataclass(frozen=True, slots=True)
class Replaced:
    """What giving a source its chunks did."""

    added: int
    kept: int
    """Chunks whose text and heading stayed, though they may have moved."""
    removed: int


def texts_of(heading: str | None, content: str) -> list[str]:
    """Return what is searched of a chunk."""
    return [content] if heading is None else [heading, content]


def embedded_text(heading: str | None, content: str) -> str:
    """Return what is embedded of a chunk: its headings, an empty line and its content."""
    return "\n\n".join(texts_of(heading, content))


def hash_of(heading: str | None, content: str) -> str:
    """Return the SHA-256 of what is embedded."""
    return hashlib.sha256(embedded_text(heading, content).encode("utf-8", "surrogatepass")).hexdigest()


SOURCE = Source(KIND, KbChunk, lambda chunk: texts_of(chunk.heading, chunk.content))
"""What is searched of a chunk, for the index to be made again."""


def replace(session: Session, source_id: str, rows: Sequence[Mapping[str, Any]], now: dt.datetime) -> Replaced:
    """Make the source, which the transaction holds, consist of these chunks; write only what is otherwise."""
    old = [dict(zip(_OLD_NAMES, row, strict=True)) for row in session.all(_OLD, {"source_id": source_id})]
    waiting: defaultdict[tuple[Any, Any], deque[dict[str, Any]]] = defaultdict(deque)
    for each in old:
        waiting[each["heading"], each["content_hash"]].append(each)
    new: list[Mapping[str, Any]] = []
    moved: list[Mapping[str, Any]] = []
    for row in rows:
        same = waiting[row["heading"], row["content_hash"]]
        if not same:
            new.append(row)
        elif _differs(found := same.popleft(), row):
            moved.append({f"new_{name}": row[name] for name in _MOVES} | {"chunk_id": found["chunk_id"]})
    # In one order, in which who embeds them holds them too.
    gone = sorted(each["chunk_id"] for left in waiting.values() for each in left)
    remove(session, KIND, gone)
    session.execute_many(_DELETE, [{"chunk_id": key} for key in gone])
    session.execute_many(_MOVE, moved)
    add(session, source_id, new, now)
    return Replaced(len(new), len(rows) - len(new), len(gone))


def add(session: Session, source_id: str, rows: Sequence[Mapping[str, Any]], now: dt.datetime) -> list[KbChunk]:
    """Add chunks to a source that the transaction holds, and index them."""
    if not rows:
        return []
    # Keys that are not drawn from the session: a second try may find others to be new, and would mix them up.
    complete = [{**row, "chunk_id": new_ulid(), "source_id": source_id, "created_at": now} for row in rows]
    if session.capabilities.data_modifying_cte:
        session.execute(_INSERT_ROWS, {"added": complete})
    else:
        session.execute_many(_INSERT, complete)
    index.add(session, KIND, [indexed(row["chunk_id"], texts_of(row["heading"], row["content"])) for row in complete])
    return [build_model(KbChunk, row) for row in complete]


def checked(chunks: Sequence[NewChunk], first: int = 0) -> list[dict[str, Any]]:
    """Return the chunks by column, numbered from here; raise InvalidValueError, with its place, for what is refused."""
    if not isinstance(chunks, Sequence):
        raise InvalidValueError("chunks", "is no sequence of chunks")
    return [_checked(chunk, place, place + first) for place, chunk in enumerate(chunks)]


def _checked(chunk: object, place: int, index: int) -> dict[str, Any]:
    here = f"chunks[{place}]"
    if not isinstance(chunk, NewChunk):
        raise InvalidValueError(here, "is no NewChunk")
    content = CONTENT.check(chunk.content, f"{here}.content")
    heading = None if chunk.heading is None else HEADING.check(chunk.heading, f"{here}.heading")
    start, end = (_number(chunk, name, 1, here) for name in ("start_line", "end_line"))
    if end is not None and start is not None and end < start:
        raise InvalidValueError(f"{here}.end_line", "is before start_line")
    return {
        "content": content,
        "chunk_index": index,
        "heading": heading,
        "start_line": start,
        "end_line": end,
        "token_count": _number(chunk, "token_count", 0, here),
        "content_hash": hash_of(heading, content),
        "metadata": METADATA.check(plain_json(chunk.metadata), f"{here}.metadata"),
    }


CONTENT = Text(min_length=1)
HEADING = Text()
_NUMBER = Int64()
METADATA = JSONValue("object")


def _number(chunk: NewChunk, name: str, least: int, here: str) -> int | None:
    value = getattr(chunk, name)
    if value is None:
        return None
    number = _NUMBER.check(value, f"{here}.{name}")
    if number < least:
        raise InvalidValueError(f"{here}.{name}", f"must be {least} or more")
    return number


def _differs(old: Mapping[str, Any], new: Mapping[str, Any]) -> bool:
    return any(old[name] != new[name] for name in _MOVES) or not alike(old["metadata"], new["metadata"])


_MOVES = ("chunk_index", "start_line", "end_line", "token_count", "metadata")
"""What may change of a chunk that stays."""

_OLD_NAMES = ("chunk_id", "heading", "content_hash", *_MOVES)
_OLD: Statement[Any] = Statement(
    select(*(CHUNKS.c[name] for name in _OLD_NAMES)).where(OF_SOURCE).order_by(CHUNKS.c.chunk_index, CHUNKS.c.chunk_id)
)
_DELETE: Statement[Any] = Statement(delete(CHUNKS).where(CHUNKS.c.chunk_id == CHUNK_KEY))
_MOVE: Statement[Any] = Statement(
    update(CHUNKS)
    .where(CHUNKS.c.chunk_id == CHUNK_KEY)
    .values({name: bindparam(f"new_{name}", type_=CHUNKS.c[name].type) for name in _MOVES}),
    called={f"new_{name}": name for name in _MOVES},
)
_INSERT: Statement[Any] = Statement(insert_into(KbChunk))


def _insert_rows() -> Statement[Any]:
    columns = list(CHUNKS.c)
    rows, values = recordset("added", columns)
    selected = select(*(values[column.name] for column in columns)).select_from(rows)
    return Statement(insert(CHUNKS).from_select(columns, selected, include_defaults=False))


_INSERT_ROWS = _insert_rows()

COUNT: Statement[Any] = Statement(select(func.count()).select_from(CHUNKS).where(OF_SOURCE))
NEXT_INDEX: Statement[Any] = Statement(select(func.coalesce(func.max(CHUNKS.c.chunk_index), -1) + 1).where(OF_SOURCE))
KEYS: Statement[Any] = Statement(select(CHUNKS.c.chunk_id).where(OF_SOURCE))
