"""The tables as queries see them. The migrations make them; a test compares the two."""

from typing import Any

from sqlalchemy import (
    JSON,
    REAL,
    BigInteger,
    Column,
    DateTime,
    Double,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
    Uuid,
    func,
    text,
)

metadata = MetaData()

installation = Table("installation", metadata, Column("id", Uuid, primary_key=True))
"""One row, made with the tables: see `installation.py`."""

users = Table(
    "users",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("username", Text, nullable=False, unique=True),
    Column("password_hash", Text, nullable=False),
    Column("tenant", Text, nullable=False),
    Column("role", Text, nullable=False),
    Column("created_at", DateTime(timezone=True), nullable=False, server_default=func.now()),
)

api_keys = Table(
    "api_keys",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("user_id", ForeignKey("users.id", ondelete="CASCADE"), nullable=False, index=True),
    Column("name", Text, nullable=False),
    # SHA-256 of the key. The key has 256 random bits, so a slow hash would add nothing.
    Column("digest", LargeBinary, nullable=False, unique=True),
    # The first characters, so that its owner can tell which key it is.
    Column("prefix", Text, nullable=False),
    Column("created_at", DateTime(timezone=True), nullable=False, server_default=func.now()),
    Column("revoked_at", DateTime(timezone=True)),
)

models = Table(
    "models",
    metadata,
    Column("model", Text, primary_key=True),
    Column("version", BigInteger, primary_key=True, autoincrement=False),
    Column("state", Text, nullable=False),
    Column("reason", Text),
    Column("engine", Text, nullable=False),
    # The whole Deployment as the registry held it.
    Column("config", JSON, nullable=False),
    Column("updated_at", DateTime(timezone=True), nullable=False, server_default=func.now()),
)

tasks = Table(
    "tasks",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("tenant", Text, nullable=False),
    # `user` is a reserved word: an unquoted `SELECT user` answers with the database role.
    Column("user_name", Text),
    Column("model", Text, nullable=False),
    Column("model_version", BigInteger, nullable=False),
    Column("priority", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("state_version", BigInteger, nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("crashes", Integer, nullable=False),
    Column("cost", Double, nullable=False),
    Column("timeout", Double),
    Column("created_at", DateTime(timezone=True), nullable=False),
    Column("started_at", DateTime(timezone=True)),
    Column("completed_at", DateTime(timezone=True)),
    Column("queue_ms", REAL),
    Column("batch_wait_ms", REAL),
    Column("compute_ms", REAL),
    Column("batch_size", Integer),
    Column("worker", Text),
    # json, not jsonb: jsonb costs a parse on every write and refuses \u0000.
    Column("input", JSON),
    Column("input_ref", Text),
    Column("result", JSON),
    Column("result_ref", Text),
    Column("error", JSON),
    Column("metadata", JSON),
    Column("webhook", Text),
    Column("idempotency_key", Text),
    Column("trace", Text),
    # The failed task that this one repeats.
    Column("redrive_of", Uuid),
    # The task that repeats this one, and its model version; written before that task exists.
    Column("redriven_as", Uuid),
    Column("redriven_version", BigInteger),
    # When that task was known to exist: from then on this one is no dead letter.
    Column("redriven_at", DateTime(timezone=True)),
    # When the recorder wrote this row, by the clock of PostgreSQL.
    Column("recorded_at", DateTime(timezone=True), nullable=False, server_default=func.now()),
    Index("tasks_tenant_id", "tenant", "id"),
    # Nearly every task completes, so this stays small, and it makes the rare states quick to
    # list: what waits, what runs, what failed.
    Index(
        "tasks_tenant_state_id",
        "tenant",
        "state",
        "id",
        postgresql_where=text("state <> 'completed'"),
    ),
    Index(
        "tasks_dead_letters",
        "tenant",
        "completed_at",
        "id",
        postgresql_where=text("state = 'failed' AND redriven_at IS NULL"),
    ),
    # Few tasks are unfinished at a time, whatever the table holds.
    Index("tasks_unfinished", "id", postgresql_where=text("state IN ('queued', 'running')")),
    # Tasks end about in the order of their rows: a range of times is found in a few kilobytes.
    Index("tasks_completed_at", "completed_at", postgresql_using="brin"),
    Index("tasks_recorded_at", "recorded_at", postgresql_using="brin"),
)


def _sums() -> list[Column[Any]]:
    """What a tenant had of a model version in an hour."""
    return [
        Column("hour", DateTime(timezone=True), primary_key=True),
        Column("tenant", Text, primary_key=True),
        Column("model", Text, primary_key=True),
        Column("model_version", BigInteger, primary_key=True),
        Column("completed", BigInteger, nullable=False),
        Column("failed", BigInteger, nullable=False),
        Column("cancelled", BigInteger, nullable=False),
        Column("expired", BigInteger, nullable=False),
        Column("compute_seconds", Double, nullable=False),
        Column("queue_seconds", Double, nullable=False),
        Column("cost", Double, nullable=False),
    ]


usage = Table(
    "usage",
    metadata,
    *_sums(),
    Column("summed_at", DateTime(timezone=True), nullable=False, server_default=func.now()),
)

usage_removed = Table(
    "usage_removed",
    metadata,
    *_sums(),
    # When the last of these tasks was recorded, as their rows said.
    Column("recorded_at", DateTime(timezone=True), nullable=False, index=True),
)
"""The part of the sums whose tasks were removed: see `usage.py`."""
