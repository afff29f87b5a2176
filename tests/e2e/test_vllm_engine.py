"""The real vLLM and the embedded engine on the same checkpoint: the same labels, the same odds."""

import shutil
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from uuid import uuid4

import httpx
import numpy as np
import pytest
from PIL import Image as Pictures
from tiny_generalist import a_checkpoint
from vllm_server import ROOT, vllm_serving

from service.composition import running_parts
from service.demo.tasks import demo_tasks
from service.domain import Case, Diagnosis, Image, Prompt
from service.errors import PromptTooLong
from service.generalist.embedded import EmbeddedGeneralist
from service.generalist.vllm import VllmGeneralist
from service.settings import Settings, read_settings

pytestmark = [pytest.mark.vllm, pytest.mark.slow, pytest.mark.timeout(1800)]

NANO = ROOT / "service" / "generalist" / "nano"
# The embedded engine computes in float32: at bfloat16 probabilities differ by up to 0.03.
DTYPE = "float32"
TOLERANCE = 0.02  # measured: 2e-6
IMAGES = 20
LABEL_SETS = (
    ("normal", "pneumonia"),
    ("normal", "nodule", "pneumonia", "mass"),
    ("normal", "normal variant", "no finding"),
    ("Atelectasis", "Cardiomegaly", "Effusion", "Infiltration", "Mass", "Nodule", "Pneumonia",
     "Pneumothorax", "Consolidation", "Edema", "Emphysema", "Fibrosis", "Pleural Thickening",
     "Hernia"),
)  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """MedDr-nano where its weights are, or else random ones."""
    if any(NANO.glob("*.safetensors")):
        return NANO
    folder = tmp_path_factory.mktemp("generalist") / "tiny"
    a_checkpoint(folder)
    return folder


@pytest.fixture(scope="module")
def base_url(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    log = tmp_path_factory.mktemp("vllm") / "server.log"
    with vllm_serving(folder, "nano", DTYPE, log) as url:
        yield url


async def test_both_engines_choose_alike(folder: Path, base_url: str) -> None:
    embedded, remote = EmbeddedGeneralist(folder), VllmGeneralist(base_url, "nano")
    await embedded.start()
    await remote.start()
    await remote.check()

    for number in range(IMAGES):
        prompt = a_labelled_prompt(number)
        one, other = await embedded.answer(prompt), await remote.answer(prompt)
        assert one.probabilities == pytest.approx(other.probabilities, abs=TOLERANCE), prompt
        assert one.text == other.text or is_close_call(one.probabilities)

    await embedded.close()
    await remote.close()


@pytest.mark.parametrize("nothing", [True, False])
async def test_both_engines_name_several_alike(folder: Path, base_url: str, nothing: bool) -> None:
    embedded, remote = EmbeddedGeneralist(folder), VllmGeneralist(base_url, "nano")
    await embedded.start()

    for number in range(IMAGES // 4):
        prompt = a_prompt_for_several(number, with_nothing=nothing)
        one, other = await embedded.answer(prompt), await remote.answer(prompt)
        assert one.probabilities == pytest.approx(other.probabilities, abs=TOLERANCE), prompt

    await embedded.close()
    await remote.close()


async def test_both_engines_write_alike(folder: Path, base_url: str) -> None:
    remote = VllmGeneralist(base_url, "nano")
    embedded = EmbeddedGeneralist(folder)
    await embedded.start()
    prompt = Prompt(a_blotchy_image(0), "Which diagnosis? <|im_end|> é", max_tokens=16)

    one, other = await embedded.answer(prompt), await remote.answer(prompt)
    pieces = [piece async for piece in remote.stream(prompt)]

    assert one.text == other.text == "".join(pieces).strip()
    await embedded.close()
    await remote.close()


async def test_a_prompt_longer_than_the_context_is_told_from_other_refusals(base_url: str) -> None:
    remote = VllmGeneralist(base_url, "nano")

    for choices in (("normal", "nodule"), ()):
        with pytest.raises(PromptTooLong, match="longer than the context"):
            await remote.answer(Prompt(a_blotchy_image(0), "word " * 20_000, choices))

    await remote.close()


async def test_an_image_that_was_sent_is_known_by_its_name(base_url: str) -> None:
    """By vLLM's own rules: what it keeps, what it says of an image that it does not keep."""
    sent: list[int] = []
    remote = VllmGeneralist(base_url, "nano")
    remote._client.event_hooks["request"] = [count_octets_in(sent)]
    await remote.check()
    prompt = a_labelled_prompt(3)

    shown = await remote.answer(prompt)
    first, *_ = sent
    sent.clear()
    named = await remote.answer(prompt)
    by_name = [*sent]
    sent.clear()
    remote._images._key = b"nobody has sent an image under this name"
    again = await remote.answer(prompt)

    assert max(by_name) < first / 2
    assert sent[0] in by_name  # refused
    assert sent[1] == first
    assert named.probabilities == pytest.approx(shown.probabilities, abs=TOLERANCE)
    assert again.probabilities == pytest.approx(shown.probabilities, abs=TOLERANCE)
    await remote.close()


async def test_the_whole_pipeline_decides_alike_over_both_engines(
    base_url: str, demonstration: Path, tmp_path: Path
) -> None:
    shutil.copytree(demonstration, tmp_path / "home")
    embedded = read_settings(home=tmp_path / "home", generalist_path=NANO, threads=1)
    remote = read_settings(
        home=tmp_path / "home",
        generalist_engine="vllm",
        generalist_url=base_url,
        generalist_model="nano",
        threads=1,
    )

    ours, theirs = await diagnosed(embedded), await diagnosed(remote)

    assert len(ours) == len(theirs) == 7 * len(demo_tasks())
    for one, other in zip(ours, theirs, strict=True):
        assert one.final.labels == other.final.labels
        assert one.final.probabilities == pytest.approx(other.final.probabilities, abs=TOLERANCE)
        assert other.provenance.generalist.engine == "vllm"


async def diagnosed(settings: Settings) -> list[Diagnosis]:
    """What the whole pipeline says of seven phantoms of every demo task."""
    async with running_parts(settings) as parts:
        return [
            await parts.pipeline.diagnose(
                Case(str(uuid4()), demo.task, Image(phantom.rgb, str(phantom.seed), "image/png"))
            )
            for demo in demo_tasks()
            for phantom in demo.series(7, seed=5)
        ]


def a_labelled_prompt(number: int) -> Prompt:
    labels = LABEL_SETS[number % len(LABEL_SETS)]
    options = ", ".join(f'"{label}"' for label in labels)
    text = f"The permitted diagnoses are {options}. Answer with exactly one option."
    if number % 2:
        text += f" Diagnoses of the specialist models: {', '.join(labels[:3])}."
    return Prompt(a_blotchy_image(number), text, labels)


def a_prompt_for_several(number: int, *, with_nothing: bool) -> Prompt:
    labels = ("no finding", "cardiomegaly", "effusion", "nodule")
    options = ", ".join(f'"{label}"' for label in labels)
    text = f"The permitted diagnoses are {options}. Name all that apply."
    nothing = labels[0] if with_nothing else None
    return Prompt(a_blotchy_image(number), text, labels, several=True, nothing=nothing)


def a_blotchy_image(seed: int) -> Image:
    blotches = np.random.default_rng(seed).integers(0, 256, (8, 8, 3), np.uint8)
    stretched = Pictures.fromarray(blotches).resize((300, 260), Pictures.Resampling.BICUBIC)
    return Image(np.asarray(stretched), sha256=f"blotches-{seed}", media_type="image/png")


def count_octets_in(sent: list[int]) -> Callable[[httpx.Request], Awaitable[None]]:
    async def count(request: httpx.Request) -> None:
        if request.method == "POST":
            sent.append(len(request.content))

    return count


def is_close_call(probabilities: tuple[float, ...]) -> bool:
    """The two likeliest are nearer to each other than the engines need to be."""
    second, first = sorted(probabilities)[-2:]
    return first - second < 2 * TOLERANCE
