"""The HTTP edge as a whole: routes, what surrounds them, and the OpenAPI document."""

from collections.abc import Iterator
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from starlette.formparsers import MultiPartParser

from service.api import (
    answers,
    callers,
    cases,
    catalogue,
    curation,
    demo_cases,
    diagnoses,
    evaluations,
    explanations,
    frames,
    health,
    jobs,
    page,
    problems,
    reports,
    results,
    reviews,
    segmentations,
    sources,
    stow,
)
from service.api.guard import Guard
from service.api.middleware import LimitBody, Observe
from service.api.referenced import InstanceReference
from service.api.schemas import DiagnosisReference
from service.domain import INTENDED_USE
from service.metrics import Metrics
from service.settings import Settings
from service.spans import Watch

MODULES = (
    *(diagnoses, results, reviews, reports, answers, jobs, explanations, segmentations),
    *(
        frames,
        sources,
        stow,
        catalogue,
        cases,
        curation,
        evaluations,
        demo_cases,
        callers,
        health,
        page,
    ),
)


def install(app: FastAPI, settings: Settings, metrics: Metrics, watch: Watch) -> None:
    """Gives an application the routes of this project; the later middleware is the outer one."""
    # An upload that outgrows its spool would lie in a file of the system's, patient and all.
    MultiPartParser.spool_max_size = settings.max_upload_bytes
    for module in MODULES:
        app.include_router(module.router)
    problems.install(app)
    metrics.problems.labels(problems.INTERNAL.slug)  # there from the start: the first one counts
    app.add_middleware(
        LimitBody,
        limit_bytes=settings.max_upload_bytes,
        held_bytes=settings.max_upload_bytes * settings.max_concurrent_cases,
        of_prefix={stow.PREFIX: settings.stow_max_bytes},
    )
    app.add_middleware(Guard, application=app, settings=settings)
    app.add_middleware(Observe, metrics=metrics, watch=watch)
    app.openapi = lambda: _document(app)  # type: ignore[method-assign]


def _document(app: FastAPI) -> dict[str, Any]:
    if app.openapi_schema is None:
        app.openapi_schema = get_openapi(
            title=app.title,
            version=app.version,
            summary="Generalist–specialist collaboration for medical images",
            description=INTENDED_USE,
            routes=app.routes,
        )
        schemas = app.openapi_schema["components"]["schemas"]
        schemas["ProblemResponse"] = problems.ProblemResponse.model_json_schema()
        schemas["DiagnosisReference"] = DiagnosisReference.model_json_schema()
        schemas["InstanceReference"] = InstanceReference.model_json_schema()
        for operation in _guarded(app.openapi_schema):
            for status, told in problems.responses(401, 403, 429, 503).items():
                operation["responses"].setdefault(str(status), told)
    return app.openapi_schema


def _guarded(document: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The operations that ask who calls."""
    for path in document["paths"].values():
        yield from (operation for operation in path.values() if operation.get("security"))
