"""The schema's history, and the function that brings a database up to date."""

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy import text

from inferstack.storage.database import sync_engine, translated

LOCK = 0x696E6665
"""Key of the advisory lock: of several processes that migrate at once, one works, others wait."""


def knows(revision: str) -> bool:
    """Whether this version of inferstack can go on from tables of that version."""
    scripts = ScriptDirectory.from_config(_config())
    return revision in {script.revision for script in scripts.walk_revisions()}


def migrate(database_url: str) -> None:
    """Brings the schema to the newest version; does nothing when it is there.

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
