"""The hot routes with a span for each submit; used only where spans are sent somewhere."""

import time

from inferstack.api import preferences
from inferstack.api.auth import Authenticator
from inferstack.api.exchange import Request, Response
from inferstack.api.hot import COLLECTION, HotRoutes
from inferstack.api.meter import Meter
from inferstack.errors import InferstackError
from inferstack.lifecycle.tasks import Tasks
from inferstack.telemetry.traces import SERVER, Span, Tracer


class TracedRoutes(HotRoutes):
    """Hands the task the span of its request as the one to hang its own below."""

    def __init__(
        self,
        tasks: Tasks,
        authenticator: Authenticator,
        meter: Meter,
        longest_wait: float,
        tracer: Tracer,
    ) -> None:
        """Args: tracer: gets a span for each submit."""
        super().__init__(tasks, authenticator, meter, longest_wait)
        self._tracer = tracer

    async def submit(self, request: Request) -> Response:
        """As `HotRoutes.submit`."""
        given = preferences.traceparent(request.headers.get(b"traceparent"))
        context, parent = self._tracer.begin(given)
        request.headers[b"traceparent"] = context.traceparent.encode("ascii")
        start, status, reason = time.time(), 500, "the server failed"
        try:
            response = await super().submit(request)
            status, reason = response.status, ""
        except InferstackError as error:
            status, reason = error.status, error.detail
            raise
        else:
            return response
        finally:
            self._tracer.add(
                Span(
                    context=context,
                    parent=parent,
                    service="inferstack-api",
                    name=f"POST {COLLECTION}",
                    start=start,
                    end=time.time(),
                    kind=SERVER,
                    attributes={
                        "http.request.method": "POST",
                        "http.route": COLLECTION,
                        "http.response.status_code": status,
                    },
                    # A refusal is no failure of the server.
                    error=reason if status >= 500 else "",
                )
            )
