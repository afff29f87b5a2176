"""The work behind `gsco batch`: so many cases at once, each line written as it comes."""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import AbstractAsyncContextManager
from pathlib import Path

from service import composition
from service.api.dependencies import Parts
from service.batch.answering import PATIENCE, Cohort, check, line_of
from service.batch.manifest import Row
from service.batch.results import Results
from service.errors import InvalidInput, Misconfigured
from service.jobs.job import Retry
from service.settings import Settings
from specialists import task as tasks


async def run(
    settings: Settings,
    folder: Path,
    rows: tuple[Row, ...],
    results: Results,
    at_once: int,
    tell: Callable[[int], None],
    retry: Retry = PATIENCE,
    starting: Callable[[Settings], AbstractAsyncContextManager[Parts]] = composition.running_parts,
) -> dict[str, int]:
    """How many rows are done, failed, and were done before. `tell` hears how many are through.

    Raises Misconfigured where a row cannot be asked, before any is; and what is nobody's fault,
    such as GeneralistUnavailable, once patience has ended.
    """
    known = tasks.read_all(settings.tasks_folder)
    for row in rows:
        try:
            check(known, row)
        except InvalidInput as error:
            raise Misconfigured(str(error)) from error
    with results.opened(rows) as before:
        waiting = [row for row in rows if row.id not in before]
        counts = {"done": 0, "failed": 0, "done before": len(before)}
        if waiting:
            async with starting(settings) as parts:
                cohort = Cohort(folder, parts, known, settings.max_upload_bytes, retry)
                await _answer_all(cohort, waiting, results, at_once, counts, tell)
    return counts


async def _answer_all(
    cohort: Cohort,
    waiting: list[Row],
    results: Results,
    at_once: int,
    counts: dict[str, int],
    tell: Callable[[int], None],
) -> None:
    """Each of the workers takes the next row; the first that cannot go on stops all."""
    rows: Iterator[Row] = iter(waiting)
    writing = asyncio.Lock()

    async def work() -> None:
        for row in rows:
            line = await line_of(cohort, row)
            async with writing:
                await asyncio.to_thread(results.add, line)
            counts[line["status"]] += 1
            tell(sum(counts.values()))

    try:
        async with asyncio.TaskGroup() as group:
            for _ in range(at_once):
                group.create_task(work())
    except BaseExceptionGroup as failures:
        raise failures.exceptions[0] from None
