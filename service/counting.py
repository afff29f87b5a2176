"""Results, once they are stored: counted, and told of in the log without anybody's data."""

import structlog

from service.domain import Result
from service.generalist import parser
from service.metrics import Metrics

log = structlog.stdlib.get_logger(__name__)


def count(metrics: Metrics, made: Result, **before_seconds: float) -> None:
    """Adds a result to the figures; `before_seconds` are of stages before the pipeline's."""
    for stage, seconds in before_seconds.items():
        metrics.stages.labels(made.task, stage).observe(seconds)
    metrics.count_result(
        made.task,
        review_reasons=tuple(dict.fromkeys(map(parser.kind_of, made.review_reasons))),
        missing=tuple(missing.part for missing in made.degraded),
    )
    log.info(
        "answered",
        task=made.task,
        needs_review=made.needs_review,
        degraded=bool(made.degraded),
        seconds={**before_seconds, **made.durations_seconds},
    )
