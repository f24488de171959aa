"""Spans, sent to an OpenTelemetry collector: OTLP over HTTP, in its JSON form.

No SDK: what there is to tell of a step is known when it ends, so a span is one record, and nothing
is kept in a context meanwhile. Without an endpoint none of this is even made.
https://opentelemetry.io/docs/specs/otlp/#otlphttp
"""

import asyncio
import logging
import random
import secrets
from collections import deque
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from inferstack import __version__
from inferstack.config import Settings

if TYPE_CHECKING:
    import httpx

log = logging.getLogger(__name__)

MOST_WAITING = 20_000
"""Spans that wait to be sent; the oldest go when there are more."""
MOST_SENT = 1000
"""Spans of one request to the collector."""
INTERVAL = 1.0
"""Seconds between two requests while there is anything to send."""
PATIENCE = 5.0
"""Seconds that the collector may take for one."""

SERVER, CONSUMER, INTERNAL = 2, 5, 1
"""Kinds of spans, as OTLP numbers them."""

_encode = msgspec.json.Encoder().encode


class Context(msgspec.Struct, frozen=True):
    """Where a span hangs: the W3C trace context, version 00."""

    trace_id: str
    """32 hexadecimal digits."""
    span_id: str
    """16 of them."""
    sampled: bool = True

    @classmethod
    def parse(cls, traceparent: str) -> "Context":
        """From a traceparent that is known to be valid."""
        _, trace_id, span_id, flags = traceparent.split("-")[:4]
        return cls(trace_id, span_id, bool(int(flags, 16) & 1))

    @property
    def traceparent(self) -> str:
        """As it is handed on."""
        return f"00-{self.trace_id}-{self.span_id}-{int(self.sampled):02x}"

    def child(self, span_id: str | None = None) -> "Context":
        """Of a span below; with an id of its own, or a new one."""
        return Context(self.trace_id, span_id or secrets.token_hex(8), self.sampled)


class Span(msgspec.Struct, frozen=True, kw_only=True):
    """One step, finished. Times are seconds since the epoch."""

    context: Context
    parent: str
    """Id of the span above; empty if there is none."""
    service: str
    """Which program did it, such as `inferstack-api`."""
    name: str
    start: float
    end: float
    kind: int = INTERNAL
    attributes: Mapping[str, str | int | float] = {}
    error: str = ""
    """Why it failed; empty if it did not."""


class Tracer:
    """Takes spans and sends them, many at a time. Losing some is no harm; waiting would be."""

    def __init__(self, endpoint: str, share: float) -> None:
        """Sends nothing yet.

        Args:
            endpoint: base URL of the collector, such as `http://127.0.0.1:4318`.
            share: of the requests without a trace of their own that begin one, 0 to 1.
        """
        self._url = f"{endpoint.rstrip('/')}/v1/traces"
        self._share = share
        self._waiting: deque[Span] = deque(maxlen=MOST_WAITING)
        self._failing = False
        self._sending: asyncio.Task[None] | None = None

    @classmethod
    def from_settings(cls, settings: Settings) -> "Tracer | None":
        """None without OTEL_EXPORTER_OTLP_ENDPOINT."""
        endpoint = settings.otel_exporter_otlp_endpoint
        return None if endpoint is None else cls(endpoint, settings.trace_share)

    def begin(self, traceparent: str | None) -> tuple[Context, str]:
        """The context of a new span, and the id of the one above: the caller's, if it has one."""
        if traceparent is not None:
            above = Context.parse(traceparent)
            return above.child(), above.span_id
        sampled = random.random() < self._share
        return Context(secrets.token_hex(16), secrets.token_hex(8), sampled), ""

    def add(self, span: Span) -> None:
        """Takes a span if its trace is to be kept."""
        if span.context.sampled:
            self._waiting.append(span)

    def start(self) -> None:
        """Sends from now on."""
        self._sending = asyncio.create_task(self._send_forever())

    async def stop(self) -> None:
        """Sends what is left, and no more."""
        if self._sending is not None:
            self._sending.cancel()
            await asyncio.wait([self._sending], timeout=PATIENCE)

    async def _send_forever(self) -> None:
        # It takes a tenth of a second to import, and most processes send no spans.
        import httpx

        async with httpx.AsyncClient(timeout=PATIENCE) as client:
            try:
                while True:
                    await asyncio.sleep(INTERVAL)
                    while self._waiting and await self._send(client):
                        pass
            finally:
                await self._send(client)

    async def _send(self, client: "httpx.AsyncClient") -> bool:
        """Sends the oldest spans; whether the collector took them. It gets each only once."""
        count = min(MOST_SENT, len(self._waiting))
        if not count:
            return True
        spans = [self._waiting.popleft() for _ in range(count)]
        try:
            body = _encode(request(spans))
            answer = await client.post(
                self._url, content=body, headers={"content-type": "application/json"}
            )
            answer.raise_for_status()
        except Exception as error:
            # Whatever it is, the next ones are to be sent.
            if not self._failing:
                log.warning("spans are lost: %s: %s", self._url, error or type(error).__name__)
            self._failing = True
            return False
        self._failing = False
        return True


def request(spans: Sequence[Span]) -> dict[str, Any]:
    """The body of an OTLP export."""
    services = dict.fromkeys(span.service for span in spans)
    return {
        "resourceSpans": [
            {
                "resource": {"attributes": _attributes({"service.name": service})},
                "scopeSpans": [
                    {
                        "scope": {"name": "inferstack", "version": __version__},
                        "spans": [_span(span) for span in spans if span.service == service],
                    }
                ],
            }
            for service in services
        ]
    }


def _span(span: Span) -> dict[str, Any]:
    made = {
        "traceId": span.context.trace_id,
        "spanId": span.context.span_id,
        "name": span.name,
        "kind": span.kind,
        "startTimeUnixNano": str(round(span.start * 1e9)),
        "endTimeUnixNano": str(round(max(span.start, span.end) * 1e9)),
        "attributes": _attributes(span.attributes),
        "status": {"code": 2, "message": span.error} if span.error else {},
    }
    return made | {"parentSpanId": span.parent} if span.parent else made


def _attributes(values: Mapping[str, str | int | float]) -> list[dict[str, Any]]:
    return [{"key": key, "value": _value(value)} for key, value in values.items()]


def _value(value: str | int | float) -> dict[str, Any]:
    if isinstance(value, int):
        return {"intValue": str(value)}
    return {"doubleValue": value} if isinstance(value, float) else {"stringValue": value}
