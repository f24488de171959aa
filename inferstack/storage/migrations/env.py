"""Run by alembic; the connection comes from `migrate`, which also ends the transaction."""

from alembic import context

from inferstack.storage.tables import metadata

context.configure(connection=context.config.attributes["connection"], target_metadata=metadata)
context.run_migrations()
