"""Make the ledger: activations, attempts, quarantines, rejections, holds, pins, listings."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

_NAME = sa.String(512)
_ALIAS = sa.String(255)
_DIGEST = sa.String(71)
_TABLES = (
    "activations",
    "attempts",
    "quarantines",
    "rejections",
    "holds",
    "pins",
    "listings",
)


def upgrade() -> None:
    """Make every table."""
    _make_history()
    _make_verdicts()
    _make_state()


def downgrade() -> None:
    """Remove every table, and with them the history."""
    for table in reversed(_TABLES):
        op.drop_table(table)


def _numbered(name: str, *columns: sa.Column[object]) -> None:
    op.create_table(
        name,
        sa.Column("id", sa.Integer(), autoincrement=True, nullable=False),
        sa.Column("node_id", sa.String(64), nullable=False),
        sa.Column("model", _NAME, nullable=False),
        *columns,
        sa.PrimaryKeyConstraint("id", name=f"pk_{name}"),
    )


def _make_history() -> None:
    _numbered(
        "activations",
        sa.Column("alias", _ALIAS, nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("digest", _DIGEST, nullable=False),
        sa.Column("previous_version", sa.Integer()),
        sa.Column("previous_digest", _DIGEST),
        sa.Column("asked_by", sa.String(16), nullable=False),
        sa.Column("at", sa.Float(), nullable=False),
        sa.Column("generation", sa.Integer(), nullable=False),
    )
    op.create_index(
        "ix_activations_node_id_model_alias_id",
        "activations",
        ["node_id", "model", "alias", "id"],
    )
    _numbered(
        "attempts",
        sa.Column("alias", _ALIAS),
        sa.Column("version", sa.Integer()),
        sa.Column("action", sa.String(16), nullable=False),
        sa.Column("asked_by", sa.String(16), nullable=False),
        sa.Column("started_at", sa.Float(), nullable=False),
        sa.Column("durations_s", sa.JSON(), nullable=False),
        sa.Column("outcome", sa.String(16), nullable=False),
        sa.Column("reason", sa.Text()),
    )
    op.create_index("ix_attempts_node_id_model_id", "attempts", ["node_id", "model", "id"])


def _make_verdicts() -> None:
    _numbered(
        "quarantines",
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("expected_digest", _DIGEST),
        sa.Column("listing", sa.Text()),
        sa.Column("found_digest", _DIGEST),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("at", sa.Float(), nullable=False),
        sa.Column("released_at", sa.Float()),
    )
    _numbered(
        "rejections",
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("digest", _DIGEST, nullable=False),
        sa.Column("failure", sa.String(32), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("at", sa.Float(), nullable=False),
        sa.Column("released_at", sa.Float()),
    )
    for name in ("quarantines", "rejections"):
        op.create_index(f"ix_{name}_node_id_model_version", name, ["node_id", "model", "version"])


def _make_state() -> None:
    _numbered(
        "holds",
        sa.Column("alias", _ALIAS, nullable=False),
        sa.Column("aspired_version", sa.Integer()),
        sa.Column("target_version", sa.Integer(), nullable=False),
        sa.Column("target_digest", _DIGEST, nullable=False),
        sa.Column("asked_by", sa.String(16), nullable=False),
        sa.Column("at", sa.Float(), nullable=False),
        sa.Column("released_at", sa.Float()),
    )
    still_open = sa.text("released_at IS NULL")
    op.create_index(
        "uq_holds_open",
        "holds",
        ["node_id", "model", "alias"],
        unique=True,
        sqlite_where=still_open,
        postgresql_where=still_open,
    )
    op.create_table(
        "pins",
        sa.Column("node_id", sa.String(64), nullable=False),
        sa.Column("model", _NAME, nullable=False),
        sa.Column("version", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("digest", _DIGEST, nullable=False),
        sa.Column("expected_digest", _DIGEST),
        sa.Column("stamped", sa.Boolean(create_constraint=False), nullable=False),
        sa.Column("listing", sa.Text()),
        sa.Column("at", sa.Float(), nullable=False),
        sa.PrimaryKeyConstraint("node_id", "model", "version", name="pk_pins"),
    )
    op.create_table(
        "listings",
        sa.Column("node_id", sa.String(64), nullable=False),
        sa.Column("listed_at", sa.Float(), nullable=False),
        sa.Column("body", sa.JSON(), nullable=False),
        sa.PrimaryKeyConstraint("node_id", name="pk_listings"),
    )
