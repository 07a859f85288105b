"""Let the payload of an audit entry be erased, while a permit is in place.

Whoever is forgotten is forgotten in the audit trail too. The trigger now passes an UPDATE that makes the payload NULL
and changes nothing else, inside a transaction that holds a row in audit_pruning_permits; the chain vouches for it by a
further entry.

Safe beside the previous revision's code: it never updates an entry. Its verification takes an entry that was erased
for one that was changed.
Locks: PostgreSQL replaces a function and locks no table; SQLite drops and creates two triggers.
"""

# The package adds operations to Alembic's, which type checkers do not see.
# mypy: disable-error-code="attr-defined"

from __future__ import annotations

from alembic import op

revision = "0017_forget"
down_revision = "0016_retention"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Climb."""
    op.permit_erasure("task_audits")


def downgrade() -> None:
    """Descend."""
    op.permit_erasure("task_audits", permitted=False)
