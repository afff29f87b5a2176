"""The panel on many machines: a Ray Serve application, asked over HTTP by the service.

    serve run specialists.serve:application home=/var/lib/gsco      # deploy/ray has a configuration

```
 service ──HTTP, safetensors──► Front ─┬─► vgg16 … sam-vit-b16   a deployment per backbone, each
                                       └─► segmentation           with replicas of its own
```

A replica is a `SpecialistPool` of one backbone: the same code, batches, queue and answers as in
one process. It has read its weights before it is given work. Inside the cluster Ray carries the
values; over HTTP they travel as `specialists.wire` says. Whoever reaches the port can ask: keep
it in a private network.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import ray
import torch
from cattrs import BaseValidationError, Converter, transform_error
from ray import serve
from ray.exceptions import RayActorError
from ray.serve.exceptions import BackPressureError, DeploymentUnavailableError
from ray.serve.handle import DeploymentHandle
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from specialists import catalogue, wire
from specialists import task as tasks
from specialists.catalogue import PANEL, panel_of
from specialists.description import LoadedPanel
from specialists.errors import (
    InvalidMessage,
    PoolOverloaded,
    SpecialistsError,
    SpecialistUnavailable,
)
from specialists.pool import SpecialistPool
from specialists.prediction import Consultation, Explanation, MissingSpecialist, Pixels
from specialists.segmentation import models
from specialists.segmentation.serving import Segmented
from specialists.task import Task

SEGMENTATION = "segmentation"
ATTEMPTS = 3
"""A consultation changes nothing, so it is asked again of another replica when one has died."""
PAUSE_SECONDS = 0.2
FRONTS = 2  # one may die
ONGOING = 32  # of a replica; twice a full batch
QUEUED = 64  # of a backbone, before callers are told to come back
MAX_BYTES = 256 * 1024 * 1024
OVERLOADED = (PoolOverloaded, BackPressureError)
DEAD = (RayActorError, DeploymentUnavailableError)

_converter = Converter(forbid_extra_keys=True)


@dataclass(frozen=True, slots=True)
class Plan:
    """What `serve run` is told; the fields of a deployment in Serve's configuration win over it.

    `gpus` is the share of a GPU that each replica takes: ten backbones fit on one at 0.1, and
    `replicas` fixes a number of each where none shall come and go with the load.
    """

    home: Path
    device: str = "cpu"
    cpus: float = 1.0
    gpus: float = 0.0
    replicas: int = 0
    most_replicas: int = 4
    backbones: tuple[str, ...] = PANEL


def plan(arguments: Mapping[str, Any]) -> Plan:
    """The plan of `name=value` arguments, where backbones have commas; raises ValueError."""
    given = dict(arguments)
    if isinstance(given.get("backbones"), str):
        given["backbones"] = given["backbones"].split(",")
    try:
        asked = _converter.structure(given, Plan)
    except BaseValidationError as error:
        told = "; ".join(transform_error(error))
        raise ValueError(f"arguments of the panel: {told}") from error
    for key in asked.backbones:
        catalogue.find(key)
    return asked


def application(arguments: dict[str, Any]) -> serve.Application:
    """The application that `serve run` and Serve's configuration name."""
    asked = plan(arguments)
    replicas = {
        key: serve.deployment(name=key, **_options(asked))(Replica).bind(
            str(asked.home), asked.device, key
        )
        for key in (*asked.backbones, SEGMENTATION)
    }
    front = serve.deployment(name="panel", max_ongoing_requests=4 * ONGOING, num_replicas=FRONTS)
    return front(Front).bind(replicas)


def _options(asked: Plan) -> dict[str, Any]:
    scaling: dict[str, Any] = {"num_replicas": asked.replicas}
    if not asked.replicas:
        scaling = {
            "autoscaling_config": {
                "min_replicas": 1,
                "max_replicas": asked.most_replicas,
                "target_ongoing_requests": ONGOING / 4,
            }
        }
    return {
        **scaling,
        "ray_actor_options": {"num_cpus": asked.cpus, "num_gpus": asked.gpus},
        "max_ongoing_requests": ONGOING,
        "max_queued_requests": QUEUED,
        "health_check_period_s": 5,
        "health_check_timeout_s": 15,
        "graceful_shutdown_timeout_s": 20,
    }


class Replica:
    """One backbone of every task, or the models that outline; Ray starts as many as it needs."""

    async def __init__(  # type: ignore[misc]  # Ray waits for it before it sends work
        self, home: str, device: str, key: str
    ) -> None:
        self._key, self._device = key, device
        self._pool = SpecialistPool(Path(home) / "specialists", device=device, threads=1)
        await self._pool.start()
        known = await asyncio.to_thread(tasks.read_all, Path(home) / "tasks")
        for task in known.values():
            if task.is_labelled and (key == SEGMENTATION or key in panel_of(task)):
                await self.load(task)

    async def load(self, task: Task) -> LoadedPanel:
        if self._key == SEGMENTATION:
            return await self._pool.load_segmenters(task)
        return await self._pool.load(self._mine(task))

    async def consult(self, pixels: Pixels, task: Task) -> Consultation:
        return await self._pool.consult(pixels, self._mine(task))

    async def outline(self, pixels: Pixels, task: Task) -> Segmented:
        return await self._pool.outline(pixels, task)

    async def explain(self, pixels: Pixels, task: Task, label: str | None) -> Explanation:
        return await self._pool.explain(pixels, self._mine(task), self._key, label)

    async def check_health(self) -> None:
        """Raises where the device no longer computes, as after a CUDA error: Ray replaces it."""
        await asyncio.to_thread(lambda: torch.ones(8, device=self._device).sum().item())

    def _mine(self, task: Task) -> Task:
        return replace(task, panel=(self._key,), segment=None, segmenters=())


class Front:
    """Takes questions over HTTP, asks every backbone at once, and merges what they say."""

    def __init__(self, replicas: Mapping[str, DeploymentHandle[Any]]) -> None:
        self._replicas = replicas
        self._verbs: dict[str, Callable[[bytes], Awaitable[bytes]]] = {
            "/load": self._load,
            "/consult": self._consult,
            "/explain": self._explain,
        }

    async def __call__(self, request: Request) -> Response:
        verb = self._verbs.get(request.url.path)
        if verb is None or request.method != "POST":
            return PlainTextResponse("POST /load, /consult or /explain", 404)
        if int(request.headers.get("content-length", MAX_BYTES + 1)) > MAX_BYTES:
            return PlainTextResponse(f"more than {MAX_BYTES} bytes, or of unknown length", 413)
        try:
            return Response(await verb(await request.body()), media_type=wire.MEDIA_TYPE)
        except OVERLOADED as error:
            return PlainTextResponse(str(error)[:200], 503, {"Retry-After": "1"})
        except (InvalidMessage, ValueError) as error:
            return PlainTextResponse(str(error)[:200], 400)
        except SpecialistsError as error:
            return PlainTextResponse(str(error)[:500], 404)

    async def _load(self, body: bytes) -> bytes:
        task, _, _ = wire.read_question(body)
        keys = (*panel_of(task), *((SEGMENTATION,) if task.segment else ()))
        found = await asyncio.gather(*(self._described(key, task) for key in keys))
        specialists = (one for part in found for one in part.specialists)
        missing = (one for part in found for one in part.missing)
        return wire.panel(LoadedPanel(task.name, tuple(specialists), tuple(missing)))

    async def _consult(self, body: bytes) -> bytes:
        task, pixels, _ = wire.read_question(body)
        image = _shared(pixels)
        asked = (self._consulted(key, image, task) for key in panel_of(task))
        said, segmented = await asyncio.gather(asyncio.gather(*asked), self._outlined(image, task))
        return wire.consultation(wire.merged(task, said, segmented))

    async def _explain(self, body: bytes) -> bytes:
        task, pixels, asked = wire.read_question(body)
        key, label = str(asked.get("specialist")), asked.get("label")
        if key not in panel_of(task):
            raise SpecialistUnavailable(f"no specialist {key[:80]!r} on the panel")
        said: Explanation = await self._ask(key, "explain", _shared(pixels), task, label)
        return wire.explanation(said)

    async def _described(self, key: str, task: Task) -> LoadedPanel:
        try:
            described: LoadedPanel = await self._ask(key, "load", task)
        except SpecialistUnavailable as error:
            keys = models.models_of(task) if key == SEGMENTATION else (key,)
            return LoadedPanel(
                task.name, (), tuple(MissingSpecialist(one, str(error)) for one in keys)
            )
        return described

    async def _consulted(
        self, key: str, image: "ray.ObjectRef[Pixels]", task: Task
    ) -> Consultation:
        try:
            said: Consultation = await self._ask(key, "consult", image, task)
        except SpecialistUnavailable as error:
            return Consultation(task.name, (), (), (MissingSpecialist(key, str(error)),))
        return said

    async def _outlined(self, image: "ray.ObjectRef[Pixels]", task: Task) -> Segmented:
        if task.segment is None:
            return Segmented()
        try:
            said: Segmented = await self._ask(SEGMENTATION, "outline", image, task)
        except (SpecialistUnavailable, *OVERLOADED) as error:
            keys = models.models_of(task)
            return Segmented(missing=tuple(MissingSpecialist(key, str(error)) for key in keys))
        return said

    async def _ask(self, key: str, method: str, *asked: Any) -> Any:
        """The answer of any living replica; raises SpecialistUnavailable where there is none."""
        handle = self._replicas.get(key)
        if handle is None:
            raise SpecialistUnavailable(f"no machine serves specialist {key[:80]!r}")
        for _ in range(ATTEMPTS):
            try:
                return await getattr(handle, method).remote(*asked)
            except DEAD:
                await asyncio.sleep(PAUSE_SECONDS)
        raise SpecialistUnavailable(f"the replicas of specialist {key!r} die")


def _shared(pixels: Pixels | None) -> "ray.ObjectRef[Pixels]":
    """Put into the cluster's memory once, for all who look at it."""
    if pixels is None:
        raise InvalidMessage("the question has no pixels")
    return ray.put(pixels)
