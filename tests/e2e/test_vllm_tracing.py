"""The real vLLM goes on with the trace of a case: one picture of where its time went."""

import time
from pathlib import Path

import pytest
from builders import a_prompt
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from receiver import Receiver, a_receiver
from vllm_server import ROOT, vllm_serving

from service import spans, tracing
from service.generalist.vllm import VllmGeneralist
from service.metrics import Metrics
from service.spans import Watch

pytestmark = [pytest.mark.vllm, pytest.mark.slow, pytest.mark.timeout(1800)]

NANO = ROOT / "service" / "generalist" / "nano"
ARRIVES_WITHIN_SECONDS = 60


async def test_vllms_own_spans_are_below_ours(tmp_path: Path) -> None:
    exporter = InMemorySpanExporter()
    traces = tracing.kept(exporter, at_once=True)
    with a_receiver() as collector:
        base = collector.url.removesuffix("/hooks")
        log = tmp_path / "server.log"
        with vllm_serving(NANO, "nano", "float32", log, collector=base) as url:
            generalist = VllmGeneralist(url, "nano")
            with spans.watched(Watch(Metrics().note_span, traces), "case"):
                await generalist.answer(a_prompt())
            await generalist.close()
            told = told_by(collector)

    case = next(span for span in exporter.get_finished_spans() if span.name == "case")
    assert told
    assert {span.trace_id.hex() for span in told} == {f"{case.context.trace_id:032x}"}
    assert f"{case.context.span_id:016x}" in {span.parent_span_id.hex() for span in told}


def told_by(collector: Receiver) -> list:
    """The spans of requests that the collector has got, once there are any."""
    deadline = time.monotonic() + ARRIVES_WITHIN_SECONDS
    while time.monotonic() < deadline:
        requests = [ExportTraceServiceRequest.FromString(body) for _, body in collector.received]
        scopes = [s for one in requests for r in one.resource_spans for s in r.scope_spans]
        found = [span for scope in scopes for span in scope.spans if "llm_request" in span.name]
        if found:
            return found
        time.sleep(0.5)
    return []
