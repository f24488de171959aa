"""`inferstack migrate`."""

from inferstack.cli import place
from inferstack.cli.output import answers


def migrate() -> None:
    """Brings the database's tables to the newest version."""
    # Imported by this command alone: SQLAlchemy takes longer to import than `status` to run.
    from inferstack.storage.migrations import migrate as bring_up_to_date

    bring_up_to_date(place.with_database().database_url or "")
    answers.print("The tables are up to date.")
