"""${message}

The rule: this must work with the code of the release before it (expand now, contract one release
later; see README.md beside this folder). SQLite and PostgreSQL; `op.batch_alter_table` for tables
that exist; every table carries node_id.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
${imports if imports else ""}
revision = ${repr(up_revision)}
down_revision = ${repr(down_revision)}
branch_labels = ${repr(branch_labels)}
depends_on = ${repr(depends_on)}


def upgrade() -> None:
    """Say what is added."""
    ${upgrades if upgrades else "pass"}


def downgrade() -> None:
    """Take it back, or say why that cannot be."""
    ${downgrades if downgrades else "pass"}
