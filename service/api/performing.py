"""Workitems of a worklist, performed one after the other: IHE AI Workflow's pull (RAD-80 ff.).

The worklist is what is durable: a workitem that was claimed stays ours until it is completed or
cancelled, and is begun again after a crash. Diagnosing an image again makes the same diagnosis,
and answering the PACS again sends nothing twice.
"""

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime

import structlog

from service import telemetry
from service.api import reception
from service.api.dependencies import Serving
from service.api.reception import Arrival
from service.api.several import NO_IMAGES
from service.errors import GscoError, InvalidInput, NotFound, SourceUnavailable
from service.jobs import cases
from service.jobs.runner import Failure
from service.pacs.client import DicomwebClient, Found, Reference
from service.pacs.ups import Output, Performed, StepState, Worklist
from service.spans import Watch
from specialists.errors import SpecialistsError

MOST_ATTEMPTS = 20
"""So often is a workitem begun by one process before it is cancelled."""
PATIENCE_SECONDS = 24 * 3600.0
"""So long it waits for what is away or busy; from then on such attempts count too."""
DELIVERY_SECONDS = 600.0
"""So long is waited for results to arrive at the PACS before the workitem is looked at again."""

log = structlog.stdlib.get_logger(__name__)


@asynccontextmanager
async def performing(serving: Serving, watch: Watch) -> AsyncIterator[None]:
    """Works on the worklist of the settings until this is left; without one, does nothing."""
    settings = serving.settings.ups_worklist
    if settings is None:
        yield
        return
    key = serving.settings.pseudonym_key.get_secret_value().encode()
    worklist = Worklist(settings, key)
    performer = Performer(serving, worklist, watch)
    working = asyncio.create_task(performer.work())
    try:
        yield
    finally:
        working.cancel()
        with suppress(asyncio.CancelledError):
            await working
        await worklist.close()


class Performer:
    """Performs workitems for one service."""

    def __init__(self, serving: Serving, worklist: Worklist, watch: Watch) -> None:
        self._watch = watch
        self._serving = serving
        self._worklist = worklist
        self._settings = worklist.settings
        self._source: DicomwebClient = serving.sources[self._settings.source]
        self._attempts: Counter[str] = Counter()
        self._since: dict[str, float] = {}
        self._others: set[str] = set()

    async def work(self) -> None:
        """Looks at the worklist again and again; whatever fails is tried the next time."""
        while True:
            try:
                await self.look()
            except GscoError as error:
                log.warning("worklist not read", reason=str(error))
            except Exception:  # the next look may do better
                log.exception("worklist not read")
            await asyncio.sleep(self._settings.poll_seconds)

    async def look(self) -> None:
        """Resumes what we had begun, then begins what is scheduled; raises while nobody answers."""
        await self._serving.generalist.check()
        begun = await self._worklist.search(StepState.IN_PROGRESS)
        self._others &= set(begun)
        for uid in begun:
            if uid not in self._others and not await self._attempt(uid, self._worklist.is_ours):
                self._others.add(uid)
        for uid in await self._worklist.search(StepState.SCHEDULED):
            await self._attempt(uid, self._worklist.claim)

    async def _attempt(self, uid: str, is_ours: Callable[[str], Awaitable[bool]]) -> bool:
        """One workitem, unless it is another's: False. Trouble with it stops no others."""
        try:
            if not await is_ours(uid):
                self._forget(uid)
                return False
            with telemetry.following(self._watch, "workitem"):
                await self._end(uid, await self._performed(uid))
        except (GscoError, SpecialistsError, TimeoutError) as error:
            log.warning("workitem not performed", reason=type(error).__name__)
        except Exception:  # nor does what nobody foresaw
            log.exception("workitem not performed")
        return True

    async def _end(self, uid: str, performed: Performed) -> None:
        end = self._worklist.cancel if performed.reason else self._worklist.complete
        is_told = await end(uid, performed)
        if is_told:
            self._forget(uid)
        elif self._attempts[uid] >= MOST_ATTEMPTS:
            self._others.add(uid)  # nobody wants to hear of it
        outcome = "canceled" if performed.reason else "completed"
        log.info("workitem performed", outcome=outcome if is_told else "taken away")

    async def _performed(self, uid: str) -> Performed:
        """What came of a workitem; raises what may not fail the next time."""
        started = datetime.now(UTC)
        self._attempts[uid] += 1
        waited = time.monotonic() - self._since.setdefault(uid, time.monotonic())
        try:
            return Performed(started, await self._perform(uid))
        except (InvalidInput, NotFound) as error:
            return Performed(started, reason=str(error))
        except Exception as error:  # the next attempt may do better, or the last has failed
            if _passes(error) and waited < PATIENCE_SECONDS:
                self._attempts[uid] -= 1
                raise
            if self._attempts[uid] < MOST_ATTEMPTS:
                raise
            return Performed(started, reason="gsco could not perform it, however often")

    def _forget(self, uid: str) -> None:
        self._attempts.pop(uid, None)
        self._since.pop(uid, None)

    async def _perform(self, uid: str) -> tuple[Output, ...]:
        """The reports of all images that it names; raises what reception and source raise."""
        made: dict[str, str] = {}
        refusals: list[InvalidInput] = []
        for wanted in await self._worklist.inputs(uid):
            for one in await self._source.instances(wanted):
                try:
                    made |= await self._diagnosed(wanted, one)
                except InvalidInput as refusal:
                    refusals.append(refusal)
        if not made:
            raise refusals[0] if refusals else InvalidInput("the workitem names no image")
        return await self._outputs(made)

    async def _diagnosed(self, wanted: Reference, one: Found) -> dict[str, str]:
        """The study of each diagnosis, by its id; nothing of what holds no image."""
        if one.modality in NO_IMAGES:
            return {}
        study, name = wanted.study_instance_uid, self._settings.name
        data = await self._source.read(study, one)
        arrival = Arrival(
            data,
            self._settings.task or None,
            sender=self._source.name,
            requested_by=f"worklist:{name}",
        )
        received = await reception.receive(self._serving, arrival)
        return {received.diagnosis_id: study}

    async def _outputs(self, made: dict[str, str]) -> tuple[Output, ...]:
        """The reports, once they are there: a workitem is completed when its results can be had."""
        outputs: list[Output] = []
        async with asyncio.timeout(DELIVERY_SECONDS):
            for id, study in made.items():
                for one in await self._serving.parts.arrived(id):
                    where = f"{one.url}/studies/{study}" if one.url else ""
                    uids = study, one.series_instance_uid, one.sop_class_uid, one.sop_instance_uid
                    outputs.append(Output(*uids, where))
        return tuple(outputs)


def _passes(error: Exception) -> bool:
    """Whether it is no fault of the workitem: something is away or busy, and is waited for."""
    return isinstance(error, SourceUnavailable) or cases.judge(error) is Failure.PASSING
