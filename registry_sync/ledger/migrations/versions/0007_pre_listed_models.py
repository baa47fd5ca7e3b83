"""Expand: listed models one by one, beside the whole listing."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the table. The release before reads and writes whole listings."""
    op.create_table(
        "listed_models",
        sa.Column("node_id", sa.String(64), nullable=False),
        sa.Column("model", sa.String(512), nullable=False),
        sa.Column("listed_at", sa.Float(), nullable=False),
        sa.Column("body", sa.JSON(none_as_null=True)),
        sa.PrimaryKeyConstraint("node_id", "model", name="pk_listed_models"),
    )


def downgrade() -> None:
    """Remove the table. The whole listing may be out of date until the next poll."""
    op.drop_table("listed_models")
