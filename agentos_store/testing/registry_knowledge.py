"""What a made registry knows and remembers, and what goes wrong there in real ones."""

from __future__ import annotations

import json
import struct
from typing import Final

from agentos_store.testing.registry_rows import Outcome, Rows, spaced

MODEL: Final = "all-MiniLM-L6-v2"
DIMENSIONS: Final = 8

_HEADINGS: Final = ("数据库迁移指南", "Runbook: database is locked")
_SENTENCES: Final = (
    "系统在开发环境使用 SQLite，在生产环境使用 PostgreSQL，并保持外键约束一致。",
    "全文检索使用 FTS5 的 BM25 排序，中文分词需要额外处理。",
    "Set busy_timeout to 5000 ms and enable WAL mode for better concurrency.",
)


class KnowledgeRows(Rows):
    """Sources with chunks and embeddings, and memories."""

    def knowledge(self) -> None:
        """Make two sources of three chunks, and two memories."""
        for number, heading in enumerate(_HEADINGS):
            source = self.source(f"docs/{number:02}.md")
            self.expect("sources")
            for part in range(3):
                self.chunk(source, f"{heading} {part + 1}", part)
                self.expect("chunks")
                self.expect("embeddings")
            # AgentOS writes its tags with \\uXXXX.
            self.memory({"summary": heading}, tags=json.dumps(["数据库", f"t{number}"]), use_count=number)
            self.expect("memory")

    def source(self, path: str | None, **values: object) -> str:
        """Make a source and return its key."""
        source, now = f"src_{self.hex(16)}", self.later()
        given: dict[str, object] = {
            "repo_id": "6bb675691d24",
            "project_id": "kb-service",
            "path": path,
            "source_type": "file",
            "source_path": path,
            "file_hash": self.hex(64),
            "mtime": int(now.timestamp()),
            "doc_type": "guide",
            "language": "markdown",
            "tags": json.dumps(["架构", "api"]),
            "metadata": json.dumps({"tags": ["架构", "api"]}),
            "created_at": now.isoformat(),
            "updated_at": now.isoformat(),
            "indexed_at": now.isoformat(),
            **values,
        }
        self.insert("kb_sources", source_id=source, **given)
        return source

    def chunk(
        self,
        source: str,
        heading: str,
        part: int,
        *,
        stale: bool = False,
        vector: bytes | None = b"",
        dims: int = DIMENSIONS,
        **values: object,
    ) -> None:
        """Make a chunk with its embedding; ``stale`` is one of another text."""
        chunk_id, digest, now = f"chunk_{self.hex(16)}", self.hex(64), self.later(0.1)
        sentences = " ".join(_SENTENCES[(part + more) % len(_SENTENCES)] for more in range(2))
        given: dict[str, object] = {
            "heading": heading,
            "start_line": part * 20 + 1,
            "end_line": part * 20 + 20,
            "chunk_index": part,
            "content": f"## {heading}\n\n{sentences}",
            "content_hash": digest,
            "token_count": 42,
            "created_at": now.isoformat(),
            **values,
        }
        self.insert("kb_chunks", chunk_id=chunk_id, source_id=source, **given)
        numbers = struct.pack(f"<{DIMENSIONS}f", *(self.random.uniform(-1, 1) for _ in range(DIMENSIONS)))
        self.insert(
            "kb_embeddings",
            chunk_id=chunk_id,
            model=MODEL,
            model_name=MODEL,
            dims=dims,
            vector=numbers if vector == b"" else vector,
            embedding=numbers if vector == b"" else vector,
            content_hash=self.hex(64) if stale else digest,
            built_at=int(now.timestamp()),
            created_at=now.isoformat(),
        )

    def memory(self, summary: object, **values: object) -> None:
        """Make a memory."""
        now = self.later(0.1)
        given: dict[str, object] = {
            "id": f"mem-{self.hex(12)}",
            "scope": "project",
            "type": "convention",
            "content": json.dumps(summary),
            "tags": json.dumps(["数据库"]),
            "sources": json.dumps([f"task:{task}" for task in self.task_ids[:1]]),
            "created_at": now.isoformat(),
            "updated_at": spaced(now),
            "confidence": 0.5,
            "project_id": "kb-service",
            "use_count": 0,
            "retention_type": "project",
            "auto_cleanup": 1,
            **values,
        }
        self.insert("memory_items", **given)

    # -- what goes wrong in real ones

    def flawed_knowledge(self) -> None:
        """Make a source, a chunk or an embedding for each flaw."""
        (first,) = self.connection.execute("SELECT source_id FROM kb_sources ORDER BY rowid").fetchone()

        def source(what: str, path: str | None, outcome: Outcome = "repaired", **values: object) -> None:
            self.source(path, **values)
            self.flaw(what, "sources", outcome)

        def chunk(
            what: str,
            chunk: Outcome,
            embedding: Outcome,
            part: int,
            owner: str = first,
            *,
            stale: bool = False,
            vector: bytes | None = b"",
            dims: int = DIMENSIONS,
            **values: object,
        ) -> None:
            self.chunk(owner, what.capitalize(), part, stale=stale, vector=vector, dims=dims, **values)
            self.flaw(what, "chunks", chunk)
            self.expect("embeddings", embedding)

        chunk("a chunk's source is gone", "set_aside", "set_aside", 0, "src_gone")
        chunk("an embedding is of an older text", "imported", "repaired" if self.agentos else "imported", 3, stale=True)
        vectors: tuple[tuple[str, bytes | None], ...] = (
            ("a vector has too few dimensions", struct.pack("<4f", 1, 2, 3, 4)),
            ("a vector holds NaN", struct.pack("<8f", *[float("nan")] * 8)),
            ("a vector is cut off", b"\x00\x00\x80"),
            ("a vector is missing", None),
        )
        for part, (what, vector) in enumerate(vectors, 4):
            chunk(what, "imported", "set_aside", part, vector=vector, dims=4 if part == 4 else DIMENSIONS)
        if self.agentos:
            chunk("a vector is not as long as is told", "imported", "set_aside", 8, dims=384)
            chunk("lines are turned round", "repaired", "imported", 9, end_line=1)
        else:
            chunk("two chunks have one place", "repaired", "imported", 8, chunk_index=7)
        chunk("a chunk has no text", "set_aside", "set_aside", 99, content="")
        # In one shape a file of another repository has this path, in the other the project is gone.
        source("two sources have one path", "docs/00.md", repo_id="0f1e2d3c4b5a", project_id="gone")
        source(
            "a source's tags are a Python literal", "docs/literal.md", tags="['架构', 'api']", metadata="{'tags': ['"
        )
        source("a source has no path", None, "set_aside")

    def flawed_memories(self) -> None:
        """Make a memory for each flaw."""

        def memory(what: str, outcome: Outcome = "repaired", **values: object) -> None:
            self.memory({"summary": f"记住 {what}"}, **values)
            self.flaw(what, "memory", outcome)

        memory("a memory's project is gone", project_id="gone")
        memory("a memory of a repository, whose project is gone", scope="repo", project_id="gone")
        memory("a memory's tags are a Python literal", tags="['数据库', 'api']")
        memory("a memory's sources are no list", sources='"task:gone"')
        memory("a memory's content is no JSON", content='{"summary": "截断')
        memory("a memory has no content", "set_aside", content=None)
        memory("a memory is surer than sure", confidence=1.5)
        memory("a memory does not tell how sure it is", confidence=None)
        memory("a retention is unknown", retention_type="eternal")
        memory("a memory has no type", type=None)
        memory("a scope is in capitals", scope="GLOBAL", project_id=None)
        memory("an expiry is no time", expires_at="never")
        memory("a scope is unknown", "set_aside", scope="universe")
        memory("a memory has no key", "set_aside", id=None)
        # Of two rows that say the same one is made.
        same = {"summary": "两行说同样的话", "details": ""}
        self.memory(same, tags=json.dumps(["first"]), use_count=2, confidence=0.25)
        self.expect("memory", "repaired")
        self.memory(dict(reversed(same.items())), tags=json.dumps(["second"]), use_count=3, confidence=0.75)
        self.flaw("two memories say the same", "memory", "merged")
