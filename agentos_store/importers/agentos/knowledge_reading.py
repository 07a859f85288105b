"""What an open registry gives of memories and knowledge."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Iterator

from agentos_store.importers.agentos.knowledge import chunk_place, read_chunk, read_embedding, read_source
from agentos_store.importers.agentos.memory import merged_memory, read_memory, sameness
from agentos_store.importers.agentos.reading import Reading
from agentos_store.importers.agentos.records import ChunkRecord, EmbeddingRecord, MemoryRecord, SourceRecord
from agentos_store.importers.problems import Problem, SetAside
from agentos_store.importers.row import Row


class KnowledgeReading(Reading):
    """The part of a registry that knows and remembers."""

    def memory(self) -> Iterator[MemoryRecord | Problem]:
        """Give what agents remember; rows that say the same come as one."""
        keys = self._references.keys
        same = keys.fresh("memory")

        def reading() -> Callable[[Row], MemoryRecord]:
            ids = keys.fresh("id")
            before: dt.datetime | None = None

            def read(row: Row) -> MemoryRecord:
                nonlocal before
                record = read_memory(row, self._references, before)
                if not keys.add(ids, record.id):
                    raise SetAside("an earlier row has the same id")
                before = record.created_at
                return record

            return read

        read = reading()

        def note(row: Row) -> None:
            keys.stand(same, sameness(read(row)), row.table, row.rowid)

        for _ in self._records("memory_items", note):
            pass
        read = reading()

        def merge(row: Row) -> MemoryRecord | None:
            record = read(row)
            (_, first), *others = keys.places(same, sameness(record))
            if row.rowid != first:
                return None
            rows = filter(None, (self._references.found(row.table, place) for _, place in others))
            return merged_memory(record, [read_memory(other, self._references, record.created_at) for other in rows])

        yield from self._merged_records("memory_items", merge)

    def sources(self, *, project: str | None = None) -> Iterator[SourceRecord | Problem]:
        """Give the sources of knowledge; those whose project is not known get the one that is given."""
        keys = self._references.keys
        ids, paths = keys.fresh("id"), keys.fresh("path")
        yield from self._records("kb_sources", lambda row: read_source(row, self._references, ids, paths, project))

    def chunks(self) -> Iterator[ChunkRecord | Problem]:
        """Give the chunks of the sources, source by source and each in its order."""
        keys = self._references.keys
        ids, places = keys.fresh("id"), keys.fresh("chunks")

        def place(row: Row) -> None:
            keys.rank(places, *chunk_place(row, self._references, ids), row.rowid)

        yield from self._merged_records("kb_chunks", place)
        source_id, index = "", 0
        for owner, rowid in keys.ranked(places):
            source_id, index = owner, index + 1 if owner == source_id else 0
            row = self._references.found("kb_chunks", rowid)
            if row is not None:
                yield read_chunk(row, self._references, source_id, index)

    def embeddings(self) -> Iterator[EmbeddingRecord | Problem]:
        """Give what models make of the chunks."""
        taken = self._references.keys.fresh("embedding")
        dimensions: dict[str, int] = {}
        yield from self._records("kb_embeddings", lambda row: read_embedding(row, self._references, taken, dimensions))
