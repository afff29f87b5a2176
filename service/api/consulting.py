"""Reports and answers: tasks that have no labels of their own, and consult one that has."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from fastapi import Request, Response

from service.api import replies
from service.api.access import caller_of
from service.api.asking import Asking, Shape, reply
from service.api.dependencies import Serving
from service.api.schemas_text import AnswerRequest, ReportRequest
from specialists.task import Task


@dataclass(frozen=True, slots=True)
class Sent:
    """A request as its route received it: `address` names the route, `form` is what was sent."""

    request: Request
    response: Response
    serving: Serving
    address: str
    form: ReportRequest | AnswerRequest


async def reply_consulting(
    sent: Sent, kind: str, shape: Callable[[Any, Task | None], Shape], **asked: Any
) -> Shape | Response:
    """What `reply` says of a case with these words of the request; stored before it is said.

    `shape` puts what was made on the wire, given the task that was consulted.
    """
    serving, form = sent.serving, sent.form
    task = await replies.task_asked_at(serving, sent.address, form.task)
    other = await replies.consulted(serving, task)
    asked |= {"consulted": other, "requested_by": caller_of(sent.request).name}
    file = await form.file.read()
    decoded, seconds = await replies.decoded(serving, file, form.frame)
    return await reply(
        Asking(
            request=sent.request,
            response=sent.response,
            serving=serving,
            kind=kind,
            form=form,
            file=file,
            evidence_task=other or task,
            intake_seconds=seconds,
            case=lambda id: replies.case_of(id, task, decoded, form.group, **asked),
            shape=lambda made: shape(made, other),
        )
    )
