"""`inferstack migrate`."""

from inferstack import config
from inferstack.cli.output import answers
from inferstack.errors import ConfigurationError
from inferstack.local.control import known_settings
from inferstack.local.home import Home


def migrate() -> None:
    """Brings the database's tables to the newest version."""
    # Imported by this command alone: SQLAlchemy takes longer to import than `status` to run.
    from inferstack.storage.migrations import migrate as bring_up_to_date

    wanted = config.settings()
    url = known_settings(Home(wanted.inferstack_home), wanted).database_url
    if url is None:
        raise ConfigurationError("DATABASE_URL is not set and no stack ever ran here")
    bring_up_to_date(url)
    answers.print("The tables are up to date.")
