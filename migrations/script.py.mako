"""${message}.

Why, and what it means for rows that are there already.

Safe beside the previous revision's code: …
Locks: …
"""

# The package adds operations to Alembic's, which type checkers do not see.
# mypy: disable-error-code="attr-defined"

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = ${repr(up_revision)}
down_revision = ${repr(down_revision)}
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Climb."""
    ${upgrades if upgrades else "raise AssertionError"}


def downgrade() -> None:
    """Descend."""
    ${downgrades if downgrades else "raise AssertionError"}
