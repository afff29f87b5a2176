"""The panel at full size: against the published procedure, against its own limit, and by latency.

The published procedure is in `procedure.py`. Ours is the service's own pool. The limit is the same
computation of whole batches on as many cores, without a pool. All of them take turns for several
rounds in one run, so that ratios hold where the machine's speed drifts. Unless a folder of
specialists is given their weights are random: time is measured, and that both compute the same.
"""

import asyncio
import json
import os
import statistics
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from service.demo.tasks import demo_tasks
from specialists import arithmetic, catalogue, graph, loader, panel, runtime
from specialists.architectures import build
from specialists.catalogue import Scale
from specialists.forward import forward
from specialists.loader import Manifest, Specialist
from specialists.pool import MAX_BATCH, MAX_BATCH_ON_GPU, WORKERS, SpecialistPool
from specialists.prediction import Pixels
from specialists.task import Label, Task, TaskKind
from tests.benchmarks import runtimes
from tests.benchmarks.procedure import Procedure

TASK = Task("benchmark", TaskKind.SINGLE_LABEL, "chest X-ray", "chest", (Label("no"), Label("yes")))
CONCURRENCIES = (1, 8, 32)
ALONE = 10  # images asked one after another
GPU_BATCH = 256


@dataclass(frozen=True, slots=True)
class Options:
    images: int = 64
    published_images: int = 2
    references: int = 546  # BreastMNIST's training split, the smallest of MedMNIST
    rounds: int = 5
    scale: Scale = Scale.FULL
    device: str = "cpu"
    specialists: Path | None = None  # folder of one trained panel
    compiler: bool = False
    numbers: bool = False
    backbones: tuple[str, ...] = catalogue.PANEL


def main(options: Options, *, as_json: bool) -> None:
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        folder = options.specialists or made(Path(name) / TASK.name, options)
        pictures = [phantom.rgb for phantom in demo_tasks()[0].series(options.images, seed=29)]
        document = {"machine": machine(options.device), "load": os.getloadavg(), **asdict(options)}
        document["backbones"] = [asdict(one) for one in _rows(folder, pictures, options)]
        if options.backbones == catalogue.PANEL:
            document |= asyncio.run(_compared(folder, pictures, options))
        if options.device != "cpu":
            document |= _of_peak(folder, options)
    document["load_after"] = os.getloadavg()
    print(json.dumps(document, indent=2, default=str) if as_json else _markdown(document))


def machine(device: str) -> str:
    if device != "cpu":
        return torch.cuda.get_device_name()
    lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
    name = next(line.split(":")[1].strip() for line in lines if line.startswith("model name"))
    flags = next(line for line in lines if line.startswith("flags")).split()
    has = [flag for flag in ("amx_bf16", "avx512_bf16", "avx512_vnni") if flag in flags]
    ways = " or else ".join(map(str, arithmetic.fastest_first()))
    return f"{os.cpu_count()} × {name}, {', '.join(has) or 'no bfloat16 instructions'}: {ways}"


def made(folder: Path, options: Options) -> Path:
    """A panel of random weights."""
    for key in options.backbones:
        architecture = catalogue.find(key).at(options.scale)
        torch.manual_seed(0)
        model = build(architecture, len(TASK.labels))
        manifest = Manifest(
            task=TASK.name, kind=TASK.kind, labels=TASK.label_names, backbone=key,
            scale=options.scale, parameters=sum(p.numel() for p in model.parameters()),
            embedding_dimension=architecture.dimension,
            preprocessing=loader.preprocessing_of(architecture), recipe={}, data_fingerprint="",
            validation={"accuracy": None}, temperature=1.0, licence="",
        )  # fmt: skip
        loader.save(folder / key, model, manifest)
    return folder


def _plain(folder: Path, options: Options) -> Iterator[Specialist]:
    for key in options.backbones:
        yield loader.load(folder / key, device=options.device)


def _rows(folder: Path, pictures: Sequence[Pixels], options: Options) -> Iterator[runtimes.Row]:
    for plain in _plain(folder, options):
        fast = runtime.ready(folder / plain.name, _task_of(folder / plain.name), options.device)
        others = _in_other_numbers(folder, plain) if options.numbers else {}
        yield runtimes.row(plain, fast, pictures, others, compiler=options.compiler)


def _in_other_numbers(folder: Path, plain: Specialist) -> dict[str, Specialist]:
    """A graph in everything that computes here, the chosen numbers among them."""
    stop = threading.Event()
    return {
        f"graph, {how}": replace(
            plain, trunk=graph.read(folder / plain.name, plain.manifest, how, stop)
        )
        for how in arithmetic.measured()
    }


async def _compared(folder: Path, pictures: Sequence[Pixels], options: Options) -> dict[str, Any]:
    """Everything in turn, round after round; medians of rounds, and of the ratios in a round."""
    task = _task_of(folder / options.backbones[0])
    pool = SpecialistPool(folder.parent, device=options.device)
    await pool.start()
    try:
        await pool.load(task)
        fast = _inside(pool)
        procedure = Procedure(list(_plain(folder, options)), options.references)
        await asyncio.to_thread(_published, procedure, pictures[:1])
        rounds = []
        for turn in range(options.rounds + 1):
            some = pictures if turn else pictures[:MAX_BATCH]
            few = pictures[: options.published_images]
            found = {
                **await asyncio.to_thread(_published, procedure, few),
                "limit": await asyncio.to_thread(_limit, fast, some, options.device),
                **await _whole(pool, task, some),
                **await asyncio.to_thread(_singles, fast, pictures[:1]),
                "alone": (await _asked(pool, task, pictures[:ALONE], 1))["p50"],
                "preparing": await asyncio.to_thread(_preparing, fast, pictures[0]),
            }
            if turn:
                rounds.append(found)
        latencies = {str(n): await _asked(pool, task, pictures, n) for n in CONCURRENCIES}
    finally:
        await pool.close()
    return {"rounds": rounds, "ms": _medians(rounds), "latency_ms": latencies, **_ratios(rounds)}


def _inside(pool: SpecialistPool) -> list[Specialist]:
    """The pool's own specialists, the slowest first: nothing is in memory twice."""
    (panel_,) = pool._shelf.panels
    members = sorted(panel_.members, key=lambda member: -member.seconds)
    return [member.specialist for member in members]


def _task_of(folder: Path) -> Task:
    said = loader.read_manifest(folder)
    labels = tuple(Label(name) for name in said.labels)
    return Task(said.task, TaskKind(said.kind), "chest X-ray", "chest", labels)


def _published(procedure: Procedure, pictures: Sequence[Pixels]) -> dict[str, float]:
    """Milliseconds an image, with as many threads as PyTorch chooses; processor time with one."""
    torch.set_num_threads(os.cpu_count() or 1)
    taken = [procedure.answer(picture) for picture in pictures]
    torch.set_num_threads(1)
    started = time.process_time()
    procedure.answer(pictures[0])
    return {
        "published_forwards": statistics.median(one.forwards for one in taken),
        "published": statistics.median(one.forwards + one.search for one in taken),
        "published_processor": 1000 * (time.process_time() - started),
    }


def _limit(fast: Sequence[Specialist], pictures: Sequence[Pixels], device: str) -> float:
    """Milliseconds an image of whole batches that are ready, on as many cores as the pool has."""
    size = MAX_BATCH if device == "cpu" else MAX_BATCH_ON_GPU
    parts = [torch.split(runtimes.seen(one, pictures), size) for one in fast]
    work = [piece for same in zip(*parts, strict=True) for piece in zip(fast, same, strict=True)]
    started = time.perf_counter()
    _side_by_side(work)
    return 1000 * (time.perf_counter() - started) / len(pictures)


def _side_by_side(work: Sequence[tuple[Specialist, torch.Tensor]]) -> None:
    with ThreadPoolExecutor(WORKERS, initializer=torch.set_num_threads, initargs=(1,)) as threads:
        list(threads.map(lambda one: forward(*one), work))


def _singles(fast: Sequence[Specialist], pictures: Sequence[Pixels]) -> dict[str, float]:
    """Milliseconds of one image through every specialist, one after another on one core."""
    torch.set_num_threads(1)
    seen = [runtimes.seen(one, pictures) for one in fast]

    def all_of_them() -> None:
        for one, images in zip(fast, seen, strict=True):
            forward(one, images)

    work = {"singles": all_of_them}
    return {
        **runtimes.in_turn(work, 3),
        "singles_processor": runtimes.in_turn(work, 3, time.thread_time)["singles"],
    }


def _preparing(fast: Sequence[Specialist], picture: Pixels) -> float:
    """Milliseconds from pixels to what the specialists see."""
    started = time.perf_counter()
    panel.prepare(picture, [one.manifest.preprocessing for one in fast])
    return 1000 * (time.perf_counter() - started)


async def _whole(pool: SpecialistPool, task: Task, pictures: Sequence[Pixels]) -> dict[str, float]:
    """Milliseconds an image, all asked at once, and of the processor's time."""
    started, computed = time.perf_counter(), time.process_time()
    await asyncio.gather(*(pool.consult(picture, task) for picture in pictures))
    taken, computed = time.perf_counter() - started, time.process_time() - computed
    return {
        "pool": 1000 * taken / len(pictures),
        "pool_processor": 1000 * computed / len(pictures),
    }


async def _asked(
    pool: SpecialistPool, task: Task, pictures: Sequence[Pixels], at_once: int
) -> dict[str, float]:
    gate, taken = asyncio.Semaphore(at_once), []

    async def one(picture: Pixels) -> None:
        async with gate:
            started = time.perf_counter()
            await pool.consult(picture, task)
            taken.append(1000 * (time.perf_counter() - started))

    await asyncio.gather(*(one(picture) for picture in pictures))
    middle, late = np.percentile(taken, (50, 99))
    return {"p50": float(middle), "p99": float(late)}


def _medians(rounds: Sequence[dict[str, float]]) -> dict[str, float]:
    return {name: statistics.median(one[name] for one in rounds) for name in rounds[0]}


def _ratios(rounds: Sequence[dict[str, float]]) -> dict[str, float]:
    def median(upper: str, lower: str) -> float:
        return statistics.median(one[upper] / one[lower] for one in rounds)

    return {
        "times_the_published": median("published", "pool"),
        "times_its_forwards": median("published_forwards", "pool"),
        "times_its_processor_time": median("published_processor", "pool_processor"),
        "of_the_limit": median("limit", "pool"),
        "alone_of_singles_on_all_cores": WORKERS * median("alone", "singles"),
    }


def _of_peak(folder: Path, options: Options) -> dict[str, Any]:
    """Images a second of large batches on a GPU, and what part of its matrix rate that is."""
    peak = _matrix_rate()
    seconds, work = 0.0, 0
    for plain in _plain(folder, options):
        fast = runtime.ready(folder / plain.name, _task_of(folder / plain.name), options.device)
        size = plain.manifest.preprocessing.input_size
        images = torch.randn(GPU_BATCH, 3, size, size)
        taken = runtimes.in_turn({"one": lambda one=fast, images=images: forward(one, images)})
        seconds += taken["one"] / 1000
        work += GPU_BATCH * runtimes.flops(plain)
    return {
        "images_a_second": GPU_BATCH / seconds,
        "matrix_tflops": peak / 1e12,
        "of_the_matrix_rate": work / seconds / peak,
    }


def _matrix_rate(size: int = 8192) -> float:
    """Floating-point operations a second of a large bfloat16 product."""
    one, other = (torch.randn(size, size, device="cuda", dtype=torch.bfloat16) for _ in range(2))

    def product() -> None:
        torch.mm(one, other)
        torch.cuda.synchronize()

    return 2 * size**3 / (runtimes.in_turn({"product": product}, 20)["product"] / 1000)


def _markdown(found: dict[str, Any]) -> str:
    return "\n\n".join(filter(None, (_backbones(found), _rates(found), _latencies(found))))


def _backbones(found: dict[str, Any]) -> str:
    rows = found["backbones"]
    ways = list(rows[0]["alone"])
    heads = [f"{way}, {kind}" for way in ways for kind in ("alone", f"of {runtimes.BATCH}")]
    lines = [
        f"{found['machine']}; load {found['load'][0]:.1f} before, {found['load_after'][0]:.1f} "
        "after. Milliseconds of processor time an image, one core:",
        "",
        f"| backbone | GFLOP | {' | '.join(heads)} | same label | least cosine |",
        "|---|--:|" + "--:|" * (len(heads) + 2),
    ]
    for row in rows:
        taken = [f"{row[kind][way]:.1f}" for way in ways for kind in ("alone", "batch")]
        lines.append(
            f"| {row['backbone']} | {row['gflop']:.1f} | {' | '.join(taken)} "
            f"| {row['same_label']:.3f} | {row['least_cosine']:.5f} |"
        )
    sums = [
        f"{sum(row[kind][way] for row in rows):.0f}" for way in ways for kind in ("alone", "batch")
    ]
    total = sum(row["gflop"] for row in rows)
    return "\n".join([*lines, f"| sum | {total:.0f} | {' | '.join(sums)} | | |"])


def _rates(found: dict[str, Any]) -> str:
    if "ms" not in found:
        return ""
    ms = found["ms"]
    lines = [
        "| ms an image, median of rounds | |",
        "|---|--:|",
        f"| published procedure, {found['references']} reference cases | {ms['published']:.0f} |",
        f"| of that its forwards | {ms['published_forwards']:.0f} |",
        f"| our pool, {found['images']} images at once | {ms['pool']:.0f} |",
        f"| the same computation in whole batches, no pool | {ms['limit']:.0f} |",
        f"| processor time: published procedure on one core | {ms['published_processor']:.0f} |",
        f"| processor time: our pool | {ms['pool_processor']:.0f} |",
        f"| one image alone in our pool | {ms['alone']:.0f} |",
        f"| one image through every specialist in turn, one core | {ms['singles']:.0f} |",
        f"| of that processor time | {ms['singles_processor']:.0f} |",
        f"| preparing one image for all | {ms['preparing']:.1f} |",
        "",
        f"Times the published procedure: {found['times_the_published']:.1f}; times its forwards "
        f"alone: {found['times_its_forwards']:.1f}; in processor time: "
        f"{found['times_its_processor_time']:.1f}. Of the limit: {found['of_the_limit']:.2f}. "
        f"One image alone: {found['alone_of_singles_on_all_cores']:.2f} times the single forwards "
        f"spread over {WORKERS} cores.",
    ]
    if "images_a_second" in found:
        lines.append(
            f"{found['images_a_second']:.0f} images a second in batches of {GPU_BATCH}: "
            f"{found['of_the_matrix_rate']:.2f} of {found['matrix_tflops']:.0f} TFLOP/s."
        )
    return "\n".join(lines)


def _latencies(found: dict[str, Any]) -> str:
    lines = ["| at once | p50, ms | p99, ms |", "|--:|--:|--:|"]
    for count, one in found.get("latency_ms", {}).items():
        lines.append(f"| {count} | {one['p50']:.0f} | {one['p99']:.0f} |")
    return "\n".join(lines) if len(lines) > 2 else ""
