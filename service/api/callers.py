"""Who asks: what the service makes of a caller's key or token, and where people get one."""

from fastapi import APIRouter, Request
from pydantic import BaseModel, ConfigDict, Field

from service.api import examples, problems
from service.api.access import PUBLIC, caller_of, needs
from service.api.dependencies import KnownOptions, ServingDep
from service.errors import NotFound
from service.identity.caller import Scope

router = APIRouter(prefix="/v1", tags=["callers"], dependencies=[KnownOptions])


class CallerResponse(BaseModel):
    model_config = ConfigDict(json_schema_extra={"examples": [examples.CALLER]})

    name: str = Field(description="`key:ID`, `user:SUBJECT` or `anonymous`")
    scopes: list[Scope] = Field(description="what the caller may do")


class SignInResponse(BaseModel):
    """What a public client needs for an authorization code with PKCE."""

    model_config = ConfigDict(json_schema_extra={"examples": [examples.SIGN_IN]})

    client_id: str
    authorization_endpoint: str
    token_endpoint: str
    scopes: list[str]


@router.get(
    "/caller",
    summary="Ask who you are",
    dependencies=[needs(Scope.READ)],
    responses=problems.responses(422, 500),
)
async def get_caller(request: Request) -> CallerResponse:
    """The caller behind this request's credentials; everybody, where none are asked for."""
    caller = caller_of(request)
    return CallerResponse(name=caller.name, scopes=[one for one in Scope if one in caller.scopes])


@router.get(
    "/sign-in",
    summary="Ask where people sign in",
    dependencies=[PUBLIC],
    responses=problems.responses(404, 422, 500, 503),
)
async def get_sign_in(serving: ServingDep) -> SignInResponse:
    """The issuer's endpoints; 404 where people do not sign in at one, 503 while it is away."""
    sign_in = serving.sign_in
    if sign_in is None:
        raise NotFound("People do not sign in at an issuer here: use an API key or a token.")
    found = await sign_in.endpoints()
    return SignInResponse(
        client_id=sign_in.client.id,
        authorization_endpoint=found.authorization,
        token_endpoint=found.token,
        scopes=list(sign_in.client.scopes),
    )
