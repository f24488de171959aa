"""Usage by the hour, and what finds unfinished and finished tasks quickly."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

COUNTS = ("completed", "failed", "cancelled", "expired")
SUMS = ("compute_seconds", "queue_seconds", "cost")


def upgrade() -> None:
    """Adds a table and two indexes; writes of tasks wait while the indexes are made."""
    op.create_table(
        "usage",
        sa.Column("hour", sa.DateTime(timezone=True), primary_key=True),
        sa.Column("tenant", sa.Text(), primary_key=True),
        sa.Column("model", sa.Text(), primary_key=True),
        sa.Column("model_version", sa.BigInteger(), primary_key=True),
        *(sa.Column(name, sa.BigInteger(), nullable=False) for name in COUNTS),
        *(sa.Column(name, sa.Double(), nullable=False) for name in SUMS),
    )
    op.create_index(
        "tasks_unfinished",
        "tasks",
        ["id"],
        postgresql_where=sa.text("state IN ('queued', 'running')"),
    )
    op.create_index("tasks_completed_at", "tasks", ["completed_at"], postgresql_using="brin")


def downgrade() -> None:
    """Forgets the sums."""
    op.drop_index("tasks_completed_at", "tasks")
    op.drop_index("tasks_unfinished", "tasks")
    op.drop_table("usage")
