"""Expand: under which libraries a version was rejected, and who let it be tried again."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add both: the code before this ignores them."""
    with op.batch_alter_table("rejections", recreate="never") as batch:
        batch.add_column(sa.Column("libraries", sa.String(64)))
        batch.add_column(sa.Column("released_by", sa.String(16)))


def downgrade() -> None:
    """Remove them; what stands goes on standing."""
    with op.batch_alter_table("rejections", recreate="never") as batch:
        batch.drop_column("released_by")
        batch.drop_column("libraries")
