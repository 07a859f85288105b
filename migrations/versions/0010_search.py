"""Create search_documents and memory_items.

What agents remember, and one index for all that can be searched. FTS5 holds it on SQLite, beside its table and kept by
triggers; GIN on PostgreSQL, an index for each kind, so that a search reads nothing of the others.

Safe beside the previous revision's code: it does not know the tables.
Locks: none on tables that exist.
"""

# The package adds operations to Alembic's, which type checkers do not see.
# mypy: disable-error-code="attr-defined"

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0010_search"
down_revision = "0009_agents"
branch_labels = None
depends_on = None

TEXT = sa.Text().with_variant(postgresql.TEXT(collation="C"), "postgresql")
TIME = sa.Text().with_variant(sa.DateTime(timezone=True), "postgresql")
JSON = sa.Text().with_variant(postgresql.JSONB(), "postgresql")
EXACT = sa.Text().with_variant(postgresql.JSON(), "postgresql")
INTEGER = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
BOOLEAN = sa.Boolean().with_variant(sa.Integer(), "sqlite")
REAL: sa.types.TypeEngine[float] = sa.Double().with_variant(sa.REAL(), "sqlite")
TOKENS = sa.Text().with_variant(postgresql.TSVECTOR(), "postgresql")

FTS5 = """
CREATE VIRTUAL TABLE search_index USING fts5 (
    family, tokens, content = 'search_documents', content_rowid = 'doc_id', tokenize = 'ascii', columnsize = 0
)
"""
FORGET = "INSERT INTO search_index (search_index, rowid, family, tokens)"
FORGET += " VALUES ('delete', OLD.doc_id, OLD.family, OLD.tokens);"
LEARN = "INSERT INTO search_index (rowid, family, tokens) VALUES (NEW.doc_id, NEW.family, NEW.tokens);"
TRIGGERS = {"insert": LEARN, "update": f"{FORGET} {LEARN}", "delete": FORGET}


def upgrade() -> None:
    """Climb."""
    _create_search_documents()
    _create_memory_items()


def _create_search_documents() -> None:
    op.create_table(
        "search_documents",
        sa.Column("doc_id", INTEGER, sa.Identity(), nullable=False),
        sa.Column("kind", TEXT, nullable=False),
        sa.Column("key", TEXT, nullable=False),
        sa.Column("part", INTEGER, nullable=False),
        sa.Column("parts", INTEGER, nullable=False),
        sa.Column("family", TEXT, nullable=False),
        sa.Column("length", INTEGER, nullable=False),
        sa.Column("text_hash", TEXT, nullable=False),
        sa.Column("tokens", TOKENS, nullable=False),
        sa.PrimaryKeyConstraint("doc_id", name=op.f("pk_search_documents")),
        sa.UniqueConstraint("kind", "key", "part", name=op.f("uq_search_documents_kind_key_part")),
        sa.CheckConstraint("part >= 0", name=op.f("ck_search_documents_part_not_negative")),
        sa.CheckConstraint("parts > 0", name=op.f("ck_search_documents_parts_positive")),
        sa.CheckConstraint("length >= 0", name=op.f("ck_search_documents_length_not_negative")),
        sqlite_autoincrement=True,
    )
    if op.get_context().dialect.name == "sqlite":
        op.execute(FTS5)
        for event, body in TRIGGERS.items():
            op.execute(
                f"CREATE TRIGGER tr_search_documents_{event} AFTER {event.upper()} ON search_documents"
                f" FOR EACH ROW BEGIN {body} END"
            )
        return
    for kind in ("memory", "chunk", "message"):
        for family in (kind, f"{kind}parts"):
            op.create_index(
                f"ix_search_documents_{family}",
                "search_documents",
                ["tokens"],
                postgresql_using="gin",
                postgresql_where=sa.text(f"family = '{family}'"),
            )


def _create_memory_items() -> None:
    table = "memory_items"
    op.create_table(
        table,
        sa.Column("id", TEXT, nullable=False),
        sa.Column("scope", TEXT, nullable=False),
        sa.Column("scope_id", TEXT),
        sa.Column("type", TEXT, nullable=False),
        sa.Column("content", EXACT, nullable=False),
        sa.Column("content_hash", TEXT, nullable=False),
        sa.Column("tags", JSON, nullable=False),
        sa.Column("sources", JSON, nullable=False),
        sa.Column("confidence", REAL, nullable=False),
        sa.Column("project_id", TEXT),
        sa.Column("last_used_at", TIME),
        sa.Column("use_count", INTEGER, nullable=False),
        sa.Column("decayed_at", TIME, nullable=False),
        sa.Column("retention_type", TEXT, nullable=False),
        sa.Column("expires_at", TIME),
        sa.Column("auto_cleanup", BOOLEAN, nullable=False),
        sa.Column("created_at", TIME, nullable=False),
        sa.Column("updated_at", TIME, nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_memory_items")),
        sa.ForeignKeyConstraint(
            ["project_id"], ["projects.id"], name=op.f("fk_memory_items_project_id_projects"), ondelete="SET NULL"
        ),
        sa.CheckConstraint(
            "scope IN ('task', 'agent', 'repo', 'project', 'global')", name=op.f("ck_memory_items_scope")
        ),
        sa.CheckConstraint(
            "retention_type IN ('temporary', 'project', 'permanent')", name=op.f("ck_memory_items_retention_type")
        ),
        sa.CheckConstraint("confidence >= 0 AND confidence <= 1", name=op.f("ck_memory_items_confidence_from_0_to_1")),
        sa.CheckConstraint("use_count >= 0", name=op.f("ck_memory_items_use_count_not_negative")),
    )
    op.create_json_triggers(table, "content", "tags", "sources")
    op.create_index(
        "uq_memory_items_scope_scope_id_type_content_hash",
        table,
        ["scope", sa.text("coalesce(scope_id, '')"), "type", "content_hash"],
        unique=True,
    )
    op.create_index("ix_memory_items_created_at_id", table, ["created_at", "id"])
    for column in ("scope", "scope_id", "type", "project_id"):
        op.create_index(f"ix_memory_items_{column}_created_at_id", table, [column, "created_at", "id"])
    op.create_index(
        "ix_memory_items_scope_scope_id_confidence_id",
        table,
        ["scope", sa.text("coalesce(scope_id, '')"), "confidence", "id"],
    )
    if op.get_context().dialect.name != "sqlite":
        op.create_index("ix_memory_items_tags", table, ["tags"], postgresql_using="gin")
    for name, columns, where in (
        ("ix_memory_items_decayed_at_id", ["decayed_at", "id"], "retention_type <> 'permanent'"),
        (
            "ix_memory_items_expires_at_id",
            ["expires_at", "id"],
            "expires_at IS NOT NULL AND retention_type <> 'permanent'",
        ),
        ("ix_memory_items_temporary", ["created_at", "id"], "retention_type = 'temporary' AND auto_cleanup"),
    ):
        condition = sa.text(where)
        op.create_index(name, table, columns, sqlite_where=condition, postgresql_where=condition)


def downgrade() -> None:
    """Descend."""
    op.drop_table("memory_items")
    if op.get_context().dialect.name == "sqlite":
        op.execute("DROP TABLE search_index")
    op.drop_table("search_documents")
