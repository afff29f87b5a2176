"""What the shared prefix saves: an arbitration after its initial diagnosis, and one without.

Both kinds take turns in one run, each on an image that nobody has seen. Two generalists: nano,
whose beginning is short (16 image tokens and a dozen for the words), and one of random weights
with MedDr's 256 image tokens, both under both shipped templates: the evidence of `rich` is several
times longer, and evidence is always new. Two engines: the embedded one, and the real vLLM on this
machine's CPU, which is also shown images as large as radiographs.
"""

import asyncio
import json
import statistics
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import numpy as np
import torch
from PIL import Image as Pictures
from rich.console import Console
from rich.table import Table

from retrieval.neighbour import Neighbour, ReferenceCase
from service.demo.tasks import DemoTask, demo_tasks
from service.domain import Case, Evidence, Image, LabelledAnswer, Prompt
from service.generalist import checkpoint, prompt, template
from service.generalist.embedded import EmbeddedGeneralist
from service.generalist.vllm import VllmGeneralist
from service.settings import NANO_GENERALIST
from specialists.prediction import Pixels, SpecialistPrediction
from tests.vllm_server import vllm_serving

WARM_UP = 3
TEMPLATES = ("paper", "rich")
SPECIALISTS = ("vgg16", "alexnet", "resnet18", "densenet121", "efficientnet_b4",
               "vit_b16", "clip_vit_b16", "eva02_b16", "dino_b16", "sam_b16")  # fmt: skip
NEIGHBOURS = 10
RADIOGRAPH_PIXELS = 2048
LARGER: dict[str, Any] = {
    "force_image_size": 448,
    "vision_config": {
        "hidden_size": 256,
        "num_hidden_layers": 6,
        "num_attention_heads": 4,
        "intermediate_size": 1024,
        "initializer_factor": 1.0,
    },
    "llm_config": {
        "hidden_size": 512,
        "num_hidden_layers": 8,
        "num_attention_heads": 8,
        "num_key_value_heads": 4,
        "intermediate_size": 1536,
        "max_position_embeddings": 4096,
    },
}

Engine = EmbeddedGeneralist | VllmGeneralist


@dataclass(frozen=True)
class Saving:
    """Median seconds of one arbitration, and the prompt tokens that vLLM reused for it."""

    generalist: str
    engine: str
    template: str
    pixels: int  # a side of the image
    cases: int
    after_initial_seconds: float
    without_seconds: float
    tokens_reused: float | None = None

    @property
    def share(self) -> float:
        return self.after_initial_seconds / self.without_seconds


def main(count: int, *, as_json: bool) -> None:
    savings = asyncio.run(_all(count))
    if as_json:
        print(json.dumps([{**asdict(one), "share": round(one.share, 3)} for one in savings]))
    else:
        _show(savings)


def _show(savings: list[Saving]) -> None:
    table = Table(title="One arbitration, median ms", title_justify="left")
    for column in (
        "generalist",
        "engine",
        "template",
        "pixels",
        "cases",
        "after",
        "without",
        "%",
        "reused",
    ):
        table.add_column(column)
    for one in savings:
        reused = "–" if one.tokens_reused is None else f"{one.tokens_reused:.0f}"
        after, without = 1000 * one.after_initial_seconds, 1000 * one.without_seconds
        figures = (f"{after:.1f}", f"{without:.1f}", f"{100 * one.share:.0f}", reused)
        table.add_row(
            one.generalist, one.engine, one.template, str(one.pixels), str(one.cases), *figures
        )
    Console().print(table)


async def _all(count: int) -> list[Saving]:
    demo = demo_tasks()[0]
    savings = []
    with tempfile.TemporaryDirectory() as scratch:
        larger, log = Path(scratch) / "larger", Path(scratch) / "vllm.log"
        _create_larger(larger, demo)
        for name, folder in (("nano", NANO_GENERALIST), ("larger", larger)):
            async with _started(EmbeddedGeneralist(folder, threads=1)) as engine:
                savings += [await _measured(engine, name, t, demo, count) for t in TEMPLATES]
            with vllm_serving(folder, name, "bfloat16", log) as url:
                async with _started(VllmGeneralist(url, name)) as engine:
                    savings += [
                        await _measured(engine, name, t, demo, count, url) for t in TEMPLATES
                    ]
                    savings += [
                        await _measured(engine, name, "rich", demo, count, url, RADIOGRAPH_PIXELS)
                    ]
    return savings


async def _measured(
    engine: Engine,
    name: str,
    words: str,
    demo: DemoTask,
    count: int,
    url: str | None = None,
    pixels: int | None = None,
) -> Saving:
    after, without, reused, side = [], [], [], 0
    cases = _cases(demo, count, pixels)
    for case, other in zip(cases, cases, strict=True):
        side = case.image.pixels.shape[0]
        await engine.answer(_initial(case, words))
        before = _reused_tokens(url)
        after.append(await _seconds(engine, _arbitration(case, words)))
        reused.append(_reused_tokens(url) - before)
        without.append(await _seconds(engine, _arbitration(other, words)))
    kept = slice(WARM_UP, None)
    medians = statistics.median(after[kept]), statistics.median(without[kept])
    tokens = None if url is None else statistics.median(reused[kept])
    return Saving(name, engine.identity.engine, words, side, len(after[kept]), *medians, tokens)


async def _seconds(engine: Engine, asked: Prompt) -> float:
    started = time.perf_counter()
    await engine.answer(asked)
    return time.perf_counter() - started


def _initial(case: Case, words: str) -> Prompt:
    return prompt.initial(template.find(words), case)


def _arbitration(case: Case, words: str) -> Prompt:
    """The prompt as the pipeline asks it, of a panel of ten and ten neighbours."""
    labels = case.task.label_names
    shares = tuple(1 / len(labels) for _ in labels)
    panel = tuple(SpecialistPrediction(name, shares, "", 0.9) for name in SPECIALISTS)
    known = tuple(_neighbour(number, labels) for number in range(NEIGHBOURS))
    first_look = LabelledAnswer(labels[:1], shares)
    evidence = Evidence(panel, known, typicality=0.5)
    return prompt.arbitration(template.find(words), case, evidence, first_look)


def _neighbour(number: int, labels: tuple[str, ...]) -> Neighbour:
    known = ReferenceCase(str(number), "", (labels[number % len(labels)],), "", "")
    return Neighbour(known, 0.9 - number / 100, 0.0, SPECIALISTS)


def _cases(demo: DemoTask, count: int, pixels: int | None = None) -> Iterator[Case]:
    """Two per turn, each of another image; seeds by the clock, as a server may remember."""
    seed = time.time_ns() % 2**31
    for phantom in demo.series(2 * (count + WARM_UP), seed=seed):
        shown = phantom.rgb if pixels is None else _enlarged(phantom.rgb, pixels)
        yield Case(str(uuid4()), demo.task, Image(shown, "", "image/png"))


def _enlarged(rgb: Pixels, pixels: int) -> Pixels:
    """With the noise of a detector, so that it takes as many bytes as a radiograph."""
    large = np.asarray(Pictures.fromarray(rgb).resize((pixels, pixels)), np.int16)
    noise = np.random.default_rng().normal(0, 8, large.shape[:2])[..., None]
    return (large + noise).clip(0, 255).astype(np.uint8)


def _create_larger(folder: Path, demo: DemoTask) -> None:
    """About 30 M parameters, and a tokenizer that knows the words of the prompts.

    Its output layer knows nothing but the labels, so that one token decides as in a trained model.
    """
    case = next(_cases(demo, 1))
    corpus = [_arbitration(case, words).text for words in TEMPLATES]
    tokenizer = checkpoint.create_tokenizer(corpus * 3, 600)
    model = checkpoint.create(folder, LARGER, tokenizer, seed=0)
    with torch.no_grad():
        model.language_model.lm_head.weight.zero_()
        for number, label in enumerate(demo.task.label_names):
            row = tokenizer.encode(label, add_special_tokens=False)[0]
            model.language_model.lm_head.weight[row, number // 2] = 100.0 * (-1) ** number
    checkpoint.save(model, tokenizer, model.config, folder)


def _reused_tokens(url: str | None) -> float:
    """vLLM's own count of the prompt tokens that it found in its prefix cache."""
    if url is None:
        return 0.0
    lines = httpx.get(f"{url}/metrics", timeout=10, trust_env=False).text.splitlines()
    return sum(float(x.split()[-1]) for x in lines if x.startswith("vllm:prefix_cache_hits_total"))


@asynccontextmanager
async def _started(engine: Engine) -> AsyncIterator[Engine]:
    await engine.start()
    try:
        yield engine
    finally:
        await engine.close()
