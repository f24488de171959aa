"""The OpenAPI document that the web UI's types are made from."""

from pathlib import Path

from inferstack.api.document import text

CHECKED_IN = Path(__file__).parents[2] / "frontend" / "openapi.json"


def test_the_document_that_is_checked_in_is_that_of_the_code() -> None:
    assert CHECKED_IN.read_text() == text(), "the API has changed: run `make openapi`"
