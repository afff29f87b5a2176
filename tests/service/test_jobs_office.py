"""Stories of other durable work: named, with a JSON argument and a retry policy of its own."""

import os
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path

import pytest
from builders import a_case
from databases import a_queue
from fakes import FakeGeneralist, FakeRetriever, FakeSpecialists
from waiting import until, until_told

from service.errors import DeliveryFailed
from service.jobs import office
from service.jobs.cases import Limits
from service.jobs.job import Job, Retry, Work
from service.jobs.office import Office, Terms
from service.jobs.queue import Queue
from service.jobs.spool import Spool
from service.metrics import Metrics
from service.persistence.store import SqlStore
from service.pipeline import Pipeline

pytestmark = pytest.mark.usefixtures("either_database")

PROMPT = Retry(attempts=3, first_seconds=0.01, longest_seconds=0.02)


class Archive:
    """Takes results as a PACS would; away for the first so many times."""

    def __init__(self, away_for: int = 0) -> None:
        self.away_for = away_for
        self.asked: list[Job] = []

    async def store(self, job: Job) -> bool:
        self.asked.append(job)
        if len(self.asked) <= self.away_for:
            raise DeliveryFailed("the archive does not answer")
        return False


@asynccontextmanager
async def working(folder: Path, queue: Queue, archive: Archive) -> AsyncIterator[Office]:
    limits = Limits(10, 10**6, keep=timedelta(days=1), keep_keys=timedelta(days=1))
    terms = Terms(limits, folder / "spool", 2, 15, deliveries={"archive": archive.store})
    store = SqlStore(queue.engine)
    pipeline = Pipeline(FakeSpecialists(), FakeRetriever(), FakeGeneralist(), store)

    async def ready() -> None:
        return

    async with office.running(terms, queue, pipeline, ready, Metrics()) as running:
        yield running


async def test_any_work_is_done_as_often_as_it_takes(tmp_path: Path) -> None:
    archive = Archive(away_for=2)
    with a_queue(tmp_path) as queue:
        async with working(tmp_path, queue, archive):
            await queue.put(Work("archive", {"instance": "1.2.3"}, PROMPT))
            await until(lambda: len(archive.asked) == 3)

    assert {job.id for job in archive.asked} == {archive.asked[0].id}
    assert archive.asked[2].work.argument == {"instance": "1.2.3"}


async def test_a_case_is_followed_by_what_is_to_be_done_with_its_result(tmp_path: Path) -> None:
    archive = Archive()
    with a_queue(tmp_path) as queue:
        async with working(tmp_path, queue, archive) as running:
            then = (Work("archive", {"target": "PACS"}, PROMPT),)
            job = await running.jobs.submit(a_case(), then=then)
            twice = await running.jobs.submit(a_case(), then=then)
            await until(lambda: archive.asked)

    assert job.id == twice.id == "case-1"
    (asked,) = archive.asked
    assert asked.work.argument["target"] == "PACS"
    assert asked.work.argument["ended"]["id"] == "case-1"
    assert asked.work.argument["ended"]["state"] == "succeeded"


async def test_work_that_was_put_in_before_anybody_worked_is_done(tmp_path: Path) -> None:
    archive = Archive()
    with a_queue(tmp_path) as queue:
        await queue.put(Work("archive", {}))
        async with working(tmp_path, queue, archive):
            await until(lambda: archive.asked)


async def test_images_that_no_job_needs_are_removed(tmp_path: Path) -> None:
    spool, archive = Spool(tmp_path / "spool"), Archive()
    with a_queue(tmp_path) as queue:
        async with working(tmp_path, queue, archive) as running:
            ended = await running.jobs.submit(a_case(id="ended"))
            await until_told(lambda: running.jobs.find(ended.id), lambda job: job.state.has_ended)
            for id in ("ended", "never-put-in", "just-coming"):
                spool.put(a_case(id=id))
            long_ago = time.time() - 7200
            os.utime(tmp_path / "spool" / "never-put-in.case", (long_ago, long_ago))
            await running.jobs.keep_house()

    assert spool.ids() == {"just-coming"}


def test_what_follows_is_followed_by_nothing() -> None:
    with pytest.raises(ValueError, match="no followers"):
        Work("a", {}, then=(Work("b", {}, then=(Work("c", {}),)),))
