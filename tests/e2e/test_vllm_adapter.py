"""A LoRA adapter as `gsco generalist train --lora` writes it: vLLM serves what we compute."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from vllm_server import ROOT, vllm_serving
from vllm_tokens import an_image, computed, from_vllm

from service.cli.main import main
from service.domain import Prompt
from service.generalist import checkpoint
from service.generalist.chat import chat_ids
from service.generalist.embedded import EmbeddedGeneralist
from service.generalist.training import adapt
from service.generalist.vllm import VllmGeneralist

pytestmark = [pytest.mark.vllm, pytest.mark.slow, pytest.mark.timeout(1800)]

NANO = ROOT / "service" / "generalist" / "nano"
RANK = 4  # none of the bounds that vLLM accepts
TOKENS = 24
TOLERANCE = 1e-3  # measured: below 1e-6
LABELS = ("normal", "pneumonia", "nodule", "mass")


@pytest.fixture(scope="module")
def adapter(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random weights on every projection, with effects that cannot be overlooked."""
    folder = tmp_path_factory.mktemp("adapter") / "site"
    tuned = adapt.wrapped(checkpoint.load(NANO).model, RANK)
    fill(tuned)
    adapt.save(tuned, folder)
    return folder


@pytest.fixture(scope="module")
def base_url(adapter: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    log = tmp_path_factory.mktemp("vllm") / "server.log"
    with vllm_serving(NANO, "nano", "float32", log, {"site": adapter}) as url:
        yield url


async def test_vllm_with_the_adapter_chooses_as_the_embedded_engine(
    adapter: Path, base_url: str
) -> None:
    embedded = EmbeddedGeneralist(NANO, adapter=adapter)
    tuned, base = VllmGeneralist(base_url, "site"), VllmGeneralist(base_url, "nano")
    await embedded.start()
    await tuned.start()

    for number in range(5):
        prompt = Prompt(an_image(number), f"Which diagnosis has case {number}?", LABELS)
        ours, theirs = await embedded.answer(prompt), await tuned.answer(prompt)
        plain = await base.answer(prompt)
        assert theirs.probabilities == pytest.approx(ours.probabilities, abs=TOLERANCE)
        assert theirs.probabilities != pytest.approx(plain.probabilities, abs=10 * TOLERANCE)

    for one in (embedded, tuned, base):
        await one.close()


def test_vllm_with_the_adapter_writes_the_tokens_that_we_compute(
    adapter: Path, base_url: str
) -> None:
    tuned, base = checkpoint.load(NANO, adapter), checkpoint.load(NANO)

    for number in range(5):
        prompt = Prompt(an_image(number), f"Describe finding {number}.", max_tokens=TOKENS)
        ids = chat_ids(tuned.tokenizer, prompt.text, tuned.config.image_tokens)
        ours = computed(tuned, prompt.image, ids, TOKENS)
        plain = computed(base, prompt.image, ids, TOKENS)
        assert from_vllm(base_url, "site", prompt) == (ids, ours)
        assert from_vllm(base_url, "nano", prompt) == (ids, plain)
        assert ours != plain


def test_the_adapter_passes_the_check_under_its_own_name(
    base_url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as end:
        main(["generalist", "check", base_url, "--model", "site"])

    assert not end.value.code, capsys.readouterr().out


@torch.no_grad()
def fill(tuned: PeftModel) -> None:
    torch.manual_seed(7)
    for name, parameter in tuned.named_parameters():
        if "lora_B" in name:
            parameter.copy_(0.6 * torch.randn_like(parameter))
