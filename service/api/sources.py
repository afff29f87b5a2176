"""The DICOMweb sources of the settings, by name, and what they hold of a study."""

from typing import Annotated

from fastapi import APIRouter, Path, Request
from pydantic import BaseModel, ConfigDict, Field

from service.api import examples, problems
from service.api.access import needs
from service.api.dependencies import KnownOptions, ServingDep
from service.api.referenced import record_read, source_of
from service.api.several import NO_IMAGES
from service.identity.caller import Scope
from service.pacs.client import Found, Reference

router = APIRouter(prefix="/v1/sources", tags=["sources"], dependencies=[KnownOptions])


class SourcesResponse(BaseModel):
    model_config = ConfigDict(json_schema_extra={"examples": [examples.SOURCES]})

    sources: list[str] = Field(description="names; their addresses stay in the settings")


class SearchRequest(BaseModel):
    """What of a source is looked for; in a body, since addresses are logged on the way."""

    model_config = ConfigDict(extra="forbid")

    study_instance_uid: str = Field(max_length=64)
    series_instance_uid: str | None = Field(None, max_length=64)
    sop_instance_uid: str | None = Field(None, max_length=64)


class InstanceResponse(BaseModel):
    series_instance_uid: str
    sop_instance_uid: str
    modality: str


class InstancesResponse(BaseModel):
    """Identifiers only: nothing that the source says of a patient comes along."""

    model_config = ConfigDict(json_schema_extra={"examples": [examples.INSTANCES]})

    instances: list[InstanceResponse] = Field(description="those that may hold an image")


@router.get(
    "",
    summary="List the DICOMweb sources",
    dependencies=[needs(Scope.READ)],
    responses=problems.responses(422, 500),
)
async def list_sources(serving: ServingDep) -> SourcesResponse:
    """Where images can be named instead of sent."""
    return SourcesResponse(sources=list(serving.sources))


@router.post(
    "/{name}/search",
    summary="List the instances of a study",
    dependencies=[needs(Scope.SUBMIT)],
    responses=problems.responses(400, 404, 413, 422, 500, 502),
)
async def search_source(
    name: Annotated[str, Path(max_length=64)],
    request: Request,
    asked: SearchRequest,
    serving: ServingDep,
) -> InstancesResponse:
    """Of a study, a series of it, or one instance: at most 64."""
    client = source_of(serving, name)
    found = await client.instances(Reference(**asked.model_dump()))
    await record_read(request, serving, client.name, asked.study_instance_uid)
    return InstancesResponse(
        instances=[_instance(one) for one in found if one.modality not in NO_IMAGES]
    )


def _instance(found: Found) -> InstanceResponse:
    return InstanceResponse(
        series_instance_uid=found.series_instance_uid,
        sop_instance_uid=found.sop_instance_uid,
        modality=found.modality[:16],
    )
