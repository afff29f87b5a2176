"""The panel at full size against the published procedure, in turn in one run, with equal weights.

Published: one image after another, one backbone after another, a forward in float32 for the
prediction and a second one for the features, which are not pooled and are compared with every
reference case. Ours: the service's own pool. The limit: the same computation in whole batches.
Weights are random: only time is measured, and that both compute the same.
"""

import asyncio
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.metrics.pairwise import cosine_similarity

from specialists import catalogue, loader, runtime, transforms
from specialists.architectures import build
from specialists.catalogue import Scale
from specialists.forward import forward
from specialists.loader import Manifest, Specialist
from specialists.pool import SpecialistPool
from specialists.task import Label, Task, TaskKind

TASK = Task("benchmark", TaskKind.SINGLE_LABEL, "chest X-ray", "chest", (Label("no"), Label("yes")))
REFERENCES = 200
CONCURRENCIES = (1, 8, 32)
SIZE = 512


@dataclass(frozen=True, slots=True)
class Row:
    """Milliseconds an image of one backbone, alone on one core."""

    backbone: str
    published: float
    eager: float
    compiled: float
    compiled_batch: float
    same_label: float
    least_cosine: float


def main(images: int, published_images: int, scale: Scale, *, as_json: bool) -> None:
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        _make(folder, scale)
        rows = [_row(one, folder) for one in _panel(folder)]
        pictures = _pictures(images)
        procedure = _published(folder, pictures[:published_images])
        pool = asyncio.run(_pooled(folder, pictures))
    document = {
        "backbones": [asdict(row) for row in rows],
        "images": images,
        "published_ms_an_image": procedure,
        **pool,
        "ratio": procedure / pool["pool_ms_an_image"],
    }
    print(json.dumps(document, indent=2) if as_json else _markdown(rows, document))


def _make(folder: Path, scale: Scale) -> None:
    for key in catalogue.PANEL:
        architecture = catalogue.find(key).at(scale)
        torch.manual_seed(0)
        model = build(architecture, len(TASK.labels))
        manifest = Manifest(
            task=TASK.name, kind=TASK.kind, labels=TASK.label_names, backbone=key, scale=scale,
            parameters=sum(p.numel() for p in model.parameters()),
            embedding_dimension=architecture.dimension,
            preprocessing=loader.preprocessing_of(architecture), recipe={}, data_fingerprint="",
            validation={"accuracy": None}, temperature=1.0, licence="",
        )  # fmt: skip
        loader.save(folder / TASK.name / key, model, manifest)


def _panel(folder: Path) -> Iterator[Specialist]:
    for key in catalogue.PANEL:
        yield loader.load(folder / TASK.name / key, TASK)


def _row(plain: Specialist, folder: Path) -> Row:
    """Both ways to compute, in turn on the same images."""
    fast = runtime.accelerated(plain, "cpu", folder / "compiled")
    how = plain.manifest.preprocessing
    seen = np.stack([transforms.resize(one, how.input_size) for one in _pictures(8)])
    batch = transforms.normalise(seen, how.mean, how.std)
    single = batch[:1]
    times = _in_turn(
        lambda: _twice(plain, single),
        lambda: forward(plain, single),
        lambda: forward(fast, single),
        lambda: forward(fast, batch),
    )
    ours, theirs = forward(fast, batch), forward(plain, batch)
    return Row(
        plain.name,
        *times[:3],
        compiled_batch=times[3] / len(batch),
        same_label=float((ours[0].argmax(1) == theirs[0].argmax(1)).mean()),
        least_cosine=float((ours[1] * theirs[1]).sum(axis=1).min()),
    )


def _in_turn(*works: Callable[[], Any], rounds: int = 5) -> list[float]:
    """Median milliseconds of each, one after the other, several rounds."""
    taken: list[list[float]] = [[] for _ in works]
    for turn in range(rounds + 1):
        for place, work in enumerate(works):
            started = time.perf_counter()
            work()
            if turn:
                taken[place].append(1000 * (time.perf_counter() - started))
    return [statistics.median(one) for one in taken]


@torch.inference_mode()
def _twice(one: Specialist, image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """A forward for the prediction, another for the unpooled features."""
    probabilities = one.model(image)[0].softmax(dim=-1)
    backbone: Any = one.model.backbone
    features = backbone.features if one.name == "alexnet" else backbone.forward_features
    return probabilities, features(image).flatten(1)


def _published(folder: Path, pictures: Sequence[np.ndarray]) -> float:
    """Median milliseconds an image: everything one after the other, as the scripts do."""
    torch.set_num_threads(os.cpu_count() or 1)  # PyTorch's own choice
    specialists = list(_panel(folder))
    known: dict[str, np.ndarray] = {}
    taken = []
    for place, picture in enumerate((pictures[0], *pictures)):
        started = time.perf_counter()
        for one in specialists:
            how = one.manifest.preprocessing
            seen = transforms.resize(picture, how.input_size)[None]
            _, features = _twice(one, transforms.normalise(seen, how.mean, how.std))
            vector = features.numpy()
            if one.name not in known:
                rng = np.random.default_rng(0)
                known[one.name] = rng.normal(size=(REFERENCES, vector.shape[1])).astype(np.float32)
            np.argsort(-cosine_similarity(vector, known[one.name])[0])[:10]
        if place:
            taken.append(1000 * (time.perf_counter() - started))
    torch.set_num_threads(1)
    return statistics.median(taken)


async def _pooled(folder: Path, pictures: Sequence[np.ndarray]) -> dict[str, Any]:
    pool = SpecialistPool(folder)
    await pool.start()
    try:
        await pool.consult(pictures[0], TASK)
        limit = await asyncio.to_thread(_limit, folder, pictures)
        started = time.perf_counter()
        await _asked(pool, pictures, len(pictures))
        whole = 1000 * (time.perf_counter() - started) / len(pictures)
        latencies = {str(n): await _asked(pool, pictures, n) for n in CONCURRENCIES}
    finally:
        await pool.close()
    return {"pool_ms_an_image": whole, "limit_ms_an_image": limit, "latency_ms": latencies}


async def _asked(pool: SpecialistPool, pictures: Sequence[np.ndarray], at_once: int) -> Any:
    gate, taken = asyncio.Semaphore(at_once), []

    async def one(picture: np.ndarray) -> None:
        async with gate:
            started = time.perf_counter()
            await pool.consult(picture, TASK)
            taken.append(1000 * (time.perf_counter() - started))

    await asyncio.gather(*(one(picture) for picture in pictures))
    middle, late = np.percentile(taken, (50, 99))
    return {"p50": float(middle), "p99": float(late)}


def _limit(folder: Path, pictures: Sequence[np.ndarray]) -> float:
    """Milliseconds an image of the same computation in whole batches of 16, on two cores."""
    panel = [runtime.accelerated(one, "cpu", folder / "compiled") for one in _panel(folder)]
    with ThreadPoolExecutor(2, initializer=torch.set_num_threads, initargs=(1,)) as threads:
        list(threads.map(lambda one: _batched(one, pictures[:16]), panel))
        started = time.perf_counter()
        list(threads.map(lambda one: _batched(one, pictures), panel))
    return 1000 * (time.perf_counter() - started) / len(pictures)


def _batched(one: Specialist, pictures: Sequence[np.ndarray]) -> None:
    how = one.manifest.preprocessing
    for start in range(0, len(pictures), 16):
        some = pictures[start : start + 16]
        seen = np.stack([transforms.resize(picture, how.input_size) for picture in some])
        forward(one, transforms.normalise(seen, how.mean, how.std))


def _pictures(count: int) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    small = rng.integers(0, 256, (count, 32, 32, 3), dtype=np.uint8)
    return [transforms.resize(one, SIZE) for one in small]


def _markdown(rows: Sequence[Row], found: dict[str, Any]) -> str:
    lines = [
        "| backbone | published, ms | one forward float32 | compiled | compiled, of 8 "
        "| same label | least cosine |",
        "|---|--:|--:|--:|--:|--:|--:|",
        *(
            f"| {row.backbone} | {row.published:.1f} | {row.eager:.1f} | {row.compiled:.1f} "
            f"| {row.compiled_batch:.1f} | {row.same_label:.3f} | {row.least_cosine:.5f} |"
            for row in rows
        ),
        "",
        f"Published procedure: {found['published_ms_an_image']:.0f} ms an image. "
        f"Our pool, {found['images']} images at once: {found['pool_ms_an_image']:.0f} ms an image, "
        f"{found['ratio']:.1f} times as fast; raw batches: {found['limit_ms_an_image']:.0f} ms.",
        "",
        "| at once | p50, ms | p99, ms |",
        "|--:|--:|--:|",
        *(
            f"| {count} | {one['p50']:.0f} | {one['p99']:.0f} |"
            for count, one in found["latency_ms"].items()
        ),
    ]
    return "\n".join(lines)
