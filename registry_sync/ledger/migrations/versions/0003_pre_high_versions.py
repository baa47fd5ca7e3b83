"""Expand: versions beyond 2^31, such as a timestamp.

PostgreSQL widens the columns in place. It rewrites the tables, which are small, since history is
bounded; the release before can still read and write them. SQLite's integers have 64 bits.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

_HIGHEST = 2**31 - 1
_NEEDED = {
    "activations": ("version",),
    "attempts": ("version",),
    "quarantines": ("version",),
    "rejections": ("version",),
    "holds": ("target_version",),
    "pins": ("version",),
}
_NULLABLE = {"activations": ("previous_version",), "holds": ("aspired_version",)}
_WITH = {"previous_version": {"previous_digest": None}}


def upgrade() -> None:
    """Widen every column that holds a version."""
    _alter(sa.Integer(), sa.BigInteger())


def downgrade() -> None:
    """Narrow the columns. Records of higher versions are lost."""
    if _is_sqlite():
        return
    for table, columns in _NEEDED.items():
        for column in columns:
            op.execute(sa.delete(sa.table(table)).where(_is_high(column)))
    for table, columns in _NULLABLE.items():
        for column in columns:
            nothing = {column: None, **_WITH.get(column, {})}
            changed = sa.table(table, *(sa.column(name) for name in nothing))
            op.execute(sa.update(changed).where(_is_high(column)).values(nothing))
    _alter(sa.BigInteger(), sa.Integer())


def _alter(before: sa.types.TypeEngine[int], after: sa.types.TypeEngine[int]) -> None:
    if _is_sqlite():
        return
    for table, columns in _NEEDED.items():
        with op.batch_alter_table(table) as batch:
            for column in (*columns, *_NULLABLE.get(table, ())):
                batch.alter_column(column, existing_type=before, type_=after)


def _is_high(column: str) -> sa.ColumnElement[bool]:
    return sa.column(column) > _HIGHEST


def _is_sqlite() -> bool:
    return op.get_context().dialect.name == "sqlite"
