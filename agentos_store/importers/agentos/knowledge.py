"""Knowledge: sources, their chunks, and what models make of those."""

from __future__ import annotations

from typing import Final

from agentos_store.errors import InvalidValueError
from agentos_store.importers.agentos.literals import read_tags
from agentos_store.importers.agentos.records import ChunkRecord, EmbeddingRecord, SourceRecord
from agentos_store.importers.agentos.references import PATH_BYTES, References, pair, path_of
from agentos_store.importers.jsontext import JSON
from agentos_store.importers.problems import SetAside
from agentos_store.importers.row import KEY_LENGTH, Row, ulid_time
from agentos_store.knowledge.replacing import hash_of
from agentos_store.types import Float32Vector
from agentos_store.types.float32_vector import BYTES

HASH_LENGTH: Final = 255
DIGEST_LENGTH: Final = 64

_SOURCE_TYPES: Final = frozenset({"file", "directory", "url"})


def read_source(row: Row, references: References, ids: str, paths: str, project: str | None) -> SourceRecord:
    """Make the record from either shape.

    ``ids`` and ``paths`` are the sets of those that are taken, ``project`` is that of sources whose own is not known.
    """
    source_id = row.identifier("source_id")
    agentos = row.has_column("path")
    path = path_of(row)
    if not references.keys.add(ids, source_id):
        raise SetAside("an earlier row has the same source_id")
    project_id = _project(row, references) or project
    metadata = _file_metadata(row) if agentos else row.object("metadata")
    indexed = "updated_at" if agentos else "indexed_at"
    return SourceRecord(
        source_id=source_id,
        project_id=project_id,
        source_type="file" if agentos else _source_type(row),
        source_path=_unique_path(row, references, paths, project_id, path),
        content_hash=_hash(row, "file_hash", HASH_LENGTH),
        indexed_at=row.first_time(indexed, "created_at", otherwise=ulid_time(source_id) or references.around),
        # Last, for it takes along what the other fields have kept.
        metadata=row.with_origin(metadata) or {},
        repairs=row.repairs,
    )


def chunk_place(row: Row, references: References, ids: str) -> tuple[str, int]:
    """Return a chunk's source, and the number by which the chunks of one source are in order; ``ids`` are taken."""
    chunk_id = row.identifier("chunk_id")
    source_id = row.identifier("source_id")
    if not references.has_source(source_id):
        raise SetAside("its source is not in the registry")
    if not row.text("content"):
        raise SetAside("it has no content")
    if not references.keys.add(ids, chunk_id):
        raise SetAside("an earlier row has the same chunk_id")
    return source_id, row.whole("chunk_index" if row.has_column("chunk_index") else "start_line", otherwise=0)


def read_chunk(row: Row, references: References, source_id: str, index: int) -> ChunkRecord:
    """Make the record of a row that has its place; ``index`` is its rank within its source."""
    chunk_id = row.identifier("chunk_id")
    if row.has_column("chunk_index") and (found := row.shown("chunk_index")) != index:
        row.repaired(f"chunk_index: {found!r} became {index}, its rank")
    first, last = _line(row, "start_line", 1), _line(row, "end_line", 1)
    if first is not None and last is not None and last < first:
        row.repaired(f"end_line: {last} is before the first line, so it became {first}")
        last = first
    metadata = row.object("metadata")
    created_at = row.first_time("created_at", otherwise=ulid_time(chunk_id) or references.around)
    return ChunkRecord(
        chunk_id=chunk_id,
        source_id=source_id,
        content=row.text("content") or "",
        chunk_index=index,
        heading=row.text("heading") or None,
        start_line=first,
        # Without a first line it is no range.
        end_line=last,
        token_count=_line(row, "token_count", 0),
        created_at=created_at,
        # Last, for it takes along what the other fields have kept.
        metadata=row.with_origin(metadata) or {},
        repairs=row.repairs,
    )


def read_embedding(row: Row, references: References, taken: str, dimensions: dict[str, int]) -> EmbeddingRecord:
    """Make the record; ``taken`` is the set of those there are, ``dimensions`` those of each model seen so far."""
    chunk_id = row.identifier("chunk_id")
    agentos = row.has_column("vector")
    model = row.required("model" if agentos else "model_name", KEY_LENGTH)
    chunk = references.chunk(chunk_id)
    if chunk is None:
        raise SetAside("its chunk is not in the registry")
    column = "vector" if agentos else "embedding"
    try:
        vector = _VECTOR.check(row.raw(column), f"its {column}")
    except InvalidValueError as error:
        raise SetAside(str(error)) from None
    count = len(vector) // BYTES
    if agentos and (told := row.whole("dims", otherwise=count)) != count:
        raise SetAside(f"its vector has {count} dimensions, where {told} are told")
    if count != dimensions.setdefault(model, count):
        raise SetAside(f"its vector has {count} dimensions, where others of the model have {dimensions[model]}")
    if not references.keys.add(taken, pair(chunk_id, model)):
        raise SetAside("an earlier row is the same chunk's, of the same model")
    time = "built_at" if agentos else "created_at"
    created_at = row.first_time(time, otherwise=chunk.time("created_at") or references.around)
    return EmbeddingRecord(
        chunk_id=chunk_id,
        model_name=model,
        dimensions=count,
        embedding=vector,
        content_hash=_embedded_hash(row, chunk),
        created_at=created_at,
        repairs=row.repairs,
    )


def _project(row: Row, references: References) -> str | None:
    if row.has_column("repo_id"):
        repo_id = row.text("repo_id")
        return references.project_of_repo(repo_id) if repo_id else None
    project_id = row.reference("project_id")
    if project_id is None or references.has_project(project_id):
        return project_id
    row.repaired("project_id: there is no such project; its id is in the metadata")
    row.keep("project_id", project_id)
    return None


def _source_type(row: Row) -> str:
    word = row.word("source_type")
    if word in _SOURCE_TYPES:
        return word
    row.repaired(f"source_type: {row.text('source_type')!r} became 'file'")
    row.keep("source_type", row.shown("source_type"))
    return "file"


def _file_metadata(row: Row) -> dict[str, JSON]:
    """Return what is said of a file; what only AgentOS knows how to use is kept aside."""
    for column in ("repo_id", "mtime", "created_at"):
        if (value := row.shown(column)) is not None:
            row.keep(column, value)
    said: dict[str, JSON] = {
        column: text for column in ("doc_type", "language") if (text := row.text(column)) is not None
    }
    tags: list[JSON] = [*dict.fromkeys(read_tags(row, "tags"))]
    return {**said, "tags": tags} if tags else said


def _unique_path(row: Row, references: References, paths: str, project_id: str | None, path: str) -> str:
    """Return the path; files of two repositories that no project tells apart are told apart by the repository."""
    unique, place, number = path, row.text("repo_id") or row.key, 1
    while not references.keys.add(paths, pair(project_id or "", unique)):
        unique = f"{place}/{path}" if number == 1 else f"{place}/{number}/{path}"
        if len(unique.encode()) > PATH_BYTES:
            raise SetAside("an earlier row has the same path")
        number += 1
    if unique != path:
        row.repaired(f"path: another source has the path {path!r}, so it became {unique!r}")
        row.keep("path", path)
    return unique


def _line(row: Row, column: str, least: int) -> int | None:
    if row.is_null(column):
        return None
    number = row.whole(column, otherwise=least - 1, least=least)
    return number if number >= least else None


def _hash(row: Row, column: str, length: int) -> str | None:
    text = row.text(column)
    if text is None or len(text) <= length:
        return text or None
    row.repaired(f"{column}: it is no hash, so it is left out")
    row.keep(column, text)
    return None


def _embedded_hash(row: Row, chunk: Row) -> str:
    """Return the store's hash of the chunk, or that of the older text which the embedding is of."""
    found = row.text("content_hash")
    if not row.has_column("content_hash") or (found and found == chunk.text("content_hash")):
        return hash_of(chunk.text("heading") or None, chunk.text("content") or "")
    row.repaired("content_hash: it is of an older text of its chunk; kb.stale() names it until it is made anew")
    return (found or "")[:DIGEST_LENGTH]


_VECTOR: Final = Float32Vector()
