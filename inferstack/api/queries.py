"""What callers write in queries."""

import re
from datetime import UTC, datetime

from inferstack.errors import wrong_field

END = datetime(9999, 1, 1, tzinfo=UTC).timestamp()
"""Later times could not be calculated with: the last year there is lies behind."""
_UNIX = re.compile(r"[0-9]{1,11}(\.[0-9]{1,9})?")


def seconds(text: str, field: str) -> float:
    """Unix seconds of an ISO 8601 time, or of a number of them; a time without a zone is UTC.

    Raises:
        InvalidRequestError: it is neither, or of another age; names the field.
    """
    found = _seconds(text, field)
    if not 0 <= found < END:
        raise wrong_field(field, "takes a time from 1970 to 9998")
    return found


def _seconds(text: str, field: str) -> float:
    if _UNIX.fullmatch(text):
        return float(text)
    try:
        # A plus sign that was not escaped in the query arrives as a space.
        when = datetime.fromisoformat(text.replace(" ", "+") if "T" in text else text)
    except ValueError:
        raise wrong_field(field, "takes an ISO 8601 time or Unix seconds") from None
    return (when if when.tzinfo else when.replace(tzinfo=UTC)).timestamp()


def refuse_nul(**values: str | None) -> None:
    """PostgreSQL takes no text with a NUL, so nothing can match one.

    Raises:
        InvalidRequestError: a value holds one; names its field.
    """
    for field, value in values.items():
        if value is not None and "\0" in value:
            raise wrong_field(field, "takes no NUL")
