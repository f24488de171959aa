"""Spans, and what a collector gets of them."""

import asyncio
import json
import time
from typing import Any

import httpx
import msgspec
import pytest
from google.protobuf import json_format
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2

from inferstack.api.exchange import Request
from inferstack.config import load
from inferstack.errors import InferstackError, QueueUnavailableError
from inferstack.recorder.spans import trace
from inferstack.task import Execution, Task, TaskError, TaskSpec, TaskState
from inferstack.telemetry import traces
from inferstack.telemetry.traces import Context, Span, Tracer, request
from tests.api.fakes import World
from tests.services import free_port

GIVEN = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
UNSAMPLED = GIVEN[:-1] + "0"


class Collector:
    """Takes what is posted to it."""

    def __init__(self) -> None:
        self.bodies: list[dict[str, Any]] = []
        self.status = 200
        self.got = asyncio.Event()

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while head := await reader.readuntil(b"\r\n\r\n"):
            length = int(head.lower().partition(b"content-length:")[2].split(b"\r\n")[0])
            assert head.startswith(b"POST /v1/traces ")
            assert b"application/json" in head
            self.bodies.append(json.loads(await reader.readexactly(length)))
            self.got.set()
            writer.write(b"HTTP/1.1 %d X\r\ncontent-length: 2\r\n\r\n{}" % self.status)
            if reader.at_eof():
                break
        writer.close()

    def spans(self) -> list[dict[str, Any]]:
        return [
            span
            for body in self.bodies
            for resource in body["resourceSpans"]
            for scope in resource["scopeSpans"]
            for span in scope["spans"]
        ]


def span(number: int, *, sampled: bool = True) -> Span:
    context = Context("a" * 32, f"{number:016x}", sampled)
    return Span(context=context, parent="", service="s", name="n", start=1.5, end=2.5)


def task(state: TaskState = TaskState.COMPLETED, trace: str | None = GIVEN, **more: Any) -> Task:
    spec = TaskSpec(task_id="id-1", model="m", model_version=2, tenant="t", trace=trace)
    run = Execution("w", batch_wait_ms=250, compute_ms=500, batch_size=4)
    times: dict[str, Any] = {"created_at": 100.0, "started_at": 101.0, "completed_at": 102.0}
    made = Task(spec=spec, state=state, execution=run, attempts=1, **times)
    return msgspec.structs.replace(made, **more)


class Kept(Tracer):
    """Keeps spans instead of sending them."""

    def __init__(self, share: float = 1.0) -> None:
        super().__init__("http://127.0.0.1:1", share)

    @property
    def spans(self) -> dict[str, Span]:
        return {each.name: each for each in self._waiting}


def test_the_body_is_what_the_protocol_says() -> None:
    made = request([span(1), Span(**_fields(span(2)) | {"error": "broke", "parent": "b" * 16})])
    for each in (span for scope in _scopes(made) for span in scope["spans"]):
        # JSON of OTLP has ids in hexadecimal, where protobuf's own has base64.
        for name in ("traceId", "spanId", "parentSpanId"):
            each.pop(name, None)
    message = json_format.ParseDict(made, trace_service_pb2.ExportTraceServiceRequest())
    first, second = message.resource_spans[0].scope_spans[0].spans
    assert (first.name, first.start_time_unix_nano, first.end_time_unix_nano) == (
        "n",
        1_500_000_000,
        2_500_000_000,
    )
    assert (first.status.code, second.status.code, second.status.message) == (0, 2, "broke")
    assert message.resource_spans[0].resource.attributes[0].value.string_value == "s"


def _fields(made: Span) -> dict[str, Any]:
    return {name: getattr(made, name) for name in made.__struct_fields__}


def _scopes(body: dict[str, Any]) -> list[dict[str, Any]]:
    return [scope for resource in body["resourceSpans"] for scope in resource["scopeSpans"]]


def test_a_task_is_a_tree_of_the_times_that_are_known() -> None:
    tracer = Kept()
    trace(tracer, [task(), task(TaskState.RUNNING), task(trace=None), task(trace=UNSAMPLED)])
    found = tracer.spans
    assert list(found) == ["task m:2", "queue", "batch", "predict", "archive"]
    whole = found["task m:2"]
    assert whole.parent == "b7ad6b7169203331"
    assert {each.context.trace_id for each in found.values()} == {GIVEN.split("-")[1]}
    assert {each.parent for name, each in found.items() if name != "task m:2"} == {
        whole.context.span_id
    }
    assert len({each.context.span_id for each in found.values()}) == len(found)
    times = {name: (each.start, each.end) for name, each in found.items()}
    assert times["task m:2"] == (100.0, 102.0)
    assert times["queue"] == (100.0, 101.0)
    assert times["batch"] == (101.0, 101.25)
    assert times["predict"] == (101.25, 101.75)
    assert times["archive"][0] == 102
    assert whole.error == ""


def test_a_task_told_twice_is_the_same_spans() -> None:
    once, again = Kept(), Kept()
    for tracer in (once, again):
        trace(tracer, [task()])
    ids = [[each.context for each in tracer.spans.values()] for tracer in (once, again)]
    assert ids[0] == ids[1]


def test_a_task_that_never_ran_has_no_batch_and_says_why_it_ended() -> None:
    tracer = Kept()
    failed = task(TaskState.FAILED, error=TaskError("engine-error", "broke"))
    expired = task(TaskState.EXPIRED, started_at=None, execution=None)
    trace(tracer, [failed])
    assert tracer.spans["task m:2"].error == "broke"
    tracer = Kept()
    trace(tracer, [expired])
    assert list(tracer.spans) == ["task m:2", "queue", "archive"]
    assert tracer.spans["task m:2"].error == "expired"
    assert tracer.spans["queue"].end == 102


async def test_spans_are_sent_together_and_the_rest_at_the_end() -> None:
    collector = Collector()
    async with await asyncio.start_server(collector.answer, "127.0.0.1", 0) as server:
        tracer = Tracer(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/", 1.0)
        tracer.start()
        tracer.add(span(1))
        tracer.add(span(2))
        tracer.add(span(3, sampled=False))
        await asyncio.wait_for(collector.got.wait(), 10)
        assert [each["spanId"][-1] for each in collector.spans()] == ["1", "2"]
        tracer.add(span(4))
        await tracer.stop()
        assert [each["spanId"][-1] for each in collector.spans()] == ["1", "2", "4"]


async def test_a_collector_that_is_away_is_told_once_and_holds_nobody_up(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(traces, "INTERVAL", 0.01)
    tracer = Kept()
    tracer.start()
    for number in range(5):
        tracer.add(span(number))
        until = time.monotonic() + 10
        while tracer.spans:
            assert time.monotonic() < until
            await asyncio.sleep(0.01)
    await tracer.stop()
    assert caplog.text.count("spans are lost") == 1


async def test_a_span_that_cannot_be_written_does_not_end_the_sending(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(traces, "INTERVAL", 0.01)
    collector = Collector()
    async with await asyncio.start_server(collector.answer, "127.0.0.1", 0) as server:
        tracer = Tracer(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", 1.0)
        tracer.start()
        tracer.add(msgspec.structs.replace(span(1), error="\ud800"))
        async with asyncio.timeout(10):
            while "spans are lost" not in caplog.text:
                await asyncio.sleep(0.01)
        tracer.add(span(2))
        await asyncio.wait_for(collector.got.wait(), 10)
        await tracer.stop()
    assert [each["spanId"][-1] for each in collector.spans()] == ["2"]


def test_waiting_spans_are_bounded() -> None:
    tracer = Kept()
    for number in range(traces.MOST_WAITING + 5):
        tracer.add(span(number))
    assert len(tracer._waiting) == traces.MOST_WAITING
    assert tracer._waiting[0] == span(5)


def test_nothing_is_made_without_an_endpoint() -> None:
    assert Tracer.from_settings(load()) is None
    made = Tracer.from_settings(load(otel_exporter_otlp_endpoint=f"http://h:{free_port()}"))
    assert made is not None


def test_a_caller_decides_about_its_trace_and_the_share_about_others() -> None:
    never, always = Kept(0.0), Kept(1.0)
    context, parent = never.begin(GIVEN)
    assert (context.trace_id, parent, context.sampled) == (*GIVEN.split("-")[1:3], True)
    assert context.span_id != parent
    assert not always.begin(UNSAMPLED)[0].sampled
    assert not never.begin(None)[0].sampled
    context, parent = always.begin(None)
    assert (context.sampled, parent) == (True, "")
    assert Context.parse(context.traceparent) == context


@pytest.mark.parametrize("given", [None, GIVEN, "nonsense"])
async def test_a_submit_hands_its_span_on_to_the_task(given: str | None) -> None:
    tracer = Kept()
    world = World(tracer=tracer)
    headers = {} if given is None else {"traceparent": given}
    transport = httpx.ASGITransport(world.edge)
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
        body = {"data": {"text": "x"}}
        answer = await client.post("/api/inference", json=body, headers=headers)
    assert answer.status_code == 202
    made = tracer.spans["POST /api/inference"]
    assert made.parent == (GIVEN.split("-")[2] if given == GIVEN else "")
    assert made.attributes["http.response.status_code"] == 202
    assert world.tasks.calls[-1]["trace"] == made.context.traceparent


async def test_a_refusal_is_no_error_and_a_broken_queue_is_one() -> None:
    tracer = Kept()
    world = World(tracer=tracer)
    submit = world.edge.hot.submit
    request = Request("POST", "/api/inference", b"", {}, b"{}")
    with pytest.raises(InferstackError):
        await submit(request)
    assert tracer.spans["POST /api/inference"].error == ""
    world.tasks.error = QueueUnavailableError("away")
    headers = {b"host": b"localhost", b"content-type": b"application/json"}
    with pytest.raises(QueueUnavailableError):
        await submit(Request("POST", "/api/inference", b"", headers, b'{"data": {}}'))
    assert tracer.spans["POST /api/inference"].error == "away"
