"""Create kb_sources, kb_chunks, kb_models and kb_embeddings.

What is known from files and pages, cut into chunks that are found by words and by vectors.

Safe beside the previous revision's code: it does not know the tables.
Locks: PostgreSQL holds SHARE ROW EXCLUSIVE on projects for the foreign key until the commit.
"""

# The package adds operations to Alembic's, which type checkers do not see.
# mypy: disable-error-code="attr-defined"

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0011_knowledge"
down_revision = "0010_search"
branch_labels = None
depends_on = None

TEXT = sa.Text().with_variant(postgresql.TEXT(collation="C"), "postgresql")
TIME = sa.Text().with_variant(sa.DateTime(timezone=True), "postgresql")
JSON = sa.Text().with_variant(postgresql.JSONB(), "postgresql")
INTEGER = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
BYTES = sa.LargeBinary().with_variant(postgresql.BYTEA(), "postgresql")


def upgrade() -> None:
    """Climb."""
    _create_sources()
    _create_chunks()
    _create_embeddings()


def _create_sources() -> None:
    table = "kb_sources"
    op.create_table(
        table,
        sa.Column("source_id", TEXT, nullable=False),
        sa.Column("project_id", TEXT),
        sa.Column("source_type", TEXT, nullable=False),
        sa.Column("source_path", TEXT, nullable=False),
        sa.Column("content_hash", TEXT),
        sa.Column("indexed_at", TIME),
        sa.Column("metadata", JSON, nullable=False),
        sa.PrimaryKeyConstraint("source_id", name=op.f("pk_kb_sources")),
        sa.ForeignKeyConstraint(
            ["project_id"], ["projects.id"], name=op.f("fk_kb_sources_project_id_projects"), ondelete="CASCADE"
        ),
        sa.CheckConstraint("source_type IN ('file', 'directory', 'url')", name=op.f("ck_kb_sources_source_type")),
    )
    op.create_json_triggers(table, "metadata")
    op.create_index(
        "uq_kb_sources_project_id_source_path",
        table,
        [sa.text("coalesce(project_id, '')"), "source_path"],
        unique=True,
    )
    op.create_index("ix_kb_sources_source_path_source_id", table, ["source_path", "source_id"])
    for column in ("project_id", "source_type"):
        op.create_index(f"ix_kb_sources_{column}_source_path_source_id", table, [column, "source_path", "source_id"])
    _create_gin(table, "metadata")


def _create_chunks() -> None:
    table = "kb_chunks"
    op.create_table(
        table,
        sa.Column("chunk_id", TEXT, nullable=False),
        sa.Column("source_id", TEXT, nullable=False),
        sa.Column("content", TEXT, nullable=False),
        sa.Column("chunk_index", INTEGER, nullable=False),
        sa.Column("heading", TEXT),
        sa.Column("start_line", INTEGER),
        sa.Column("end_line", INTEGER),
        sa.Column("token_count", INTEGER),
        sa.Column("content_hash", TEXT, nullable=False),
        sa.Column("metadata", JSON, nullable=False),
        sa.Column("created_at", TIME, nullable=False),
        sa.PrimaryKeyConstraint("chunk_id", name=op.f("pk_kb_chunks")),
        sa.ForeignKeyConstraint(
            ["source_id"], ["kb_sources.source_id"], name=op.f("fk_kb_chunks_source_id_kb_sources"), ondelete="CASCADE"
        ),
        sa.CheckConstraint("chunk_index >= 0", name=op.f("ck_kb_chunks_chunk_index_not_negative")),
        sa.CheckConstraint("start_line >= 1", name=op.f("ck_kb_chunks_start_line_positive")),
        sa.CheckConstraint("end_line >= start_line", name=op.f("ck_kb_chunks_end_line_not_before_start_line")),
        sa.CheckConstraint("token_count >= 0", name=op.f("ck_kb_chunks_token_count_not_negative")),
    )
    op.create_json_triggers(table, "metadata")
    op.create_index("ix_kb_chunks_source_id_chunk_index_chunk_id", table, ["source_id", "chunk_index", "chunk_id"])
    _create_gin(table, "metadata")


def _create_embeddings() -> None:
    op.create_table(
        "kb_models",
        sa.Column("model_name", TEXT, nullable=False),
        sa.Column("dimensions", INTEGER, nullable=False),
        sa.Column("revision", TEXT, nullable=False),
        sa.Column("created_at", TIME, nullable=False),
        sa.PrimaryKeyConstraint("model_name", name=op.f("pk_kb_models")),
        sa.CheckConstraint("dimensions >= 1", name=op.f("ck_kb_models_dimensions_positive")),
    )
    op.create_table(
        "kb_embeddings",
        sa.Column("chunk_id", TEXT, nullable=False),
        sa.Column("model_name", TEXT, nullable=False),
        sa.Column("dimensions", INTEGER, nullable=False),
        sa.Column("embedding", BYTES, nullable=False),
        sa.Column("content_hash", TEXT, nullable=False),
        sa.Column("revision", TEXT, nullable=False),
        sa.Column("created_at", TIME, nullable=False),
        sa.PrimaryKeyConstraint("chunk_id", "model_name", name=op.f("pk_kb_embeddings")),
        sa.ForeignKeyConstraint(
            ["chunk_id"], ["kb_chunks.chunk_id"], name=op.f("fk_kb_embeddings_chunk_id_kb_chunks"), ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(
            ["model_name"],
            ["kb_models.model_name"],
            name=op.f("fk_kb_embeddings_model_name_kb_models"),
            ondelete="CASCADE",
        ),
        sa.CheckConstraint("dimensions >= 1", name=op.f("ck_kb_embeddings_dimensions_positive")),
    )
    op.create_index(
        "ix_kb_embeddings_model_name_chunk_id_revision", "kb_embeddings", ["model_name", "chunk_id", "revision"]
    )


def _create_gin(table: str, column: str) -> None:
    if op.get_context().dialect.name != "sqlite":
        op.create_index(f"ix_{table}_{column}", table, [column], postgresql_using="gin")


def downgrade() -> None:
    """Descend."""
    # What is indexed of the chunks would be nobody's; the triggers of SQLite take it out of the index too.
    documents = sa.Table("search_documents", sa.MetaData(), sa.Column("kind", sa.Text()))
    op.execute(sa.delete(documents).where(documents.c.kind == "chunk"))
    for table in ("kb_embeddings", "kb_models", "kb_chunks", "kb_sources"):
        op.drop_table(table)
