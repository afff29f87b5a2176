"""vLLM's own counters: an arbitration reuses what its initial diagnosis had computed."""

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from builders import a_case, a_picture, an_image, some_evidence
from tiny_generalist import TINY, a_tokenizer
from vllm_server import vllm_serving

from service.domain import Case, LabelledAnswer, Prompt
from service.generalist import checkpoint, prompt, template
from service.generalist.chat import chat_ids
from service.generalist.vllm import VllmGeneralist

pytestmark = [pytest.mark.vllm, pytest.mark.slow, pytest.mark.timeout(1800)]

BLOCK = 32  # tokens: only whole blocks of a beginning are kept


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random weights and a context that holds the longest evidence."""
    folder = tmp_path_factory.mktemp("generalist") / "tiny"
    language = {**TINY["llm_config"], "max_position_embeddings": 4096}
    checkpoint.create(folder, {**TINY, "llm_config": language}, a_tokenizer(), seed=0)
    return folder


@pytest.fixture(scope="module")
def base_url(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    log = tmp_path_factory.mktemp("vllm") / "server.log"
    with vllm_serving(folder, "tiny", "bfloat16", log) as url:
        yield url


@pytest.mark.parametrize("words", ["paper", "rich"])
async def test_an_arbitration_reuses_every_whole_block_before_the_evidence(
    folder: Path, base_url: str, words: str
) -> None:
    case = a_new_case(words)
    first, last = prompt.initial(template.find(words), case), arbitration(case, words)

    await reused_by(first, base_url)
    reused = await reused_by(last, base_url)

    shared = shared_tokens(folder, first, last)
    assert shared > 3 * BLOCK
    assert reused == shared // BLOCK * BLOCK


async def test_an_arbitration_without_its_initial_diagnosis_reuses_nothing(base_url: str) -> None:
    await reused_by(arbitration(a_new_case("another case"), "rich"), base_url)

    assert await reused_by(arbitration(a_new_case("a case"), "rich"), base_url) == 0


def a_new_case(seed: str) -> Case:
    return a_case(image=an_image(a_picture(seed=sum(seed.encode()))))


def arbitration(case: Case, words: str) -> Prompt:
    look = LabelledAnswer(case.task.label_names[:1], (0.5, 0.5))
    return prompt.arbitration(template.find(words), case, some_evidence(), look)


async def reused_by(asked: Prompt, base_url: str) -> int:
    """How many tokens of one prompt the server found in its cache, by its own count."""
    before = counted(base_url)
    remote = VllmGeneralist(base_url, "tiny")
    await remote.answer(Prompt(asked.image, asked.text, max_tokens=1))  # one request and no more
    await remote.close()
    return counted(base_url) - before


def counted(base_url: str) -> int:
    lines = httpx.get(f"{base_url}/metrics", timeout=10, trust_env=False).text.splitlines()
    hits = [line for line in lines if line.startswith("vllm:prefix_cache_hits_total")]
    return int(sum(float(line.split()[-1]) for line in hits))


def shared_tokens(folder: Path, one: Prompt, other: Prompt) -> int:
    """How many tokens both prompts begin with."""
    loaded = checkpoint.load(folder)
    first, second = (
        chat_ids(loaded.tokenizer, asked.text, loaded.config.image_tokens) for asked in (one, other)
    )
    pairs = enumerate(zip(first, second, strict=False))
    return next(place for place, (left, right) in pairs if left != right)
