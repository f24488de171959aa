"""`/api/usage`: who used what."""

from datetime import UTC, datetime, timedelta
from typing import Annotated

from fastapi import APIRouter, Query
from pydantic import BaseModel

from inferstack.api.queries import seconds
from inferstack.api.routes.dependencies import CallerOf, ServicesOf
from inferstack.errors import wrong_field
from inferstack.storage.usage import Period, UsageLine

router = APIRouter(tags=["usage"])

USUAL = {"hour": timedelta(days=1), "day": timedelta(days=30), "month": timedelta(days=366)}
MOST = {"hour": timedelta(days=31), "day": timedelta(days=366), "month": timedelta(days=3660)}

TIME = "ISO 8601 time or Unix seconds"


class UsageReport(BaseModel):
    """Sums, oldest first; they are brought up to date every five minutes."""

    since: datetime
    until: datetime
    usage: list[UsageLine]


@router.get("/api/usage")
async def usage(
    services: ServicesOf,
    who: CallerOf,
    period: Annotated[Period, Query(description="What one line sums up.")] = "day",
    since: Annotated[str | None, Query(max_length=64, description=f"{TIME}: the first.")] = None,
    until: Annotated[str | None, Query(max_length=64, description=f"{TIME}: the end.")] = None,
) -> UsageReport:
    """The caller's usage by period, model and version; an admin reads everybody's."""
    end = datetime.now(UTC)
    if until is not None:
        end = datetime.fromtimestamp(seconds(until, "until"), UTC)
    start = end - USUAL[period]
    if since is not None:
        start = datetime.fromtimestamp(seconds(since, "since"), UTC)
    if not timedelta(0) < end - start <= MOST[period]:
        raise wrong_field("since", f"lies 1 second to {MOST[period].days} days before until")
    lines = await services.usage.read(who.scope, start, end, period)
    return UsageReport(since=start, until=end, usage=lines)
