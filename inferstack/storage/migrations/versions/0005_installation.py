"""By what an object store tells which database it belongs to."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Adds a table of one row."""
    table = op.create_table("installation", sa.Column("id", sa.Uuid(), primary_key=True))
    op.execute(table.insert().from_select(["id"], sa.select(sa.func.gen_random_uuid())))


def downgrade() -> None:
    """Forgets it; the object store keeps its half, and belongs to nobody who comes again."""
    op.drop_table("installation")
