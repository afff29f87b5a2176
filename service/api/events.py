"""Server-sent events: what happens to a case, told as it happens."""

import json
from typing import Any

from fastapi import Request

from service.api.shapes import neighbour_shape, prediction_shape, probabilities_shape
from service.domain import Completion, LabelledAnswer
from specialists.task import Task

EVENT_STREAM = "text/event-stream"
HEADERS = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
"""The second keeps nginx from holding events back until there are many."""

KEEP_ALIVE = ": still there\n\n"
"""A comment, which clients ignore; proxies close what is silent for a minute."""


def wanted(request: Request) -> bool:
    """Whether the caller asks for events instead of one document."""
    return EVENT_STREAM in request.headers.get("accept", "")


def event(name: str, document: Any) -> str:
    """One event on the wire."""
    return f"event: {name}\ndata: {json.dumps(document, ensure_ascii=False)}\n\n"


def told(task: Task, stage: str, value: Any) -> Any:
    """What came of a stage, in JSON types; `task` is the one whose labels the evidence has."""
    if stage == "specialist":
        return prediction_shape(task.label_names, value, task).model_dump()
    if stage == "specialists":
        return [prediction_shape(task.label_names, p, task).model_dump() for p in value]
    if stage == "retrieval":
        return [neighbour_shape(neighbour).model_dump() for neighbour in value]
    if isinstance(value, LabelledAnswer):
        shares = probabilities_shape(task.label_names, value.probabilities)
        return {"labels": value.labels, "probabilities": [one.model_dump() for one in shares]}
    return {"text": value.text if isinstance(value, Completion) else value}
