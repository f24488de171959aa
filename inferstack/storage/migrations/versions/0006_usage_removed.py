"""What tasks had of their hours that are removed by now, so that usage keeps counting them."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

COUNTS = ("completed", "failed", "cancelled", "expired")
SUMS = ("compute_seconds", "queue_seconds", "cost")


def upgrade() -> None:
    """Adds an empty table; what was removed earlier stays in the sums that were made before."""
    op.create_table(
        "usage_removed",
        sa.Column("hour", sa.DateTime(timezone=True), primary_key=True),
        sa.Column("tenant", sa.Text(), primary_key=True),
        sa.Column("model", sa.Text(), primary_key=True),
        sa.Column("model_version", sa.BigInteger(), primary_key=True),
        *(sa.Column(name, sa.BigInteger(), nullable=False) for name in COUNTS),
        *(sa.Column(name, sa.Double(), nullable=False) for name in SUMS),
        sa.Column("recorded_at", sa.DateTime(timezone=True), nullable=False, index=True),
    )


def downgrade() -> None:
    """Forgets them; the sums that were made stay."""
    op.drop_table("usage_removed")
