"""Answers to questions about one image."""

from typing import Annotated

from fastapi import APIRouter, Depends, Form, Request, Response

from service.api import problems, replies
from service.api.access import needs
from service.api.asking import REPLIES, Preferences
from service.api.consulting import Sent, reply_consulting
from service.api.dependencies import KnownOptions, Serving, ServingDep
from service.api.diagnoses import ID
from service.api.referenced import BY_REFERENCE, ImageRoute
from service.api.schemas_text import AnswerRequest, AnswerResponse, answer_response
from service.domain import Answer
from service.errors import NotFound
from service.identity.caller import Scope

router = APIRouter(
    prefix="/v1/answers",
    tags=["answers"],
    dependencies=[KnownOptions],
    route_class=ImageRoute,
)


@router.post(
    "",
    status_code=201,
    summary="Answer a question about an image",
    response_model=AnswerResponse,
    dependencies=[needs(Scope.SUBMIT), Depends(replies.multipart_only), Preferences],
    openapi_extra=dict(BY_REFERENCE),
    responses=REPLIES,
)
async def create_answer(
    request: Request,
    response: Response,
    form: Annotated[AnswerRequest, Form(media_type="multipart/form-data")],
    serving: ServingDep,
) -> AnswerResponse | Response:
    """In free text, or with `choices` one of them with a probability for each.

    Stored before this replies.
    """
    await replies.refuse_repeated_fields(request, except_for="choices")
    sent = Sent(request, response, serving, router.prefix, form)
    return await reply_consulting(
        sent,
        "answer",
        answer_response,
        question=form.question,
        choices=tuple(form.choices),
    )


@router.get(
    "/{id}",
    summary="Read an answer",
    dependencies=[needs(Scope.READ)],
    responses=problems.responses(404, 422, 500, 503),
)
async def get_answer(id: str, request: Request, serving: ServingDep) -> AnswerResponse:
    """The answer as it was given."""
    if not ID.fullmatch(id):
        raise NotFound(f"no answer {id[:64]!r}")
    return await read_answer(request, serving, id)


async def read_answer(request: Request, serving: Serving, id: str) -> AnswerResponse:
    """A stored answer on the wire; raises NotFound."""
    answer = await replies.read(request, serving, Answer, id)
    return answer_response(answer, await replies.known(serving, answer.consulted))
