"""What others notice while a specialist is replaced: latency of consultations, without and with.

Images come at a steady pace, whether the last one has been answered or not. Windows in which
nothing changes and windows in which one specialist of the panel gets new weights take turns; one
of the latter lasts until the new weights answer. Weights are random.
"""

import asyncio
import json
import os
import statistics
import tempfile
import time
from collections.abc import Awaitable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from service.demo.tasks import demo_tasks
from specialists import loader
from specialists.catalogue import Scale
from specialists.pool import SpecialistPool
from specialists.prediction import Pixels
from tests.benchmarks import panel
from tests.benchmarks.panel import TASK, Options

REPLACED = {Scale.FULL: "vit-b16", Scale.NANO: "resnet18"}
QUIET_SECONDS = {Scale.FULL: 40.0, Scale.NANO: 6.0}


def main(scale: Scale, rounds: int, pace: float, *, as_json: bool) -> None:
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        folder = panel.made(Path(name) / TASK.name, Options(scale=scale))
        pictures = [phantom.rgb for phantom in demo_tasks()[0].series(8, seed=29)]
        measured = asyncio.run(_measured(folder, scale, rounds, pace, pictures))
    document = {
        "machine": panel.machine("cpu"),
        "load": os.getloadavg(),
        "scale": scale,
        "seconds_between_images": pace,
        **measured,
    }
    print(json.dumps(document, indent=2) if as_json else _text(document))


async def _measured(
    folder: Path, scale: Scale, rounds: int, pace: float, pictures: Sequence[Pixels]
) -> dict[str, Any]:
    pool = SpecialistPool(folder.parent)
    await pool.start()
    quiet, changing, lasted = list[float](), list[float](), list[float]()
    try:
        await pool.load(TASK)
        await _while(pool, pictures, pace, asyncio.sleep(5))  # warm
        for fresh in [_fresh(folder, REPLACED[scale], seed) for seed in range(1, rounds + 1)]:
            quiet += await _while(pool, pictures, pace, asyncio.sleep(QUIET_SECONDS[scale]))
            started = time.perf_counter()
            changing += await _while(pool, pictures, pace, _replaced(pool, folder, fresh))
            lasted.append(time.perf_counter() - started)
    finally:
        await pool.close()
    return {
        "seconds_until_the_new_weights_answer": statistics.median(lasted),
        "quiet": _figures(quiet),
        "changing": _figures(changing),
        "p99_ratio": _figures(changing)["p99"] / _figures(quiet)["p99"],
    }


async def _while(
    pool: SpecialistPool, pictures: Sequence[Pixels], pace: float, window: Awaitable[None]
) -> list[float]:
    """Milliseconds of every consultation begun while the window lasts."""
    taken: list[float] = []

    async def ask(number: int) -> None:
        started = time.perf_counter()
        consultation = await pool.consult(pictures[number % len(pictures)], TASK)
        taken.append(1000 * (time.perf_counter() - started))
        if consultation.missing:
            raise RuntimeError(f"missing while it was replaced: {consultation.missing}")

    lasting = asyncio.ensure_future(window)
    async with asyncio.TaskGroup() as together:
        number = 0
        while not lasting.done():
            together.create_task(ask(number))
            number += 1
            await asyncio.sleep(pace)
    await lasting
    return taken


async def _replaced(pool: SpecialistPool, folder: Path, fresh: Path) -> None:
    """New weights renamed into place, as every way to add a specialist does."""
    wanted = loader.read_manifest(fresh).weights_sha256
    await asyncio.to_thread(_put, fresh, folder / fresh.name)
    while wanted not in _answering(pool):
        await asyncio.to_thread(time.sleep, 0.05)


def _put(fresh: Path, place: Path) -> None:
    place.rename(fresh.with_name("former"))
    fresh.rename(place)


def _answering(pool: SpecialistPool) -> set[str]:
    return {one.weights_sha256 for told in pool.loaded() for one in told.specialists}


def _fresh(folder: Path, name: str, seed: int) -> Path:
    """The specialist with other weights, elsewhere."""
    specialist = loader.load(folder / name)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in specialist.model.parameters():
            parameter.mul_(1 + 0.01 * torch.rand((), generator=generator))
    elsewhere = folder.parent / f".fresh-{seed}" / name
    loader.save(elsewhere, specialist.model, specialist.manifest)
    return elsewhere


def _figures(taken: Sequence[float]) -> dict[str, float]:
    middle, late = np.percentile(taken, (50, 99))
    return {"consultations": len(taken), "p50": float(middle), "p99": float(late)}


def _text(found: dict[str, Any]) -> str:
    lines = [
        f"{found['machine']}; load {found['load'][0]:.1f}; one image every "
        f"{found['seconds_between_images']:g} s; new weights answer after "
        f"{found['seconds_until_the_new_weights_answer']:.1f} s.",
        "",
        "| | consultations | p50, ms | p99, ms |",
        "|---|--:|--:|--:|",
    ]
    for name in ("quiet", "changing"):
        one = found[name]
        lines.append(f"| {name} | {one['consultations']} | {one['p50']:.0f} | {one['p99']:.0f} |")
    return "\n".join([*lines, "", f"p99 while changing: {found['p99_ratio']:.2f} times."])
