"""A row of a list in, its result out: for `gsco batch`, and for engines that map over rows.

On a cluster the same function runs as a Ray Data job, each worker with models of its own:

    rows = ray.data.read_csv("shared/manifest.csv")
    rows.map(Answering, fn_constructor_args=("shared/home", "shared"), concurrency=4)
"""

import asyncio
from collections.abc import Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import NAMESPACE_OID, uuid5

from retrieval.errors import RetrievalError
from service import composition
from service.api import replies
from service.api.dependencies import Parts
from service.api.schemas import diagnosis_response
from service.api.schemas_text import answer_response, report_response
from service.batch.manifest import Row, row_of
from service.domain import Answer, Case, Diagnosis, Result
from service.errors import GscoError, InvalidInput, UnreadableImage
from service.identity.caller import local_name
from service.intake.result import IntakeResult
from service.jobs.cases import NAMES, answered, judge
from service.jobs.job import Retry
from service.jobs.runner import Failure
from service.progress import nobody
from service.settings import Settings, read_settings
from specialists import task as tasks
from specialists.errors import SpecialistsError
from specialists.task import Task, TaskKind

PATIENCE = Retry(attempts=3, first_seconds=1, longest_seconds=30, patience_seconds=600)
_OURS = (GscoError, SpecialistsError, RetrievalError)


@dataclass(frozen=True)
class Cohort:
    """Where the images of rows lie, who answers, what tasks there are, and what is too large."""

    folder: Path
    parts: Parts
    tasks: Mapping[str, Task]
    max_bytes: int
    retry: Retry = PATIENCE


class Answering:
    """Rows as mappings in, results as mappings out, one after another, with parts of its own."""

    def __init__(self, home: str | Path, folder: str | Path = ".") -> None:
        settings = read_settings(home=Path(home))
        self._loop, self._stack = asyncio.Runner(), AsyncExitStack()
        parts = self._loop.run(self._start(settings))
        known = tasks.read_all(settings.tasks_folder)
        self._cohort = Cohort(Path(folder), parts, known, settings.max_upload_bytes)

    async def _start(self, settings: Settings) -> Parts:
        return await self._stack.enter_async_context(composition.running_parts(settings))

    def __call__(self, told: Mapping[str, Any]) -> dict[str, Any]:
        """The line that `gsco batch` would write of this row; raises ValueError for a bad row."""
        return self._loop.run(line_of(self._cohort, row_of(told)))

    def close(self) -> None:
        """Stops what was started."""
        self._loop.run(self._stack.aclose())
        self._loop.close()


def check(known: Mapping[str, Task], row: Row) -> None:
    """Raises InvalidInput where the row's task is none, or is asked with too much or too little."""
    task = known.get(row.task)
    if task is None or (task.consults and task.consults not in known):
        name, names = task.consults if task else row.task, ", ".join(known) or "none yet"
        raise InvalidInput(f"row {row.id!r}: unknown task {name!r}; known tasks: {names}")
    is_asked = bool(row.question)
    if is_asked != (task.kind is TaskKind.QUESTION):
        raise InvalidInput(f"row {row.id!r}: a question goes with a question task, and only there")
    if (row.choices and not is_asked) or (row.draft and task.kind is not TaskKind.REPORT):
        raise InvalidInput(f"row {row.id!r}: a {task.kind} task takes no choices or no draft")


async def line_of(cohort: Cohort, row: Row) -> dict[str, Any]:
    """What came of a row: its result, or why there is none.

    Raises what is nobody's fault, such as GeneralistUnavailable, once patience has ended: the
    row may be tried again.
    """
    head = {"id": row.id, "row_sha256": row.sha256, "task": row.task}
    try:
        check(cohort.tasks, row)
        made = await _patiently(cohort, row)
    except Exception as error:  # a case's failure is its own
        if judge(error) is Failure.PASSING:
            raise
        detail = str(error) if isinstance(error, _OURS) else ""
        problem = {"error": type(error).__name__, "detail": detail}
        return {**head, "status": "failed", "problem": problem}
    task = cohort.tasks[row.task]
    return {**head, "status": "done", "kind": NAMES[task.kind], "result": _document(cohort, made)}


async def _patiently(cohort: Cohort, row: Row) -> Result:
    loop, retry = asyncio.get_running_loop(), cohort.retry
    began, failures = loop.time(), 0
    while True:
        try:
            return await _answered(cohort, row)
        except Exception as error:  # which of them are worth another attempt is known elsewhere
            failures += 1
            failure = judge(error)
            is_patient = loop.time() - began < retry.patience_seconds
            if not (
                (failure is Failure.PASSING and is_patient)
                or (failure is Failure.COUNTED and failures < retry.attempts)
            ):
                raise
        await asyncio.sleep(retry.wait_seconds(failures))


async def _answered(cohort: Cohort, row: Row) -> Result:
    data = await asyncio.to_thread(_bytes, cohort.folder / row.image, cohort.max_bytes)
    decoded = await cohort.parts.intake.decode(data, frame=row.frame)
    return await answered(cohort.parts.pipeline, _case(cohort, row, decoded), nobody)


def _case(cohort: Cohort, row: Row, decoded: IntakeResult) -> Case:
    """Its id follows from the row and the image: what is answered twice is stored once."""
    task = cohort.tasks[row.task]
    id = str(uuid5(NAMESPACE_OID, f"gsco:{row.sha256}:{decoded.image.sha256}"))
    asked: dict[str, Any] = {
        "consulted": cohort.tasks.get(task.consults),
        "question": row.question,
        "choices": row.choices,
        "draft": row.draft,
        "requested_by": local_name(),
    }
    return replies.case_of(id, task, decoded, row.group, **asked)


def _document(cohort: Cohort, made: Result) -> dict[str, Any]:
    """The result as REST tells it."""
    if isinstance(made, Diagnosis):
        return diagnosis_response(made, cohort.tasks[made.task]).model_dump(mode="json")
    other = cohort.tasks.get(made.consulted or "")
    if isinstance(made, Answer):
        return answer_response(made, other).model_dump(mode="json")
    return report_response(made, other).model_dump(mode="json")


def _bytes(path: Path, most: int) -> bytes:
    """A file, or one byte more of it than intake takes."""
    try:
        with path.open("rb") as file:
            return file.read(most + 1)
    except OSError as error:  # without the name, which may be a patient's
        raise UnreadableImage(f"cannot read the image: {error.strerror}") from error
