"""Expand: the creation that a record is about, since a version may be deleted and created anew."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

_CREATIONS = {
    "pins": ("creation",),
    "quarantines": ("creation",),
    "activations": ("creation",),
    "holds": ("aspired_creation", "target_creation"),
}


def upgrade() -> None:
    """Add the creations and their ends. The release before ignores them."""
    for table, columns in _CREATIONS.items():
        with op.batch_alter_table(table, recreate="never") as batch:
            for name in columns:
                batch.add_column(sa.Column(name, sa.String(64)))
    with op.batch_alter_table("pins", recreate="never") as batch:
        batch.add_column(sa.Column("gone_at", sa.Float()))
        batch.add_column(sa.Column("superseded", sa.Boolean(create_constraint=False)))


def downgrade() -> None:
    """Remove them. Records are about version numbers again."""
    with op.batch_alter_table("pins", recreate="never") as batch:
        batch.drop_column("superseded")
        batch.drop_column("gone_at")
    for table, columns in _CREATIONS.items():
        with op.batch_alter_table(table, recreate="never") as batch:
            for name in columns:
                batch.drop_column(name)
