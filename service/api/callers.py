"""Who asks: what the service makes of a caller's key or token."""

from fastapi import APIRouter, Request
from pydantic import BaseModel, ConfigDict, Field

from service.api import examples, problems
from service.api.access import caller_of, needs
from service.api.dependencies import KnownOptions
from service.identity.caller import Scope

router = APIRouter(prefix="/v1/caller", tags=["callers"], dependencies=[KnownOptions])


class CallerResponse(BaseModel):
    model_config = ConfigDict(json_schema_extra={"examples": [examples.CALLER]})

    name: str = Field(description="`key:ID`, `user:SUBJECT` or `anonymous`")
    scopes: list[Scope] = Field(description="what the caller may do")


@router.get(
    "",
    summary="Ask who you are",
    dependencies=[needs(Scope.READ)],
    responses=problems.responses(422, 500),
)
async def get_caller(request: Request) -> CallerResponse:
    """The caller behind this request's credentials; everybody, where none are asked for."""
    caller = caller_of(request)
    return CallerResponse(name=caller.name, scopes=[one for one in Scope if one in caller.scopes])
