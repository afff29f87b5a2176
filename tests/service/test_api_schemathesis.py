"""Ten thousand requests made from the OpenAPI document, as it allows and as it does not.

Whatever comes back is what the document says may come back, and never an unforeseen error.
"""

from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import schemathesis
from builders import a_question_task, a_report_task, png_bytes, task_toml
from callers import holding
from databases import kept_in
from fakes import FakeGeneralist, FakeRetriever, FakeSpecialists
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as draw
from listening import listening
from schemathesis import APIOperation, Case, GenerationMode, SerializationContext
from schemathesis.checks import (
    CheckFunction,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)
from schemathesis.core.failures import FailureGroup

from service.api.dependencies import Parts
from service.app import create_app
from service.identity.caller import Scope
from service.intake.limits import Limits
from service.intake.sandbox import Sandbox
from service.persistence.store import SqlStore
from service.pipeline import Pipeline
from service.settings import Settings

CASES = 5000
SEED = 20261
IMAGE = png_bytes()
UNLIMITED = "1000000/second"
TASKS = draw.sampled_from(["cxr-pneumonia", "cxr-report", "cxr-questions"])
OPTIONAL = frozenset({"frame", "frames", "group", "priority", "webhook"})
"""What an image of one frame is refused with, mostly."""
CHECKS: list[CheckFunction] = [
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]


@schemathesis.serializer("multipart/related")
def as_it_is(_: SerializationContext, value: object) -> bytes:
    """The document says of such a body that it is a string of bytes."""
    return value if isinstance(value, bytes) else str(value).encode()


@contextmanager
def a_service_on_a_socket(
    home: Path, *, authentication: bool
) -> Iterator[tuple[str, dict[str, str]]]:
    """The address of a service on a socket, and the headers of a caller who may do everything."""
    with ExitStack() as stack:
        kept, intake = stack.enter_context(kept_in(home)), Sandbox(Limits())
        engine = kept[0].engine
        store = SqlStore(engine)
        panel, cases, generalist = FakeSpecialists(), FakeRetriever(), FakeGeneralist()
        pipeline = Pipeline(panel, cases, generalist, store)
        parts = Parts(pipeline, panel, cases, generalist, store, intake, *kept)
        given = Settings(home=home, authentication=authentication, rate_limit=UNLIMITED)
        url = stack.enter_context(listening(create_app(given, parts)))
        yield url, holding(engine, *Scope) if authentication else {}


@dataclass
class Conversation:
    """What was asked and answered so far; of `surprises` the first by operation and status."""

    headers: dict[str, str]
    statuses: Counter[int] = field(default_factory=Counter)
    surprises: dict[str, str] = field(default_factory=dict)
    ids: list[str] = field(default_factory=list)

    def ask(self, case: Case) -> None:
        reply = case.call(headers=self.headers)
        self.statuses[reply.status_code] += 1
        if reply.status_code in {201, 202} and "id" in reply.json():
            self.ids.append(reply.json()["id"])
        try:
            case.validate_response(reply, checks=CHECKS)
            assert reply.status_code < 500 or reply.status_code == 503
        except (AssertionError, FailureGroup) as error:
            name = f"{case.operation.label} {reply.status_code}"
            self.surprises.setdefault(name, f"{error}\n{reply.text[:500]}")

    def tell(self, case: Case, task: str, number: int) -> None:
        """What the document cannot say: which tasks and results there are, and what an image is;
        every third time also that a job would do, or at once.
        """
        known = {"task": task, "name": task, "file": IMAGE}
        if self.ids:
            known["id"] = self.ids[number % len(self.ids)]
        for part in (case.body, case.path_parameters):
            if isinstance(part, dict):
                part.update({name: known[name] for name in part.keys() & known.keys()})
        if isinstance(case.body, dict) and "file" in case.body and number % 3:
            case.body["task"] = task
            for name in OPTIONAL & case.body.keys():
                del case.body[name]
            if number % 3 == 1:
                case.headers["Prefer"] = "respond-async"


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("authentication", [False, True], ids=["anonymous", "admin"])
def test_every_reply_is_one_that_the_document_describes(home: Path, authentication: bool) -> None:
    for a_told_task in (a_report_task, a_question_task):
        task = a_told_task(consults="cxr-pneumonia")
        (home / "tasks" / f"{task.name}.toml").write_text(task_toml(task), "utf-8")
    with a_service_on_a_socket(home, authentication=authentication) as (url, caller):
        conversation = Conversation(caller)
        schema = schemathesis.openapi.from_url(f"{url}/openapi.json")
        operations = [found.ok() for found in schema.get_all_operations()]
        for operation in sorted(operations, key=lambda one: one.method, reverse=True):
            ask_often(conversation, operation, CASES // len(operations) + 1)

    surprises = conversation.surprises.items()
    assert not surprises, "\n\n".join(f"{name}\n{why}" for name, why in surprises)
    assert conversation.statuses.total() >= CASES
    assert conversation.statuses.keys() >= {200, 201, 202, 404, 415, 422}


def ask_often(conversation: Conversation, operation: APIOperation, count: int) -> None:
    """One operation, as the document allows it and as it does not; the same cases every time."""
    right = operation.as_strategy(generation_mode=GenerationMode.POSITIVE)
    wrong = operation.as_strategy(generation_mode=GenerationMode.NEGATIVE)

    @seed(SEED)
    @settings(
        max_examples=count,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(case=right | wrong, is_told=draw.booleans(), task=TASKS, number=draw.integers(0))
    def send(case: Case, is_told: bool, task: str, number: int) -> None:
        if is_told:
            conversation.tell(case, task, number)
        conversation.ask(case)

    send()
