"""When a row of a task was written, so that usage finds what was archived late."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Adds two columns, which rewrites no row, and a small index.

    All rows count as written now: the next sums are made of all that is there.
    """
    for table, name in (("tasks", "recorded_at"), ("usage", "summed_at")):
        kind = sa.DateTime(timezone=True)
        op.add_column(table, sa.Column(name, kind, nullable=False, server_default=sa.func.now()))
    op.create_index("tasks_recorded_at", "tasks", ["recorded_at"], postgresql_using="brin")


def downgrade() -> None:
    """Forgets when that was."""
    op.drop_index("tasks_recorded_at", "tasks")
    op.drop_column("usage", "summed_at")
    op.drop_column("tasks", "recorded_at")
