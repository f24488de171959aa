"""Writes the OpenAPI document: `python -m inferstack.api.document > frontend/openapi.json`."""

import json

from inferstack.api.app import routes


def text() -> str:
    """The document as it is checked in, so that changes of the API are seen in reviews."""
    return json.dumps(routes().openapi(), indent=1, sort_keys=True) + "\n"


if __name__ == "__main__":
    print(text(), end="")
