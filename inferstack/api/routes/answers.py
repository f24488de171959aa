"""JSON that routes answer with, and how the OpenAPI document describes it."""

from typing import Any

import msgspec
from fastapi import Response

Described = dict[int | str, dict[str, Any]]
"""What a route answers, by status."""

_encode = msgspec.json.Encoder().encode


def answer(value: Any, status: int = 200) -> Response:
    """A response with a value of msgspec's as its JSON."""
    return Response(_encode(value), status, media_type="application/json")


def described(schema: str, description: str, status: int = 200, **more: Any) -> Described:
    """An answer in the document; arguments as of `content`."""
    return {status: {"description": description, "content": content(schema, **more)}}


def content(schema: str, media: str = "application/json", **more: Any) -> dict[str, Any]:
    """What a body holds.

    Args:
        schema: its name in the document.
        media: its content type.
        more: such as `example`.
    """
    return {media: {"schema": ref(schema), **more}}


def ref(schema: str) -> dict[str, str]:
    """Refers to a schema of the document."""
    return {"$ref": f"#/components/schemas/{schema}"}
