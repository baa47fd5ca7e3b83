"""Expand: the reason for a move of an alias, beside its initiator."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the reason. The release before ignores it."""
    with op.batch_alter_table("activations", recreate="never") as batch:
        batch.add_column(sa.Column("reason", sa.Text()))


def downgrade() -> None:
    """Remove the reason; the moves stay."""
    with op.batch_alter_table("activations", recreate="never") as batch:
        batch.drop_column("reason")
