"""Stories of traces: where the time of a case went, in other servers too, and nothing of whose."""

import asyncio
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from pathlib import Path

import httpx
import pytest
from builders import a_prompt
from fakes import FakeGeneralist, FakeRetriever
from mortal_generalist import MODEL
from openai_server import a_listing
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from pydicom import dcmread
from receiver import a_receiver
from seeded import MARKERS, seeded_file
from serving import a_service

from service import spans, tracing
from service.app import create_app
from service.errors import GeneralistUnavailable, Misconfigured
from service.gathering import tell_turn
from service.generalist.vllm import VllmGeneralist
from service.intake.limits import Limits
from service.intake.sandbox import Sandbox
from service.settings import Settings
from service.spans import Watch
from service.tracing import Traces
from specialists.batcher import Batcher

CALLER = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
STAGES = {"intake", "total", "prompt", "initial", "parse", "specialists", "retrieval"}
STAGES |= {"arbitration", "store"}


@pytest.fixture
def exporter() -> InMemorySpanExporter:
    return InMemorySpanExporter()


@pytest.fixture
def traces(exporter: InMemorySpanExporter) -> Iterator[Traces]:
    kept = tracing.kept(exporter, at_once=True)
    yield kept
    kept.close()


async def test_a_request_is_one_trace_with_a_span_for_each_stage(
    home: Path, traces: Traces, exporter: InMemorySpanExporter
) -> None:
    async with a_service(home, tracer=traces) as service:
        await service.diagnose()

    found = exporter.get_finished_spans()
    root = named(found, "POST /v1/diagnoses")
    total = named(found, "total")
    assert {span.name for span in found} == STAGES | {"POST /v1/diagnoses"}
    assert len({span.context.trace_id for span in found}) == 1
    assert parent(total) == root.context.span_id
    assert parent(named(found, "retrieval")) == total.context.span_id
    assert dict(total.attributes or {}) == {"task": "cxr-pneumonia"}
    assert (root.attributes or {})["http.response.status_code"] == "201"


async def test_the_callers_trace_goes_on(
    home: Path, traces: Traces, exporter: InMemorySpanExporter
) -> None:
    async with a_service(home, tracer=traces) as service:
        headers = {"traceparent": CALLER, "tracestate": "doe=john", "baggage": "patient=doe"}
        await service.client.get("/v1/tasks", headers=headers)
        await service.client.get("/v1/tasks", headers={"traceparent": "00-doe-doe-01"})
        await service.client.get("/readyz", headers={"traceparent": CALLER})

    joined, alone = exporter.get_finished_spans()
    assert f"{joined.context.trace_id:032x}" == CALLER.split("-")[1]
    assert f"{parent(joined):016x}" == CALLER.split("-")[2]
    assert alone.parent is None
    assert not joined.context.trace_state


async def test_a_job_goes_on_with_the_trace_of_its_request(
    home: Path, traces: Traces, exporter: InMemorySpanExporter
) -> None:
    async with a_service(home, tracer=traces, in_sql=True) as service:
        accepted = await service.ask_for_job(headers={"traceparent": CALLER})
        await service.ended(accepted.json()["id"])

    job = named(exporter.get_finished_spans(), "job diagnosis")
    assert f"{job.context.trace_id:032x}" == CALLER.split("-")[1]
    assert named(exporter.get_finished_spans(), "spool").parent == job.context


async def test_the_generalists_server_is_told_of_the_trace(
    traces: Traces, exporter: InMemorySpanExporter
) -> None:
    asked: list[httpx.Request] = []

    def reply(request: httpx.Request) -> httpx.Response:
        asked.append(request)
        return httpx.Response(200, json=a_listing(("normal", -0.1), ("pneumonia", -2.35)))

    transport = httpx.MockTransport(reply)
    generalist = VllmGeneralist("http://generalist", MODEL, transport=transport)
    with spans.watched(Watch(unheard, traces), "request"), spans.span("initial", task="t"):
        await generalist.answer(a_prompt())

    await generalist.answer(a_prompt())

    first, *_, last = asked
    initial = named(exporter.get_finished_spans(), "initial")
    token = named(exporter.get_finished_spans(), spans.FIRST_TOKEN)
    version, trace, above, _ = first.headers["traceparent"].split("-")
    assert (version, trace) == ("00", f"{initial.context.trace_id:032x}")
    assert above == f"{initial.context.span_id:016x}"
    assert token.parent == initial.context
    assert "tracestate" not in first.headers
    assert "traceparent" not in last.headers


@pytest.fixture
async def batcher() -> AsyncIterator[Batcher[int, int]]:
    with ThreadPoolExecutor(1) as executor:
        one = Batcher[int, int](
            "vgg16",
            slowly_doubled,
            executor=executor,
            workers=asyncio.Semaphore(1),
            queue_size=9,
            max_batch=9,
            told=tell_turn,
        )
        yield one
        await one.close()


def slowly_doubled(numbers: Sequence[int]) -> list[int]:
    time.sleep(0.05)
    return [2 * number for number in numbers]


async def test_a_batch_of_several_cases_is_told_in_the_trace_of_each(
    batcher: Batcher[int, int], traces: Traces, exporter: InMemorySpanExporter
) -> None:
    async def consult(number: int) -> str:
        with spans.watched(Watch(unheard, traces), "request") as trace:
            await batcher.submit(number)
            assert trace is not None
            return trace.id

    ids = await asyncio.gather(*(consult(number) for number in range(3)))

    turns = [one for one in exporter.get_finished_spans() if one.name == spans.SPECIALIST]
    assert sorted(f"{turn.context.trace_id:032x}" for turn in turns) == sorted(ids)
    assert all((turn.end_time or 0) - (turn.start_time or 0) >= 40_000_000 for turn in turns)
    assert all(dict(turn.attributes or {}) == {"specialist": "vgg16"} for turn in turns)


async def test_spans_say_nothing_of_the_patient_nor_of_errors(
    home: Path, traces: Traces, exporter: InMemorySpanExporter
) -> None:
    failing = FakeRetriever(failure=ValueError(f"PatientName is {MARKERS[0]}"))
    intake = Sandbox(Limits(), key=b"secret")
    async with a_service(home, tracer=traces, intake=intake, retriever=failing) as service:
        reply = await service.diagnose(seeded_file(), group=MARKERS[0], file_name=MARKERS[0])

    told = "".join(span.to_json() for span in exporter.get_finished_spans())
    uid = str(dcmread(BytesIO(seeded_file())).SOPInstanceUID)
    assert reply.status_code == 500
    assert '"error.type": "ValueError"' in told
    assert not [marker for marker in (*MARKERS, uid) if marker in told]


async def test_a_case_without_the_generalist_is_a_failed_trace(
    home: Path, traces: Traces, exporter: InMemorySpanExporter
) -> None:
    failing = FakeGeneralist(failure=GeneralistUnavailable("away"))
    async with a_service(home, tracer=traces, generalist=failing) as service:
        await service.diagnose()

    root = named(exporter.get_finished_spans(), "POST /v1/diagnoses")
    assert not root.status.is_ok
    assert not root.events


async def test_traces_are_sent_over_otlp(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "patient=doe")
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    with a_receiver() as collector:
        base = collector.url.removesuffix("/hooks")
        async with a_service(home, otlp_endpoint=base) as service:
            await service.diagnose()

    sent = [ExportTraceServiceRequest.FromString(body) for _, body in collector.received]
    resources = [resource for request in sent for resource in request.resource_spans]
    names = [s.name for r in resources for scope in r.scope_spans for s in scope.spans]
    assert {*names} >= {"POST /v1/diagnoses", *STAGES}
    assert "doe" not in str(resources)


async def test_a_collector_that_is_away_costs_the_caller_nothing(home: Path) -> None:
    async with a_service(home, otlp_endpoint="http://127.0.0.1:9") as service:
        began = time.monotonic()
        reply = await service.diagnose()
        seconds = time.monotonic() - began

    assert reply.status_code == 201
    assert seconds < 2


def test_an_endpoint_without_the_extra_stops_the_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tracing, "opened", missing)

    with pytest.raises(Misconfigured, match="the extra 'otel'"):
        create_app(Settings(home=tmp_path, otlp_endpoint="http://collector:4318"))


def missing(*_: object) -> Traces:
    raise ImportError("no module named 'opentelemetry.sdk'")


def unheard(name: str, seconds: float, attributes: spans.Attributes) -> None:
    """Nobody notes it."""


def named(found: Sequence[ReadableSpan], name: str) -> ReadableSpan:
    """The first span of this name."""
    return next(span for span in found if span.name == name)


def parent(span: ReadableSpan) -> int:
    assert span.parent is not None
    return span.parent.span_id
