"""From the outbox in Redis to the history in PostgreSQL."""
