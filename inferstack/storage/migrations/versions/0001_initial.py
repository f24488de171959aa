"""Users, API keys, models and the history of tasks."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Makes all four tables."""
    _create_accounts()
    _create_models()
    _create_tasks()
    _tune_tasks()


def downgrade() -> None:
    """Drops all four tables and what is in them."""
    for table in ("tasks", "models", "api_keys", "users"):
        op.drop_table(table)


def _now(name: str) -> sa.Column[object]:
    return sa.Column(
        name, sa.DateTime(timezone=True), nullable=False, server_default=sa.text("now()")
    )


def _create_accounts() -> None:
    op.create_table(
        "users",
        sa.Column("id", sa.Uuid, primary_key=True),
        sa.Column("username", sa.Text, nullable=False, unique=True),
        sa.Column("password_hash", sa.Text, nullable=False),
        sa.Column("tenant", sa.Text, nullable=False),
        sa.Column("role", sa.Text, nullable=False),
        _now("created_at"),
    )
    op.create_table(
        "api_keys",
        sa.Column("id", sa.Uuid, primary_key=True),
        sa.Column(
            "user_id", sa.Uuid, sa.ForeignKey("users.id", ondelete="CASCADE"), nullable=False
        ),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("digest", sa.LargeBinary, nullable=False, unique=True),
        sa.Column("prefix", sa.Text, nullable=False),
        _now("created_at"),
        sa.Column("revoked_at", sa.DateTime(timezone=True)),
    )
    op.create_index("ix_api_keys_user_id", "api_keys", ["user_id"])


def _create_models() -> None:
    op.create_table(
        "models",
        sa.Column("model", sa.Text, primary_key=True),
        sa.Column("version", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("reason", sa.Text),
        sa.Column("engine", sa.Text, nullable=False),
        sa.Column("config", sa.JSON, nullable=False),
        _now("updated_at"),
    )


def _create_tasks() -> None:
    op.create_table(
        "tasks",
        sa.Column("id", sa.Uuid, primary_key=True),
        sa.Column("tenant", sa.Text, nullable=False),
        sa.Column("user_name", sa.Text),
        sa.Column("model", sa.Text, nullable=False),
        sa.Column("model_version", sa.BigInteger, nullable=False),
        sa.Column("priority", sa.Text, nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("state_version", sa.BigInteger, nullable=False),
        sa.Column("attempts", sa.Integer, nullable=False),
        sa.Column("crashes", sa.Integer, nullable=False),
        sa.Column("cost", sa.Double, nullable=False),
        sa.Column("timeout", sa.Double),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("started_at", sa.DateTime(timezone=True)),
        sa.Column("completed_at", sa.DateTime(timezone=True)),
        *(sa.Column(name, sa.REAL) for name in ("queue_ms", "batch_wait_ms", "compute_ms")),
        sa.Column("batch_size", sa.Integer),
        sa.Column("worker", sa.Text),
        sa.Column("input", sa.JSON),
        sa.Column("input_ref", sa.Text),
        sa.Column("result", sa.JSON),
        sa.Column("result_ref", sa.Text),
        sa.Column("error", sa.JSON),
        sa.Column("metadata", sa.JSON),
        sa.Column("webhook", sa.Text),
        sa.Column("idempotency_key", sa.Text),
        sa.Column("trace", sa.Text),
    )


def _tune_tasks() -> None:
    # Large bodies move out of the row as they are: compressing them would cost the archiver
    # more than writing them does.
    for column in ("input", "result"):
        op.execute(f"ALTER TABLE tasks ALTER COLUMN {column} SET STORAGE EXTERNAL")
    op.create_index("tasks_tenant_id", "tasks", ["tenant", "id"])
    op.create_index(
        "tasks_tenant_state_id",
        "tasks",
        ["tenant", "state", "id"],
        postgresql_where=sa.text("state <> 'completed'"),
    )
