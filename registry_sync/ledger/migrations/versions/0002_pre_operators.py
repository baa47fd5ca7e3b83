"""Expand: pins, freezes, who ended decisions, durations of activations, retired activations."""

from __future__ import annotations

from contextlib import AbstractContextManager

import sqlalchemy as sa
from alembic import op
from alembic.operations.base import BatchOperations

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

_ASKED_BY = sa.String(16)


def upgrade() -> None:
    """Add a table and columns; the release before ignores them, since each may be left out."""
    for table, columns in _added().items():
        with _altered(table) as batch:
            for column in columns:
                batch.add_column(column)
    op.create_table(
        "freezes",
        sa.Column("id", sa.Integer(), autoincrement=True, nullable=False),
        sa.Column("node_id", sa.String(64), nullable=False),
        sa.Column("asked_by", _ASKED_BY, nullable=False),
        sa.Column("at", sa.Float(), nullable=False),
        sa.Column("released_at", sa.Float()),
        sa.Column("released_by", _ASKED_BY),
        sa.PrimaryKeyConstraint("id", name="pk_freezes"),
    )
    still_open = sa.text("released_at IS NULL")
    op.create_index(
        "uq_freezes_open",
        "freezes",
        ["node_id"],
        unique=True,
        sqlite_where=still_open,
        postgresql_where=still_open,
    )


def downgrade() -> None:
    """Remove them. A pin becomes a hold that ends with the registry's next move."""
    op.drop_table("freezes")
    for table, columns in _added().items():
        with _altered(table) as batch:
            for column in columns:
                batch.drop_column(column.name)


def _added() -> dict[str, tuple[sa.Column[object], ...]]:
    """Return the new columns by table."""
    return {
        "activations": (
            sa.Column("durations_s", sa.JSON()),
            sa.Column("retired_at", sa.Float()),
            sa.Column("pinned", sa.Boolean(create_constraint=False)),
        ),
        "holds": (
            sa.Column(
                "lasting",
                sa.Boolean(create_constraint=False),
                nullable=False,
                server_default=sa.false(),
            ),
            sa.Column("released_by", _ASKED_BY),
        ),
        "quarantines": (
            sa.Column("asked_by", _ASKED_BY),
            sa.Column("released_by", _ASKED_BY),
        ),
    }


def _altered(table: str) -> AbstractContextManager[BatchOperations]:
    """Alter a table in place: SQLite adds and drops such columns itself, without a copy."""
    return op.batch_alter_table(table, recreate="never")
