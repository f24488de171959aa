"""The schema's history, and the function that brings a database up to date."""

import logging
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import text

from inferstack.storage.database import sync_engine, translated

log = logging.getLogger(__name__)

LOCK = 0x696E6665
"""Key of the advisory lock: of several processes that migrate at once, one works, others wait."""


def knows(revision: str) -> bool:
    """Whether this version of inferstack can go on from tables of that version."""
    scripts = ScriptDirectory.from_config(_config())
    return revision in {script.revision for script in scripts.walk_revisions()}


def migrate(database_url: str) -> None:
    """Brings the schema to the newest version; does nothing when it is there.

    Migrations only add, so a schema that a later version has made is left as it is: whoever rolls
    back goes on with it.

    Args:
        database_url: `postgresql://...`, as a user who may create tables.

    Raises:
        ConfigurationError: the URL is not one of PostgreSQL.
        StorageUnavailableError: PostgreSQL does not answer.
    """
    config = _config()
    engine = sync_engine(database_url)
    try:
        with translated(), engine.begin() as connection:
            connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": LOCK})
            revision = MigrationContext.configure(connection).get_current_revision()
            if revision is not None and not knows(revision):
                log.warning("the tables are of a later version (%s) and stay as they are", revision)
                return
            config.attributes["connection"] = connection
            command.upgrade(config, "head")
    finally:
        engine.dispose()


def _config() -> Config:
    config = Config()
    # Config reads `%` as the start of an interpolation.
    config.set_main_option("script_location", str(Path(__file__).parent).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    return config
