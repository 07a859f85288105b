"""What is known from files and pages: sources, their chunks, and the embeddings of those."""

from __future__ import annotations

import datetime as dt
from typing import Any, ClassVar

from sqlalchemy import CheckConstraint, ForeignKey, Index, text
from sqlalchemy.orm import Mapped, mapped_column

from agentos_store.base import Base, Created
from agentos_store.errors import InvalidValueError
from agentos_store.types import Choice, Float32Vector, Identifier, Int64, JSONValue, Text

SOURCE_TYPES = ("file", "directory", "url")
SOURCE_TYPE = Choice(*SOURCE_TYPES)


class SourcePath(Text):
    """A path or an address of 1 to 1,200 bytes in UTF-8.

    PostgreSQL's indexes hold 2,700 bytes, which the longest identifier of a project and a path stay below together.
    """

    MOST_BYTES = 1200

    cache_ok = True

    def __init__(self) -> None:
        super().__init__(min_length=1)

    def check_length(self, text: str, name: str) -> None:
        """Refuse a path that is empty, or too long in bytes."""
        super().check_length(text, name)
        size = len(text.encode())
        if size > self.MOST_BYTES:
            raise InvalidValueError(name, f"{size:,} bytes in UTF-8 are more than the limit of {self.MOST_BYTES:,}")


class KbSource(Base):
    """A file, a directory or a page whose chunks can be found."""

    __tablename__ = "kb_sources"
    entity: ClassVar[str] = "source"

    source_id: Mapped[str] = mapped_column(Identifier(), primary_key=True)
    project_id: Mapped[str | None] = mapped_column(Identifier(), ForeignKey("projects.id", ondelete="CASCADE"))
    """NULL for what belongs to no project."""
    source_type: Mapped[str] = mapped_column(SOURCE_TYPE)
    source_path: Mapped[str] = mapped_column(SourcePath())
    """Unique within the project, and among the sources without one."""
    content_hash: Mapped[str | None] = mapped_column(Text(max_length=255))
    """Of the source as a whole, by the caller's own rule: by it, a source that did not change is known."""
    indexed_at: Mapped[dt.datetime | None]
    """When its chunks last changed; NULL while they are not those of this content."""
    metadata_: Mapped[dict[str, Any]] = mapped_column("metadata", JSONValue("object"))

    __table_args__ = (
        CheckConstraint("source_type IN ('file', 'directory', 'url')", name="source_type"),
        Index("uq_kb_sources_project_id_source_path", text("coalesce(project_id, '')"), "source_path", unique=True),
        Index("ix_kb_sources_source_path_source_id", "source_path", "source_id"),
        Index("ix_kb_sources_project_id_source_path_source_id", "project_id", "source_path", "source_id"),
        Index("ix_kb_sources_source_type_source_path_source_id", "source_type", "source_path", "source_id"),
        Index("ix_kb_sources_metadata", "metadata", postgresql_using="gin").ddl_if(dialect="postgresql"),
    )


class KbChunk(Created, Base):
    """A piece of a source that is found on its own."""

    __tablename__ = "kb_chunks"
    entity: ClassVar[str] = "chunk"

    chunk_id: Mapped[str] = mapped_column(Identifier(), primary_key=True)
    source_id: Mapped[str] = mapped_column(Identifier(), ForeignKey("kb_sources.source_id", ondelete="CASCADE"))
    content: Mapped[str] = mapped_column(Text())
    chunk_index: Mapped[int] = mapped_column(Int64())
    """Its place in the source: 0, 1, …"""
    heading: Mapped[str | None] = mapped_column(Text())
    """The headings above it, the outermost first: ``Guide > Install``."""
    start_line: Mapped[int | None] = mapped_column(Int64())
    end_line: Mapped[int | None] = mapped_column(Int64())
    """Lines of the source, counted from 1, the last one included."""
    token_count: Mapped[int | None] = mapped_column(Int64())
    """About how many tokens of a language model it takes; NULL: not counted."""
    content_hash: Mapped[str] = mapped_column(Text(max_length=64))
    """SHA-256 of the heading and the content, which are what is embedded."""
    metadata_: Mapped[dict[str, Any]] = mapped_column("metadata", JSONValue("object"))

    __table_args__ = (
        CheckConstraint("chunk_index >= 0", name="chunk_index_not_negative"),
        CheckConstraint("start_line >= 1", name="start_line_positive"),
        CheckConstraint("end_line >= start_line", name="end_line_not_before_start_line"),
        CheckConstraint("token_count >= 0", name="token_count_not_negative"),
        Index("ix_kb_chunks_source_id_chunk_index_chunk_id", "source_id", "chunk_index", "chunk_id"),
        Index("ix_kb_chunks_metadata", "metadata", postgresql_using="gin").ddl_if(dialect="postgresql"),
    )


class KbModel(Created, Base):
    """A model whose embeddings are stored; all of them have the same number of dimensions."""

    __tablename__ = "kb_models"
    entity: ClassVar[str] = "embedding model"

    model_name: Mapped[str] = mapped_column(Identifier(), primary_key=True)
    dimensions: Mapped[int] = mapped_column(Int64())
    revision: Mapped[str] = mapped_column(Identifier())
    """Another one after each change of its embeddings, so that what was read of them is known to be current."""

    __table_args__ = (CheckConstraint("dimensions >= 1", name="dimensions_positive"),)


class KbEmbedding(Created, Base):
    """What a model makes of a chunk."""

    __tablename__ = "kb_embeddings"
    entity: ClassVar[str] = "embedding"

    chunk_id: Mapped[str] = mapped_column(
        Identifier(), ForeignKey("kb_chunks.chunk_id", ondelete="CASCADE"), primary_key=True
    )
    model_name: Mapped[str] = mapped_column(
        Identifier(), ForeignKey("kb_models.model_name", ondelete="CASCADE"), primary_key=True
    )
    dimensions: Mapped[int] = mapped_column(Int64())
    embedding: Mapped[bytes] = mapped_column(Float32Vector())
    content_hash: Mapped[str] = mapped_column(Text(max_length=64))
    """The chunk's when this was made of it; another than the chunk's now means that it is stale."""
    revision: Mapped[str] = mapped_column(Identifier())
    """The model's when this was written."""

    __table_args__ = (
        CheckConstraint("dimensions >= 1", name="dimensions_positive"),
        # Who keeps a model's embeddings in memory sees by this index alone which of them are new.
        Index("ix_kb_embeddings_model_name_chunk_id_revision", "model_name", "chunk_id", "revision"),
    )
