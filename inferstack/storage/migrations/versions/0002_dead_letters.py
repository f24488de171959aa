"""Redriving failed tasks."""

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

COLUMNS: dict[str, sa.types.TypeEngine[Any]] = {
    "redrive_of": sa.Uuid(),
    "redriven_as": sa.Uuid(),
    "redriven_version": sa.BigInteger(),
    "redriven_at": sa.DateTime(timezone=True),
}


def upgrade() -> None:
    """Adds empty columns, which rewrites no row, and a small index."""
    for name, kind in COLUMNS.items():
        op.add_column("tasks", sa.Column(name, kind))
    op.create_index(
        "tasks_dead_letters",
        "tasks",
        ["tenant", "completed_at", "id"],
        postgresql_where=sa.text("state = 'failed' AND redriven_at IS NULL"),
    )


def downgrade() -> None:
    """Forgets what was redriven."""
    op.drop_index("tasks_dead_letters", "tasks")
    for name in COLUMNS:
        op.drop_column("tasks", name)
