"""Expand: why an alias was moved, where there is more to say than that somebody wanted it."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the reason: the code before this neither reads nor writes it."""
    with op.batch_alter_table("activations", recreate="never") as batch:
        batch.add_column(sa.Column("reason", sa.Text()))


def downgrade() -> None:
    """Remove it; the moves themselves stay."""
    with op.batch_alter_table("activations", recreate="never") as batch:
        batch.drop_column("reason")
