"""What the service counts and times, for Prometheus; docs/operations.md says what for."""

from collections.abc import Mapping
from importlib.metadata import version

import structlog
from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    PlatformCollector,
    ProcessCollector,
    generate_latest,
)
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from service import spans
from service.spans import Attributes

METRICS_MEDIA_TYPE = CONTENT_TYPE_LATEST
_SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120)
_SHORT_SECONDS = (0.001, 0.0025, 0.005, *_SECONDS)

log = structlog.stdlib.get_logger(__name__)


class Metrics:
    """The figures of one application, in a registry of their own.

    Labels hold names of the settings and the home folder (tasks, specialists) and words of this
    project; never what a caller sent.
    """

    def __init__(self) -> None:
        self._registry = registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        PlatformCollector(registry=registry)
        self.requests = Histogram(
            "gsco_http_request_duration_seconds",
            "Time from the first byte of a request to the last of its reply.",
            ("method", "route", "status"),
            buckets=_SECONDS,
            registry=registry,
        )
        self.problems = Counter(
            "gsco_http_problems_total", "Replies that name a problem.", ("type",), registry=registry
        )
        self.diagnoses = Counter(
            "gsco_diagnoses_total",
            "Diagnoses, reports and answers made and stored.",
            ("task", "needs_review"),
            registry=registry,
        )
        self.stages = Histogram(
            "gsco_diagnosis_stage_duration_seconds",
            "Time of each stage of a case, however it ended.",
            ("task", "stage"),
            buckets=_SHORT_SECONDS,
            registry=registry,
        )
        self.specialists = Histogram(
            "gsco_specialist_duration_seconds",
            "Time a case spent in the batch of a specialist that answered it.",
            ("specialist",),
            buckets=_SHORT_SECONDS,
            registry=registry,
        )
        self.specialist_waits = Histogram(
            "gsco_specialist_queue_seconds",
            "Time a case waited for a specialist.",
            ("specialist",),
            buckets=_SHORT_SECONDS,
            registry=registry,
        )
        self.first_tokens = Histogram(
            "gsco_generalist_first_token_seconds",
            "Time from asking the generalist to its first token, waiting included.",
            buckets=_SHORT_SECONDS,
            registry=registry,
        )
        self.generalist_waits = Histogram(
            "gsco_generalist_queue_seconds",
            "Time a prompt waited for the embedded generalist; vLLM tells its own.",
            buckets=_SHORT_SECONDS,
            registry=registry,
        )
        self.degraded = Counter(
            "gsco_degraded_answers_total",
            "Diagnoses, reports and answers that lacked evidence.",
            ("task",),
            registry=registry,
        )
        self.reviews = Counter(
            "gsco_review_reasons_total",
            "Reasons for which a person must look; a result may have several.",
            ("task", "reason"),
            registry=registry,
        )
        self.missing = Counter(
            "gsco_missing_evidence_total",
            "Specialists or retrievers that were missing in a diagnosis.",
            ("task", "part"),
            registry=registry,
        )
        self.cases = Gauge(
            "gsco_cases_in_progress", "Cases being diagnosed now.", registry=registry
        )
        self.receiving = Gauge(
            "gsco_stow_requests_in_progress", "STOW-RS requests being received.", registry=registry
        )
        self.listening = Gauge(
            "gsco_job_streams", "Callers who hear of a job's stages now.", registry=registry
        )
        self.jobs_ended = Counter(
            "gsco_jobs_ended_total", "Jobs that have ended.", ("name", "state"), registry=registry
        )
        self.job_waits = Histogram(
            "gsco_job_wait_seconds",
            "Time between a job's arrival and its first attempt.",
            ("name", "priority"),
            buckets=(*_SECONDS, 300, 900, 3600),
            registry=registry,
        )
        self.jobs = Gauge(
            "gsco_jobs",
            "Jobs that wait, run or have failed, at the last look.",
            ("name", "state"),
            registry=registry,
        )
        self.oldest_job = Gauge(
            "gsco_oldest_job_age_seconds",
            "Age of the oldest job that waits or runs, at the last look.",
            ("name", "state"),
            registry=registry,
        )
        self.deliveries = Histogram(
            "gsco_delivery_attempt_duration_seconds",
            "Time of each attempt to deliver, such as a webhook, by how it ended.",
            ("name", "outcome"),
            buckets=_SECONDS,
            registry=registry,
        )
        self.parts = Gauge(
            "gsco_part_ready",
            "Each part of /readyz at the last look: 1 ready, 0.5 degraded, 0 unready.",
            ("part",),
            registry=registry,
        )
        build = Gauge("gsco_build_info", "The version that runs.", ("version",), registry=registry)
        build.labels(version("gsco")).set(1)

    def note_span(self, name: str, seconds: float, attributes: Attributes) -> None:
        """One span that has ended: a `Watch`'s note."""
        own = {
            spans.SPECIALIST: self.specialists,
            spans.SPECIALIST_QUEUE: self.specialist_waits,
            spans.FIRST_TOKEN: self.first_tokens,
            spans.GENERALIST_QUEUE: self.generalist_waits,
        }.get(name)
        if own is not None:
            (own.labels(**attributes) if attributes else own).observe(seconds)
        elif "task" in attributes:
            self.stages.labels(attributes["task"], name).observe(seconds)
            log.debug("stage", stage=name, seconds=round(seconds, 4), **attributes)

    def count_result(
        self, task: str, *, review_reasons: tuple[str, ...], missing: tuple[str, ...]
    ) -> None:
        """Counts one stored result; `review_reasons` are kinds of them, and `missing` names of
        parts, such as 'specialist vgg16'.
        """
        self.diagnoses.labels(task, "true" if review_reasons else "false").inc()
        for reason in review_reasons:
            self.reviews.labels(task, reason).inc()
        if missing:
            self.degraded.labels(task).inc()
        for part in missing:
            self.missing.labels(task, part).inc()

    def show_jobs(
        self,
        counts: Mapping[tuple[str, str], int],
        oldest_seconds: Mapping[tuple[str, str], float],
    ) -> None:
        """Shows how many jobs there are and how old, by name and state; not named means none."""
        for gauge, shown in ((self.jobs, counts), (self.oldest_job, oldest_seconds)):
            gauge.clear()
            for labels, number in shown.items():
                gauge.labels(*labels).set(number)

    def show_parts(self, ready: Mapping[str, float]) -> None:
        """Shows how ready each part is, 0 to 1; what is not named is gone."""
        self.parts.clear()
        for part, share in ready.items():
            self.parts.labels(part).set(share)

    def render(self) -> bytes:
        """The Prometheus text format."""
        return generate_latest(self._registry)
