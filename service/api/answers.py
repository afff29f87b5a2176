"""Answers to questions about one image."""

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Form, Request, Response

from service.api import problems, replies
from service.api.access import caller_of, needs
from service.api.asking import REPLIES, Asking, Preferences, reply
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
    task = await replies.task_asked_at(serving, router.prefix, form.task)
    other = await replies.consulted(serving, task)
    asked: dict[str, Any] = {
        "consulted": other,
        "question": form.question,
        "choices": tuple(form.choices),
        "requested_by": caller_of(request).name,
    }
    file = await form.file.read()
    decoded, seconds = await replies.decoded(serving, file, form.frame)
    return await reply(
        Asking(
            request=request,
            response=response,
            serving=serving,
            kind="answer",
            form=form,
            file=file,
            evidence_task=other or task,
            intake_seconds=seconds,
            case=lambda id: replies.case_of(id, task, decoded, form.group, **asked),
            shape=lambda answer: answer_response(answer, other),
        )
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
