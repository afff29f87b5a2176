"""What a span costs where nobody watches, with figures, and with traces as well."""

import io
import json
import statistics
import time

from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from service import spans, telemetry, tracing
from service.metrics import Metrics
from service.spans import Watch

ROUNDS = 9


def main(count: int, *, as_json: bool) -> None:
    figures = measure(count)
    if as_json:
        print(json.dumps(figures, indent=2))
        return
    for name, value in figures.items():
        print(f"{name.replace('_', ' ')}: {value:.1f}")


def measure(count: int) -> dict[str, float]:
    """Microseconds a span: the median of a few rounds of so many."""
    telemetry.configure_logging("info", stream=io.StringIO())
    metrics, traces = Metrics(), tracing.kept(InMemorySpanExporter())
    unwatched = microseconds(count)
    with spans.watched(Watch(metrics.note_span), "benchmark"):
        with_figures = microseconds(count)
    with spans.watched(Watch(metrics.note_span, traces), "benchmark"):
        with_traces = microseconds(count)
    traces.close()
    return {
        "unwatched_microseconds": unwatched,
        "with_figures_microseconds": with_figures,
        "with_figures_and_traces_microseconds": with_traces,
    }


def microseconds(count: int) -> float:
    return statistics.median(_round(count) for _ in range(ROUNDS)) * 1e6


def _round(count: int) -> float:
    started = time.perf_counter()
    for _ in range(count):
        with spans.span("prompt", task="a task"):
            pass
    return (time.perf_counter() - started) / count
