"""The panel on other machines, asked over HTTP: `SpecialistPool` for whoever consults it."""

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import replace
from http import HTTPStatus

import httpx
import structlog

from specialists import wire
from specialists.catalogue import panel_of
from specialists.description import LoadedPanel
from specialists.errors import (
    InvalidMessage,
    PoolOverloaded,
    SpecialistsError,
    SpecialistUnavailable,
    UnknownBackbone,
    UnknownLabel,
)
from specialists.prediction import (
    Consultation,
    Explanation,
    Hear,
    MissingSpecialist,
    Pixels,
    unheard,
)
from specialists.segmentation import models
from specialists.task import Task

CONNECT_SECONDS = 5.0
RETRY_PAUSES_SECONDS = (0.2, 1.0)
AGAIN = frozenset({500, 502, 503, 504})
REFRESH_SECONDS = 10.0
MAX_ANSWER_BYTES = 64 * 1024 * 1024
AWAY = "the panel's server does not answer"
UNNAMED = "the panel's server does not know of it"

log = structlog.stdlib.get_logger(__name__)


class RemoteSpecialists:
    """Consults the Ray Serve application of `specialists.serve` at a URL.

    Asking changes nothing, so what may pass is asked again, three times in all: no connection,
    one that breaks, 500, 502, 503, 504. A timeout is not. A server that is away, or talks
    nonsense, leaves all specialists missing; one that is busy raises PoolOverloaded.
    """

    def __init__(
        self,
        url: str,
        *,
        timeout_seconds: float = 30,
        refresh_seconds: float = REFRESH_SECONDS,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self._client = httpx.AsyncClient(
            base_url=url,
            timeout=httpx.Timeout(timeout_seconds, connect=min(CONNECT_SECONDS, timeout_seconds)),
            transport=transport,
            trust_env=False,
        )
        self._timeout_seconds = timeout_seconds
        self._refresh_seconds = refresh_seconds
        self._tasks: dict[str, Task] = {}
        self._panels: dict[str, LoadedPanel] = {}
        self._refreshing: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Begins to look, now and then, who can answer."""
        if self._refreshing is None:
            self._refreshing = asyncio.create_task(self._refresh(), name="refresh panels")

    async def close(self) -> None:
        refreshing, self._refreshing = self._refreshing, None
        if refreshing is not None:
            refreshing.cancel()
            await asyncio.gather(refreshing, return_exceptions=True)
        await self._client.aclose()

    async def load(self, task: Task) -> LoadedPanel:
        """Who can answer for a task; everyone is missing where the server is away."""
        self._tasks[task.name] = task
        try:
            said = wire.read_panel(await self._ask("load", wire.question(task)), task)
            named = (one.name for one in said.specialists)
            panel = replace(said, missing=(*said.missing, *_silent(task, named, said.missing)))
        except SpecialistsError as error:
            panel = LoadedPanel(task.name, (), _everyone(task, error))
        self._panels[task.name] = panel
        return panel

    def loaded(self) -> tuple[LoadedPanel, ...]:
        """Every panel as it was last seen."""
        return tuple(self._panels.values())

    async def consult(self, pixels: Pixels, task: Task, hear: Hear = unheard) -> Consultation:
        """As `SpecialistPool.consult`; raises PoolOverloaded. The answer comes all at once."""
        body = await asyncio.to_thread(wire.question, task, pixels)
        try:
            said = await self._ask("consult", body)
            consultation = await asyncio.to_thread(wire.read_consultation, said, task)
        except (SpecialistUnavailable, InvalidMessage) as error:
            log.warning("panel not consulted", task=task.name, reason=str(error))
            return Consultation(task.name, (), (), _everyone(task, error))
        for prediction in consultation.predictions:
            hear(prediction)
        heard = [one.specialist for one in consultation.predictions]
        heard += [one.specialist for one in consultation.segmentations]
        silent = _silent(task, heard, consultation.missing)
        return replace(consultation, missing=(*consultation.missing, *silent))

    async def explain(
        self, pixels: Pixels, task: Task, specialist: str, label: str | None = None
    ) -> Explanation:
        """As `SpecialistPool.explain`, and raises what it raises."""
        _check_names(task, specialist, label)
        body = await asyncio.to_thread(
            wire.question, task, pixels, specialist=specialist, label=label
        )
        return wire.read_explanation(await self._ask("explain", body))

    async def _refresh(self) -> None:
        while True:
            await asyncio.sleep(self._refresh_seconds)
            await asyncio.gather(*(self.load(task) for task in self._tasks.values()))

    async def _ask(self, verb: str, body: bytes) -> bytes:
        """The answer's bytes; raises SpecialistUnavailable, PoolOverloaded, InvalidMessage."""
        for pause in (*RETRY_PAUSES_SECONDS, None):
            status, answer = await self._ask_once(verb, body)
            if status == HTTPStatus.OK:
                return answer
            if status not in AGAIN or pause is None:
                break
            await asyncio.sleep(pause)
        raise _refused(status, answer)

    async def _ask_once(self, verb: str, body: bytes) -> tuple[int, bytes]:
        """Status and body; a connection that fails is a 502, as a proxy would say."""
        try:
            async with asyncio.timeout(self._timeout_seconds), self._posted(verb, body) as response:
                return response.status_code, await _read(response)
        except (httpx.TimeoutException, TimeoutError):  # the second of an answer that trickles
            return HTTPStatus.REQUEST_TIMEOUT, AWAY.encode()
        except httpx.RequestError:
            return HTTPStatus.BAD_GATEWAY, AWAY.encode()

    @asynccontextmanager
    async def _posted(self, verb: str, body: bytes) -> AsyncIterator[httpx.Response]:
        headers = {"content-type": wire.MEDIA_TYPE}
        async with self._client.stream("POST", verb, content=body, headers=headers) as response:
            yield response


def _check_names(task: Task, specialist: str, label: str | None) -> None:
    if specialist not in panel_of(task):
        known = ", ".join(panel_of(task))
        raise UnknownBackbone(
            f"no specialist {specialist[:80]!r} on the panel of task {task.name!r}; known: {known}"
        )
    if label is not None and label not in task.label_names:
        known = ", ".join(task.label_names)
        raise UnknownLabel(f"task {task.name!r} has no label {label[:80]!r}; labels: {known}")


async def _read(response: httpx.Response) -> bytes:
    answer = bytearray()
    async for piece in response.aiter_bytes():
        answer += piece
        if len(answer) > MAX_ANSWER_BYTES:
            raise InvalidMessage(f"the panel's server sent more than {MAX_ANSWER_BYTES} bytes")
    return bytes(answer)


def _refused(status: int, answer: bytes) -> SpecialistsError:
    if status == HTTPStatus.SERVICE_UNAVAILABLE:
        return PoolOverloaded("the panel's machines have too many images waiting")
    if status == HTTPStatus.NOT_FOUND:
        return SpecialistUnavailable(answer[:300].decode(errors="replace"))
    return SpecialistUnavailable(AWAY if status in AGAIN else f"{AWAY}: status {int(status)}")


def _silent(
    task: Task, heard: Iterable[str], missing: Iterable[MissingSpecialist]
) -> list[MissingSpecialist]:
    """Those expected that the server neither heard nor missed: it serves another panel."""
    named = {*heard, *(one.specialist for one in missing)}
    return [MissingSpecialist(key, UNNAMED) for key in _expected(task) if key not in named]


def _everyone(task: Task, error: SpecialistsError) -> tuple[MissingSpecialist, ...]:
    return tuple(MissingSpecialist(key, str(error)) for key in _expected(task))


def _expected(task: Task) -> tuple[str, ...]:
    """The task's panel, and the models that outline its segment."""
    return *panel_of(task), *models.models_of(task)
