"""The live overview, as one stream of server-sent events."""

from fastapi import APIRouter
from starlette.responses import StreamingResponse

from inferstack.api.routes.answers import described
from inferstack.api.routes.dependencies import CallerOf, ServicesOf

router = APIRouter(prefix="/api/overview", tags=["overview"])

ANSWERS = described(
    "OverviewSample",
    "Event `history` (`OverviewHistory`), then `sample` every second.",
    media="text/event-stream",
)


@router.get("/stream", response_class=StreamingResponse, responses=ANSWERS)
async def stream(services: ServicesOf, _: CallerOf) -> StreamingResponse:
    """Throughput, latency, queues, replicas, devices and health, every second."""
    return StreamingResponse(
        services.overview.listen(),
        media_type="text/event-stream",
        # Tells NGINX to pass events on as they come.
        headers={"x-accel-buffering": "no"},
    )
