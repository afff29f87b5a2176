"""One warm diagnosis through the pipeline, against the published procedure with the same models.

The latter: stages one after another, specialists one by one with a forward for the prediction and
another for the embedding, no prefix reused. Both alternate in one run.
"""

import asyncio
import json
import statistics
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from uuid import uuid4

from retrieval.neighbour import Query
from service.composition import running_parts
from service.demo import home
from service.demo.tasks import demo_tasks
from service.domain import Case, Image, pixels_sha256
from service.evaluation.run import Forgetful
from service.generalist import prompt, template
from service.settings import Settings, read_settings
from specialists.training import evaluate

WARM_UP = 3


def main(cases: int, *, as_json: bool) -> None:
    settings = read_settings()
    home.prepare(settings, lambda task: None)
    result = asyncio.run(end_to_end(settings, cases))
    print(json.dumps(result, indent=2) if as_json else as_text(result))


async def end_to_end(settings: Settings, count: int) -> dict[str, object]:
    demo, words = demo_tasks()[0], template.find(settings.prompt_template)
    phantoms = list(demo.series(2 * (count + WARM_UP), seed=404))
    cases = [Case(str(uuid4()), demo.task, image_of(phantom.rgb)) for phantom in phantoms]
    specialists, _ = evaluate.load_panel(settings.specialists_folder / demo.task.name, demo.task)
    async with running_parts(settings) as parts:
        pipeline = replace(parts.pipeline, store=Forgetful())

        async def published(case: Case) -> None:
            await parts.generalist.answer(prompt.initial(words, case))
            queries = []
            for specialist in specialists:
                await asyncio.to_thread(evaluate.run, [specialist], [case.image.pixels])
                seen = await asyncio.to_thread(evaluate.run, [specialist], [case.image.pixels])
                sha256 = specialist.manifest.weights_sha256
                queries.append(Query(specialist.name, sha256, seen[specialist.name][1][0]))
            await parts.retriever.search(
                case.task.name, tuple(queries), group=None, image_sha256=""
            )
            unseen = replace(case, image=image_of(255 - case.image.pixels))
            await parts.generalist.answer(prompt.initial(words, unseen))

        ours, theirs = [], []
        for one, other in zip(cases[::2], cases[1::2], strict=True):
            ours.append(await timed(pipeline.diagnose, one))
            theirs.append(await timed(published, other))
    return summary(ours[WARM_UP:], theirs[WARM_UP:])


async def timed(call: Callable[[Case], Awaitable[object]], case: Case) -> float:
    started = time.perf_counter()
    await call(case)
    return time.perf_counter() - started


def summary(ours: list[float], theirs: list[float]) -> dict[str, object]:
    ratios = [other / one for one, other in zip(ours, theirs, strict=True)]
    return {
        "cases": len(ours),
        "gsco_median_seconds": round(statistics.median(ours), 4),
        "published_procedure_median_seconds": round(statistics.median(theirs), 4),
        "median_ratio": round(statistics.median(ratios), 2),
    }


def as_text(result: dict[str, object]) -> str:
    return "\n".join(f"{name:36} {value}" for name, value in result.items())


def image_of(pixels: object) -> Image:
    return Image(pixels, pixels_sha256(pixels), "image/png")  # type: ignore[arg-type]
