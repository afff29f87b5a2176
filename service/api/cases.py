"""Reference cases, to be read: what retrieval can find, with the small pictures of them.

How they come and go is in `curation`.
"""

from typing import Annotated

from fastapi import APIRouter, Query, Response
from pydantic import BaseModel, ConfigDict, Field

from retrieval.neighbour import ReferenceCase
from service.api import examples, problems
from service.api.access import needs
from service.api.dependencies import KnownOptions, ServingDep
from service.api.schemas import TASK_NAME
from service.errors import NotFound
from service.identity.caller import Scope

LONGEST_ID = 200
ONE_LINE = r"^[^\x00-\x1f\x7f]+$"
PICTURES = {b"\xff\xd8\xff": "image/jpeg", b"\x89PNG": "image/png"}
"""What a thumbnail begins with; anything else is not shown."""
A_DAY = "private, max-age=86400"

router = APIRouter(
    prefix="/v1/cases",
    tags=["reference cases"],
    dependencies=[needs(Scope.READ), KnownOptions],
)


class ReferenceCaseResponse(BaseModel):
    case_id: str
    task: str
    labels: list[str]
    report: str
    source: str
    licence: str
    modality: str


class ReferenceCasesResponse(BaseModel):
    model_config = ConfigDict(json_schema_extra={"examples": [examples.REFERENCE_CASES]})

    cases: list[ReferenceCaseResponse]
    next_cursor: str | None = Field(description="of the page after; null on the last one")


@router.get("", summary="List reference cases", responses=problems.responses(422, 500, 503))
async def list_cases(
    serving: ServingDep,
    task: Annotated[str, Query(pattern=TASK_NAME)],
    limit: Annotated[int, Query(ge=1, le=100)] = 25,
    cursor: Annotated[str | None, Query(max_length=LONGEST_ID, pattern=ONE_LINE)] = None,
) -> ReferenceCasesResponse:
    """Those of one task, by their ids."""
    found = await serving.parts.store.cases(task, limit + 1, cursor)
    shown = found[:limit]
    more = shown[-1].id if len(found) > limit else None
    return ReferenceCasesResponse(cases=[case_response(case) for case in shown], next_cursor=more)


@router.get(
    "/{id:path}/thumbnail",
    summary="See a reference case",
    response_class=Response,
    responses={
        200: {
            "description": "A small picture",
            "content": {
                kind: {"schema": {"type": "string", "format": "binary"}}
                for kind in PICTURES.values()
            },
        },
        **problems.responses(404, 422, 500, 503),
    },
)
async def get_thumbnail(id: str, serving: ServingDep) -> Response:
    """The small picture that was stored with the case, if one was."""
    is_an_id = len(id) <= LONGEST_ID and id.isprintable()
    picture = await serving.parts.store.thumbnail(id) if is_an_id else None
    kind = next((PICTURES[start] for start in PICTURES if (picture or b"").startswith(start)), None)
    if kind is None:
        raise NotFound(f"no picture of reference case {id[:LONGEST_ID]!r}")
    return Response(picture, media_type=kind, headers={"Cache-Control": A_DAY})


def case_response(case: ReferenceCase) -> ReferenceCaseResponse:
    """A reference case on the wire; its group stays here."""
    return ReferenceCaseResponse(
        case_id=case.id,
        task=case.task,
        labels=list(case.labels),
        report=case.report,
        source=case.source,
        licence=case.licence,
        modality=case.modality,
    )
