"""Stories of those who write clients: the OpenAPI document says what happens."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel, TypeAdapter
from serving import a_service

from service.api.callers import CallerResponse
from service.api.cases import ReferenceCasesResponse
from service.api.catalogue import SpecialistDetailResponse, SpecialistsResponse
from service.api.demo_cases import ExamplesResponse
from service.api.evaluations import EvaluationsResponse
from service.api.explanations import ExplanationResponse
from service.api.health import ReadyResponse
from service.api.problems import ProblemResponse
from service.api.reviews import AgreementResponse, ReviewsResponse, WorklistResponse
from service.api.schemas import DiagnosisResponse, TaskResponse, TasksResponse
from service.api.schemas_jobs import JobResponse
from service.api.schemas_text import AnswerResponse, ReportResponse
from service.api.segmentations import SegmentationsResponse
from service.api.sources import InstancesResponse, SourcesResponse


async def the_document(home: Path) -> dict[str, Any]:
    async with a_service(home) as service:
        return (await service.client.get("/openapi.json")).json()  # type: ignore[no-any-return]


async def test_lists_every_address(home: Path) -> None:
    document = await the_document(home)

    assert set(document["paths"]) == {
        "/dicom-web/studies",
        "/dicom-web/studies/{study}",
        "/dicom-web/{task}/studies",
        "/dicom-web/{task}/studies/{study}",
        "/v1/diagnoses",
        "/v1/diagnoses/{id}",
        "/v1/diagnoses/{id}/results",
        "/v1/diagnoses/{id}/review",
        "/v1/agreement",
        "/v1/frames",
        "/v1/segmentations",
        "/v1/caller",
        "/v1/cases",
        "/v1/cases/{id}",
        "/v1/cases/{id}/thumbnail",
        "/v1/evaluations",
        "/v1/evaluations/{name}/{file}",
        "/v1/examples",
        "/v1/examples/{task}/{name}",
        "/v1/reports",
        "/v1/reports/{id}",
        "/v1/answers",
        "/v1/answers/{id}",
        "/v1/explanations",
        "/v1/jobs/{id}",
        "/v1/tasks",
        "/v1/tasks/{name}",
        "/v1/sign-in",
        "/v1/sources",
        "/v1/sources/{name}/search",
        "/v1/specialists",
        "/v1/specialists/{task}/{backbone}",
        "/livez",
        "/readyz",
        "/metrics",
    }


async def test_every_reference_leads_somewhere(home: Path) -> None:
    document = await the_document(home)

    for reference in references(document):
        target: Any = document
        for step in reference.removeprefix("#/").split("/"):
            target = target[step]
        assert target


@pytest.mark.parametrize("address", ["/v1/diagnoses", "/v1/reports", "/v1/answers"])
async def test_errors_are_described_as_problems(home: Path, address: str) -> None:
    document = await the_document(home)
    responses = document["paths"][address]["post"]["responses"]

    of_a_source = {"404"} if address == "/v1/diagnoses" else set()
    made, refused = {"201", "202"}, {"400", "401", "403", "409", "413", "415", "422", "429"}
    assert set(responses) - of_a_source == made | refused | {"500", "502", "503"}
    assert all(
        list(response["content"]) == ["application/problem+json"]
        for status, response in responses.items()
        if status not in made
    )


async def test_an_explanation_is_a_picture_or_numbers(home: Path) -> None:
    document = await the_document(home)
    responses = document["paths"]["/v1/explanations"]["post"]["responses"]

    assert set(responses["200"]["content"]) == {"application/json", "image/png"}
    refused = {"400", "401", "403", "406", "413", "415", "422", "429", "500", "503"}
    assert set(responses) == {"200", *refused}


def test_examples_are_true() -> None:
    models: list[type[BaseModel]] = [
        AgreementResponse,
        AnswerResponse,
        CallerResponse,
        DiagnosisResponse,
        EvaluationsResponse,
        ExamplesResponse,
        ExplanationResponse,
        InstancesResponse,
        JobResponse,
        ProblemResponse,
        ReadyResponse,
        ReferenceCasesResponse,
        ReportResponse,
        ReviewsResponse,
        SegmentationsResponse,
        SourcesResponse,
        SpecialistDetailResponse,
        SpecialistsResponse,
        TaskResponse,
        TasksResponse,
        WorklistResponse,
    ]

    for model in models:
        (example,) = model.model_json_schema()["examples"]
        assert TypeAdapter(model).validate_python(example).model_dump(mode="json") == example


def references(node: Any) -> Iterator[str]:
    if isinstance(node, dict):
        if isinstance(node.get("$ref"), str):
            yield node["$ref"]
        for value in node.values():
            yield from references(value)
    elif isinstance(node, list):
        for value in node:
            yield from references(value)
