"""A look-alike of the published MedDr, converted by the command line: vLLM writes as we compute."""

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from lookalike import a_lookalike
from vllm_server import VENV, vllm_serving
from vllm_tokens import an_image, computed, from_vllm

from service.cli.main import main
from service.domain import Prompt
from service.generalist import checkpoint
from service.generalist.chat import chat_ids

pytestmark = [pytest.mark.vllm, pytest.mark.slow, pytest.mark.timeout(1800)]

TOKENS = 32
TEXTS = (
    "You are a medical imaging assistant. Your task is diagnosis. Answer with exactly one option.",
    "The permitted diagnoses are \"normal\", \"pneumonia\". Answer with exactly one option.",
    "Diagnoses of the most similar cases: pneumonia, nodule, mass. Is there an effusion?",
    "Findings:",
    "  Two spaces, a\nline break, é, ü, 漢字 and 🩻: 12.5 % <5 mm. <|im_end|>",
)  # fmt: skip


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("published") / "MedDr_0401"
    a_lookalike(folder)
    return folder


@pytest.fixture(scope="module")
def folder(published: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The converted look-alike."""
    converted = tmp_path_factory.mktemp("converted") / "meddr"
    with pytest.raises(SystemExit) as end:
        main(["generalist", "convert", str(published), str(converted)])
    assert not end.value.code
    return converted


@pytest.fixture(scope="module")
def base_url(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    log = tmp_path_factory.mktemp("vllm") / "server.log"
    with vllm_serving(folder, "meddr", "float32", log) as url:
        yield url


def test_vllm_writes_the_tokens_that_our_architecture_computes(folder: Path, base_url: str) -> None:
    loaded, answers = checkpoint.load(folder), set[tuple[int, ...]]()

    for number in range(10):
        prompt = Prompt(an_image(number), TEXTS[number % len(TEXTS)], max_tokens=TOKENS)
        asked, written = from_vllm(base_url, "meddr", prompt)
        ids = chat_ids(loaded.tokenizer, prompt.text, loaded.config.image_tokens)
        assert asked == ids, prompt.text
        assert written == computed(loaded, prompt.image, ids, TOKENS), prompt.text
        assert len(written) == TOKENS
        answers.add(tuple(written))

    assert len(answers) == 10  # the image and the text both matter


def test_the_served_look_alike_passes_the_check(
    base_url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as end:
        main(["generalist", "check", base_url, "--json"])

    fitness = json.loads(capsys.readouterr().out)
    assert not end.value.code, fitness["findings"]
    assert {one["what"]: one["state"] for one in fitness["findings"]} == dict.fromkeys(
        ("server", "images", "log-probabilities", "structured outputs", "continued answers",
         "prefix cache", "images by name", "forgotten images", "time"), "good",
    )  # fmt: skip


def test_the_tokenizer_finds_the_pieces_of_the_real_sentencepiece(
    folder: Path, published: Path, base_url: str
) -> None:
    """The library comes with vLLM, in whose environment it is asked."""
    script = (
        "import json, sys, sentencepiece as s; p = s.SentencePieceProcessor(sys.argv[1]); "
        "print(json.dumps([p.encode(text) for text in json.load(sys.stdin)]))"
    )
    command = [VENV / "bin" / "python", "-c", script, published / "tokenizer.model"]
    asked = subprocess.run(
        command, input=json.dumps(TEXTS), capture_output=True, text=True, check=True, timeout=60
    )

    tokenizer = checkpoint.load(folder).tokenizer
    ours = [tokenizer.encode(text, add_special_tokens=False) for text in TEXTS]

    assert ours == json.loads(asked.stdout)
