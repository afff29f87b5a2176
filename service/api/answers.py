"""Answers to questions about one image."""

from typing import Annotated
from uuid import uuid4

from fastapi import APIRouter, Depends, Form, Request, Response
from fastapi.responses import StreamingResponse

from service.api import problems, replies
from service.api.admission import AdmittedRoute
from service.api.dependencies import KnownOptions, ServingDep
from service.api.diagnoses import ID
from service.api.replies import STREAMED, Asking
from service.api.schemas_text import AnswerRequest, AnswerResponse, answer_response
from service.domain import Answer
from service.errors import NotFound
from service.progress import Tell

router = APIRouter(
    prefix="/v1/answers",
    tags=["answers"],
    dependencies=[KnownOptions],
    route_class=AdmittedRoute,
)


@router.post(
    "",
    status_code=201,
    summary="Answer a question about an image",
    response_model=AnswerResponse,
    dependencies=[Depends(replies.multipart_only)],
    responses={**STREAMED, **problems.responses(400, 413, 415, 422, 500, 502, 503)},
)
async def create_answer(
    request: Request,
    response: Response,
    form: Annotated[AnswerRequest, Form(media_type="multipart/form-data")],
    serving: ServingDep,
) -> AnswerResponse | StreamingResponse:
    """In free text, or with `choices` one of them with a probability for each.

    Stored before this replies.
    """
    await replies.refuse_repeated_fields(request, except_for="choices")
    task = await replies.task_asked_at(serving, router.prefix, form.task)
    other = await replies.consulted(serving, task)
    file, id = await form.file.read(), str(uuid4())

    async def work(tell: Tell) -> Answer:
        return await replies.observed(
            serving,
            file,
            form.frame,
            lambda decoded: serving.parts.pipeline.answer(
                replies.case_of(
                    id,
                    task,
                    decoded,
                    form.group,
                    consulted=other,
                    question=form.question,
                    choices=tuple(form.choices),
                ),
                tell,
            ),
        )

    return await replies.reply(
        Asking(request, serving, other or task),
        response,
        work,
        lambda answer: answer_response(answer, other),
        "get_answer",
    )


@router.get("/{id}", summary="Read an answer", responses=problems.responses(404, 422, 500))
async def get_answer(id: str, serving: ServingDep) -> AnswerResponse:
    """The answer as it was given."""
    if not ID.fullmatch(id):
        raise NotFound(f"no answer {id[:64]!r}")
    answer = await serving.parts.store.get(Answer, id)
    return answer_response(answer, await replies.known(serving, answer.consulted))
