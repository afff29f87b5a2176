"""What the service tells its operators: logs and metrics, neither of which name a patient.

Log lines are events with fields (structlog), as JSON or for a console, with the request's id.
Fields whose names sound like a patient's are dropped, and so are the texts of errors that are
not ours: a library's message may quote what it was reading. Tracebacks keep types and places.
"""

import logging
import sys
from collections.abc import Iterator, Mapping, MutableMapping
from importlib.metadata import version
from typing import Any, TextIO

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
from structlog.typing import EventDict, Processor

METRICS_MEDIA_TYPE = CONTENT_TYPE_LATEST
DENIED_WORDS = ("patient", "filename", "file_name", "birth", "accession", "physician", "_uid")
OUR_PACKAGES = ("service", "specialists", "retrieval")
_SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120)


def configure_logging(
    level: str = "info", log_format: str = "json", stream: TextIO | None = None
) -> None:
    """Every logger of this process, our own and the libraries', writes here: standard error."""
    handler = logging.StreamHandler(stream)
    handler.setFormatter(_formatter(log_format))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    _silence_libraries()
    structlog.configure(
        processors=[*_shared_processors(), structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        wrapper_class=structlog.stdlib.BoundLogger,
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=False,
    )


def drop_patient_fields(_logger: object, _method: str, event: EventDict) -> EventDict:
    """Fields that could hold an identifier of a patient are left out, however deep they lie."""
    return _without_denied(event)


def place_errors(_logger: object, _method: str, event: EventDict) -> EventDict:
    """An exception becomes its types and places; its text only where this project wrote it."""
    given = event.pop("exc_info", None)
    if given is True:
        given = sys.exc_info()
    error = given[1] if isinstance(given, tuple) else given
    if isinstance(error, BaseException):
        event["error"] = [_described(link) for link in _chain(error)]
    return event


class Metrics:
    """The figures of one application, in a registry of their own."""

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
            "Diagnoses made and stored.",
            ("task", "needs_review"),
            registry=registry,
        )
        self.stages = Histogram(
            "gsco_diagnosis_stage_duration_seconds",
            "Time of each stage of a diagnosis.",
            ("task", "stage"),
            buckets=_SECONDS,
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
        build = Gauge("gsco_build_info", "The version that runs.", ("version",), registry=registry)
        build.labels(version("gsco")).set(1)

    def observe_diagnosis(
        self,
        task: str,
        *,
        needs_review: bool,
        durations_seconds: Mapping[str, float],
        missing: tuple[str, ...],
    ) -> None:
        """Counts one stored diagnosis; `missing` are names of parts, such as 'specialist vgg16'."""
        self.diagnoses.labels(task, str(needs_review).lower()).inc()
        for stage, seconds in durations_seconds.items():
            self.stages.labels(task, stage).observe(seconds)
        for part in missing:
            self.missing.labels(task, part).inc()

    def show_jobs(self, counts: Mapping[tuple[str, str], int]) -> None:
        """Shows how many jobs there are, by name and state; what is not named is none."""
        self.jobs.clear()
        for labels, count in counts.items():
            self.jobs.labels(*labels).set(count)

    def render(self) -> bytes:
        """The Prometheus text format."""
        return generate_latest(self._registry)


def _shared_processors() -> list[Processor]:
    return [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        place_errors,
        drop_patient_fields,
    ]


def _formatter(log_format: str) -> logging.Formatter:
    renderer: Processor = structlog.processors.JSONRenderer()
    if log_format == "console":
        renderer = structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())
    return structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=_shared_processors(),
        processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer],
    )


def _silence_libraries() -> None:
    """Uvicorn's access lines quote whole addresses; ours replace them. httpx logs every call."""
    for name in ("uvicorn", "uvicorn.error", "uvicorn.access"):
        logger = logging.getLogger(name)
        logger.handlers.clear()
        logger.propagate = name != "uvicorn.access"
    logging.getLogger("python_multipart").setLevel(logging.ERROR)
    for name in ("httpx", "httpcore", "PIL", "pydicom", "highdicom"):
        logging.getLogger(name).setLevel(logging.WARNING)


def _without_denied(fields: MutableMapping[str, Any]) -> dict[str, Any]:
    return {
        name: _without_denied(value) if isinstance(value, dict) else value
        for name, value in fields.items()
        if not any(word in str(name).lower() for word in DENIED_WORDS)
    }


def _chain(error: BaseException) -> Iterator[BaseException]:
    link: BaseException | None = error
    while link is not None:
        yield link
        link = link.__cause__ or (None if link.__suppress_context__ else link.__context__)


def _described(error: BaseException) -> dict[str, Any]:
    described: dict[str, Any] = {"type": type(error).__name__, "at": list(_places(error))}
    if type(error).__module__.split(".")[0] in OUR_PACKAGES:
        described["text"] = str(error)
    if isinstance(error, BaseExceptionGroup):
        described["errors"] = [_described(part) for part in error.exceptions]
    return described


def _places(error: BaseException) -> Iterator[str]:
    step = error.__traceback__
    while step is not None:
        code = step.tb_frame.f_code
        module = step.tb_frame.f_globals.get("__name__", "?")
        yield f"{module}:{step.tb_lineno} {code.co_name}"
        step = step.tb_next
