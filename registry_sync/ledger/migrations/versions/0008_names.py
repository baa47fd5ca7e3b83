"""Rename what the first release calls otherwise: a table, four pairs of columns, three values.

The one exception to "expand, then contract": before the first release, names may change in place.
Stop every control plane of the ledger before.
"""

from __future__ import annotations

from alembic import op
from sqlalchemy import Boolean, Column, false

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

_ENDED = ("quarantines", "rejections", "holds", "freezes")
_INITIATED = ("activations", "attempts", "holds", "quarantines")


def upgrade() -> None:
    """Rename. An index that names a column follows it on both databases."""
    op.rename_table("pins", "accepted_digests")
    _rename_key("accepted_digests", "pins")
    for table in _ENDED:
        _rename(table, "released_at", "ended_at")
        _rename(table, "released_by", "ended_by")
    _replace("rule", "gateway")
    op.add_column("rejections", Column("own", Boolean, nullable=False, server_default=false()))
    op.execute(
        "UPDATE rejections SET own = true, failure = substr(failure, 5) "
        "WHERE substr(failure, 1, 4) = 'own_'"
    )
    op.execute("UPDATE attempts SET action = 'end_hold' WHERE action = 'release'")
    op.execute("UPDATE attempts SET action = 'allow_digest' WHERE action = 'release_digest'")


def downgrade() -> None:
    """Rename back."""
    op.execute("UPDATE attempts SET action = 'release_digest' WHERE action = 'allow_digest'")
    op.execute("UPDATE attempts SET action = 'release' WHERE action = 'end_hold'")
    op.execute("UPDATE rejections SET failure = 'own_' || failure WHERE own")
    op.drop_column("rejections", "own")
    _replace("gateway", "rule")
    for table in _ENDED:
        _rename(table, "ended_by", "released_by")
        _rename(table, "ended_at", "released_at")
    op.rename_table("accepted_digests", "pins")
    _rename_key("pins", "accepted_digests")


def _rename(table: str, old: str, new: str) -> None:
    op.execute(f"ALTER TABLE {table} RENAME COLUMN {old} TO {new}")


def _rename_key(table: str, old_table: str) -> None:
    """Name the primary key after its table. SQLite's keys need no names."""
    if op.get_context().dialect.name == "postgresql":
        op.execute(f"ALTER TABLE {table} RENAME CONSTRAINT pk_{old_table} TO pk_{table}")


def _replace(old: str, new: str) -> None:
    for table in _INITIATED:
        op.execute(f"UPDATE {table} SET asked_by = '{new}' WHERE asked_by = '{old}'")  # noqa: S608  # no input
