"""Expand: the libraries under which a version was rejected, and the initiator of its retry."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add both. The release before ignores them."""
    with op.batch_alter_table("rejections", recreate="never") as batch:
        batch.add_column(sa.Column("libraries", sa.String(64)))
        batch.add_column(sa.Column("released_by", sa.String(16)))


def downgrade() -> None:
    """Remove both. Rejections that are in force stay so."""
    with op.batch_alter_table("rejections", recreate="never") as batch:
        batch.drop_column("released_by")
        batch.drop_column("libraries")
