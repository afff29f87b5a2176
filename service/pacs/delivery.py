"""Results go back to the PACS: kept until they have arrived, sent again until they have.

What is to be sent is durable before whoever handed the image over is told of success. The objects
are made once, and every attempt sends the same bytes under the same UIDs: a PACS that heard of
them before has them already. What is given up is a dead letter (`gsco jobs dead|resend`).
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass

import structlog
from sqlalchemy.orm import Session

from service import ports
from service.audit.event import Action, Event
from service.domain import Diagnosis
from service.errors import DeliveryFailed, DeliveryRefused, NotFound, Overloaded
from service.intake.result import IntakeResult
from service.jobs import overview
from service.jobs import queue as durable
from service.jobs.job import Job, Retry, State, Work, id_of_follower
from service.jobs.queue import Queue
from service.jobs.spool import Spool
from service.pacs import answer
from service.pacs.outbox import Letter, Outbox, Report
from service.pacs.targets import Target, target_of
from service.persistence import erasure
from service.persistence.database import writing
from service.servers import PacsTarget
from service.settings import Settings
from specialists.errors import SpecialistUnavailable, UnknownBackbone, UnknownLabel
from specialists.prediction import Explanation, Heat, Pixels
from specialists.task import Task

NAME = "pacs"
RETRY = Retry(attempts=60, first_seconds=2, longest_seconds=900)
"""Sixty attempts in about thirteen hours: a PACS that is away for a night is answered."""

_LOOK_SECONDS = 0.5

Explain = Callable[[Pixels, Task, str, str], Awaitable[Explanation]]
"""Where a specialist of a task looked for a label; raises as `SpecialistPool.explain` does."""

log = structlog.stdlib.get_logger(__name__)


@dataclass(frozen=True)
class Means:
    """What answers are made with: results, heat maps, tasks as they are now, and the audit."""

    store: ports.Store
    explain: Explain
    task: Callable[[str], Awaitable[Task | None]]
    record: Callable[[Event], Awaitable[None]]


@asynccontextmanager
async def opened(settings: Settings, queue: Queue, means: Means) -> AsyncIterator["Deliveries"]:
    """The answers to the targets of the settings. Raises OSError where the spool is unwritable."""
    outbox = Outbox(settings.spool_folder)
    place = await asyncio.to_thread(Spool(settings.spool_folder).open)
    await asyncio.to_thread(outbox.open)
    targets = [target_of(one) for one in settings.pacs_targets]
    try:
        yield Deliveries(settings, queue, outbox, place, targets, means)
    finally:
        await asyncio.gather(*(target.close() for target in targets))


class Doubt:
    """Whether a target answers. Once it did not, a single letter at a time finds out.

    So that one PACS that hangs does not hold every hand while others could be answered.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._is_in_doubt = False
        self._asking = 0

    @contextmanager
    def one_at_a_time(self) -> Iterator[None]:
        """Raises DeliveryFailed where another letter is finding out."""
        if self._is_in_doubt and self._asking:
            raise DeliveryFailed(f"target {self._name!r} does not answer: another letter waits")
        self._asking += 1
        try:
            yield
        except DeliveryRefused:
            self._is_in_doubt = False
            raise
        except DeliveryFailed:
            self._is_in_doubt = True
            raise
        else:
            self._is_in_doubt = False
        finally:
            self._asking -= 1


class Deliveries:
    """The answers of one service to its targets. `place` names the spool of its letters."""

    def __init__(
        self,
        settings: Settings,
        queue: Queue,
        outbox: Outbox,
        place: str,
        targets: Sequence[Target],
        means: Means,
    ) -> None:
        self._settings = settings
        self._queue = queue
        self._outbox = outbox
        self._place = place
        self._targets: Mapping[str, Target] = {one.settings.name: one for one in targets}
        self._means = means
        self._doubts = {name: Doubt(name) for name in self._targets}
        self._one_at_a_time = asyncio.Lock()  # writing objects is work for the interpreter alone

    async def take_over(self, diagnosis: Diagnosis, received: IntakeResult) -> None:
        """Durable when this returns. What has been delivered is not delivered again; what was
        given up is tried again. Raises Overloaded.
        """
        for target in self._answered(received):
            id = _delivery_id(diagnosis.id, target)
            known = (await self._queue.read(overview.states, [id])).get(id)
            if known is State.FAILED and await asyncio.to_thread(self._outbox.has, id):
                await self._queue.run(durable.resend, {NAME}, [id])
            elif known in (None, State.FAILED):
                maps = [one.map for one in diagnosis.evidence.segmentations]
                work = await self._kept(diagnosis.id, target, received, maps)
                await self._queue.run(_put_or_resend, work)
            self._queue.wake()

    async def prepare(self, result: str, received: IntakeResult) -> tuple[Work, ...]:
        """What follows a job that will make this result; its letters wait. Raises Overloaded."""
        targets = self._answered(received)
        return tuple([await self._kept(result, target, received) for target in targets])

    async def arrived(self, result: str) -> tuple[Report, ...]:
        """The reports that targets in the hospital have, once all of this result has arrived.

        Raises DeliveryFailed where something was given up.
        """
        targets = [target.settings for target in self._targets.values()]
        by_id = {_delivery_id(result, one): one for one in targets}
        states = await self._queue.read(overview.states, by_id)
        while not all(state.has_ended for state in states.values()):
            await asyncio.sleep(_LOOK_SECONDS)
            states = await self._queue.read(overview.states, by_id)
        if any(state is not State.SUCCEEDED for state in states.values()):
            raise DeliveryFailed("a result was not taken by its PACS")
        wanting = [by_id[id] for id in states if "sr" in by_id[id].objects]
        return tuple(answer.report_of(result, one.url) for one in wanting if not one.outside)

    async def deliver(self, job: Job) -> bool:
        """Sends one letter; raises DeliveryFailed, or DeliveryRefused where it is of no use."""
        argument = job.work.argument
        if argument.get("ended", {"state": State.SUCCEEDED})["state"] != State.SUCCEEDED:
            await asyncio.to_thread(self._outbox.remove, job.id)  # nothing was made
            return False
        target = self._targets.get(argument["target"])
        if target is None:
            raise DeliveryRefused(f"the settings have no target {argument['target']!r} any more")
        objects = await self._objects(job.id, argument["result"], target.settings)
        with self._doubts[target.settings.name].one_at_a_time():
            await target.send(objects)
        await asyncio.to_thread(self._end, job)
        log.info("answered", target=target.settings.name, result=argument["result"])
        return True

    async def keep_house(self) -> None:
        """Forgets letters that nobody will send: left by a crash, or of a result that is erased."""
        for id in await self._useless():
            await asyncio.to_thread(self._outbox.remove, id)
        await asyncio.to_thread(self._outbox.clear)

    def _end(self, job: Job) -> None:
        """In one thread, which a stop does not interrupt: what has arrived lies here no longer."""
        with writing(self._queue.engine) as session:
            durable.end(session, job, State.SUCCEEDED)
        self._outbox.remove(job.id)

    def _answered(self, received: IntakeResult) -> tuple[PacsTarget, ...]:
        """Who is told of an image: those that answer its sender."""
        sender = received.instance.sender if received.instance else None
        settings = (target.settings for target in self._targets.values())
        return tuple(one for one in settings if not one.senders or sender in one.senders)

    async def _kept(
        self,
        result: str,
        target: PacsTarget,
        received: IntakeResult,
        maps: Sequence[Heat | None] = (),
    ) -> Work:
        await self._check_room()
        id, instance = _delivery_id(result, target), received.instance
        letter = Letter(
            result,
            instance.frame_number if instance else 1,
            received.header or {},
            received.image.pixels if "capture" in target.objects else None,
            tuple(one for one in maps if one is not None and "segmentation" in target.objects),
        )
        size = await asyncio.to_thread(self._outbox.put, id, letter)
        argument = {"result": result, "target": target.name}
        return Work(
            NAME, argument, RETRY, place=self._place, size_bytes=size, key=_key(target), id=id
        )

    async def _check_room(self) -> None:
        count, size = await self._queue.read(overview.backlog, {NAME}, self._place)
        limits = self._settings
        if count >= limits.max_queued_jobs or size >= limits.max_spool_bytes:
            raise Overloaded(f"{count} answers to the PACS are waiting: send the image again later")

    async def _objects(self, id: str, result: str, target: PacsTarget) -> tuple[bytes, ...]:
        """What is sent, made at the first attempt and kept for the others."""
        try:
            diagnosis = await self._means.store.get(Diagnosis, result)  # it may have been erased
            letter = await asyncio.to_thread(self._outbox.get, id)
        except NotFound as error:
            await asyncio.to_thread(self._outbox.remove, id)
            raise DeliveryRefused(f"there is nothing to send: {error}") from None
        if letter.objects:
            return letter.objects
        objects = await self._made(letter, diagnosis, target)
        # First the audit: killed in between, it says so twice, and never not at all.
        await self._means.record(_sent(diagnosis, target))
        await asyncio.to_thread(self._outbox.replace, id, Letter(result, objects=objects))
        return objects

    async def _made(
        self, letter: Letter, diagnosis: Diagnosis, target: PacsTarget
    ) -> tuple[bytes, ...]:
        task = await self._means.task(diagnosis.task)
        explanations = await self._explanations(letter, diagnosis, task)
        secret = self._settings.pseudonym_key.get_secret_value().encode()
        key = secret if target.outside else None
        async with self._one_at_a_time:
            return await asyncio.to_thread(
                answer.objects, diagnosis, letter, task, explanations, target.objects, key
            )

    async def _explanations(
        self, letter: Letter, diagnosis: Diagnosis, task: Task | None
    ) -> tuple[Explanation, ...]:
        """Those that can be had: a report is worth sending without them."""
        if letter.pixels is None or task is None:
            return ()
        made = []
        for specialist, label in answer.witnesses(diagnosis, task):
            try:
                made.append(await self._means.explain(letter.pixels, task, specialist, label))
            except (SpecialistUnavailable, UnknownBackbone, UnknownLabel, ValueError) as error:
                log.warning("no heat map", specialist=specialist, reason=type(error).__name__)
        return tuple(made)

    async def _useless(self) -> set[str]:
        there = await asyncio.to_thread(self._outbox.ids)
        old = await asyncio.to_thread(self._outbox.ids, old=True)
        about = {id: await asyncio.to_thread(self._outbox.result_of, id) for id in there}
        results = {result for result in about.values() if result}
        states = await self._queue.read(overview.states, there | results)
        stored = await asyncio.to_thread(erasure.known, self._queue.engine, results)

        def is_useful(id: str) -> bool:
            result = about[id] or ""
            coming = result in states and not states[result].has_ended
            if id in states:
                is_done = states[id] in (State.SUCCEEDED, State.CANCELLED)
                return not is_done and (coming or result in stored)
            return coming or id not in old

        return {id for id in there if not is_useful(id)}


def _put_or_resend(session: Session, work: Work) -> None:
    if not durable.put(session, work):
        durable.resend(session, {NAME}, [work.id])


def _delivery_id(result: str, target: PacsTarget) -> str:
    return id_of_follower(result, _key(target))


def _key(target: PacsTarget) -> str:
    return f"{NAME}/{target.name}"


def _sent(diagnosis: Diagnosis, target: PacsTarget) -> Event:
    details = {"target": target.name, "outside": target.outside}
    return Event(Action.SENT, "gsco", "diagnosis", diagnosis.id, details=details)
