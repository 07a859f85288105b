"""Add sessions.unindexed_from: from which number on messages may be missing from the index of the search.

Messages are indexed by who searches for them, so each session says what there is to do. The index finds the sessions
that have something to be done, which are few, among all that have not.

Safe beside the previous revision's code, but for what that code appends to a session that is indexed by then: it is
not found before ``search.rebuild()``.
Locks: PostgreSQL holds ACCESS EXCLUSIVE on sessions until the commit, while one column of each session that has
messages is written and the index is built.
"""

# The package adds operations to Alembic's, which type checkers do not see.
# mypy: disable-error-code="attr-defined"

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0012_message_search"
down_revision = "0011_knowledge"
branch_labels = None
depends_on = None

INTEGER = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    """Climb."""
    op.add_column("sessions", sa.Column("unindexed_from", INTEGER))
    # A table, not a text: PostgreSQL's schema is written before its name.
    columns = sa.Column("unindexed_from", INTEGER), sa.Column("message_count", INTEGER)
    sessions = sa.Table("sessions", sa.MetaData(), *columns)
    op.execute(sa.update(sessions).where(sessions.c.message_count > 0).values(unindexed_from=0))
    condition = sa.text("unindexed_from IS NOT NULL AND deleted_at IS NULL")
    op.create_index("ix_sessions_unindexed", "sessions", ["id"], sqlite_where=condition, postgresql_where=condition)


def downgrade() -> None:
    """Descend."""
    # What is indexed would be nobody's; the triggers of SQLite take it out of the index too.
    documents = sa.Table("search_documents", sa.MetaData(), sa.Column("kind", sa.Text()))
    op.execute(sa.delete(documents).where(documents.c.kind == "message"))
    op.drop_index("ix_sessions_unindexed", "sessions")
    op.drop_column("sessions", "unindexed_from")
