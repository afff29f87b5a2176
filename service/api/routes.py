"""The HTTP edge as a whole: routes, what surrounds them, and the OpenAPI document."""

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from service.api import (
    answers,
    catalogue,
    diagnoses,
    explanations,
    health,
    problems,
    reports,
)
from service.api.middleware import LimitBody, Observe
from service.domain import INTENDED_USE
from service.telemetry import Metrics


def install(app: FastAPI, *, max_body_bytes: int, metrics: Metrics) -> None:
    """Gives an application the routes of this project; the later middleware is the outer one."""
    for module in (diagnoses, reports, answers, explanations, catalogue, health):
        app.include_router(module.router)
    problems.install(app)
    app.add_middleware(LimitBody, limit_bytes=max_body_bytes)
    app.add_middleware(Observe, metrics=metrics)
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
    return app.openapi_schema
