"""Traces for OpenTelemetry, sent over OTLP: the extra `otel`, off unless an endpoint is set.

Nothing here comes from the environment, which the libraries would read: endpoint, headers and
resource are given. An error is told by its type alone: its text may quote what it was reading.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from typing import TYPE_CHECKING

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.trace import Span, SpanKind, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from service.spans import Attributes

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SpanExporter

EXPORT_SECONDS = 5.0
EVERY_SECONDS = 2.0
QUEUE = 4096
"""Spans that may wait to be sent: more are dropped, and no request waits."""

_W3C = TraceContextTextMapPropagator()


class Traces:
    """A `spans.Tracer`. Close it: what was not sent is sent then."""

    def __init__(self, provider: "TracerProvider") -> None:
        self._provider = provider
        self._tracer = provider.get_tracer("gsco", version("gsco"))

    @contextmanager
    def span(self, name: str, attributes: Attributes) -> Iterator[None]:
        with self._current(name, attributes, None, SpanKind.INTERNAL):
            yield

    def past(self, name: str, seconds: float, ago_seconds: float, attributes: Attributes) -> None:
        ended = time.time_ns() - _nanoseconds(ago_seconds)
        started = ended - _nanoseconds(seconds)
        self._tracer.start_span(name, attributes=attributes, start_time=started).end(ended)

    @contextmanager
    def trace(self, name: str, traceparent: str) -> Iterator["_Trace"]:
        # Only the caller's trace and span: `tracestate` and `baggage` may carry anything.
        above = _W3C.extract({"traceparent": traceparent}, Context())
        with self._current(name, {}, above, SpanKind.SERVER) as span:
            yield _Trace(span)

    def close(self) -> None:
        """Blocks while the rest is sent, for seconds at most."""
        self._provider.shutdown()

    @contextmanager
    def _current(
        self, name: str, attributes: Attributes, above: Context | None, kind: SpanKind
    ) -> Iterator[Span]:
        with self._tracer.start_as_current_span(
            name,
            above,
            kind,
            attributes,
            record_exception=False,
            set_status_on_exception=False,
        ) as span:
            try:
                yield span
            except BaseException as error:
                span.set_attribute("error.type", type(error).__name__)
                span.set_status(StatusCode.ERROR)
                raise


class _Trace:
    """A `spans.Trace`."""

    def __init__(self, span: Span) -> None:
        self._span = span

    @property
    def id(self) -> str:
        return trace.format_trace_id(self._span.get_span_context().trace_id)

    def headers(self) -> dict[str, str]:
        carrier: dict[str, str] = {}
        _W3C.inject(carrier)
        return {name: value for name, value in carrier.items() if name == "traceparent"}

    def end(self, name: str, attributes: Attributes, *, failed: bool) -> None:
        self._span.update_name(name)
        self._span.set_attributes(attributes)
        if failed:
            self._span.set_status(StatusCode.ERROR)


def opened(endpoint: str, share: float) -> Traces:
    """Traces that go to a collector, `share` of those that no caller has begun.

    `endpoint` is the base address of OTLP over HTTP, such as http://collector:4318. Raises
    ImportError without the extra `otel`.
    """
    import requests
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

    session = requests.Session()
    session.trust_env = False
    address = endpoint.rstrip("/").removesuffix("/v1/traces") + "/v1/traces"
    return kept(OTLPSpanExporter(address, timeout=EXPORT_SECONDS, session=session), share)


def kept(exporter: "SpanExporter", share: float = 1.0, *, at_once: bool = False) -> Traces:
    """Traces that an exporter takes, in a thread of its own unless `at_once`."""
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor, SimpleSpanProcessor
    from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased

    # Not Resource.create: it adds the environment's attributes and detectors'.
    resource = Resource({"service.name": "gsco", "service.version": version("gsco")})
    provider = TracerProvider(
        ParentBased(TraceIdRatioBased(share)), resource, shutdown_on_exit=False
    )
    provider.add_span_processor(
        SimpleSpanProcessor(exporter)
        if at_once
        else BatchSpanProcessor(
            exporter,
            max_queue_size=QUEUE,
            schedule_delay_millis=1000 * EVERY_SECONDS,
            max_export_batch_size=QUEUE // 8,
            export_timeout_millis=1000 * EXPORT_SECONDS,
        )
    )
    return Traces(provider)


def _nanoseconds(seconds: float) -> int:
    return round(seconds * 1e9)
